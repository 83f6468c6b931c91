"""`import-autoencoder`: published files -> one file."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support import advbn_gen, published_decoder, published_vgg, refused


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("published")
    paths = {"encoder": folder / "vgg_normalised.pth", "decoder": folder / "decoder.pth"}
    torch.save(published_vgg(), paths["encoder"])
    torch.save(published_decoder(), paths["decoder"])
    return paths


def words(encoder: Path, decoder: Path, out: Path) -> list[object]:
    return ["import-autoencoder", "--encoder", "vgg", "--encoder-weights", encoder, "--decoder-weights", decoder,
            "--out", out]  # fmt: skip


@pytest.mark.slow
def test_every_published_weight_is_in_the_file(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    outcome = advbn_gen(*words(files["encoder"], files["decoder"], out), "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.result == {"autoencoder": str(out), "encoder": "vgg", "width": 1.0}
    state = load_file(out)
    encoder = {name: value for name, value in published_vgg().items() if int(name.split(".")[0]) <= 29}
    expected = {f"encoder.{name}": value for name, value in encoder.items()}
    expected |= {f"decoder.{name}": value for name, value in published_decoder().items()}
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], value) for name, value in expected.items())
    info = advbn_gen("info", out, "--json").result
    assert info["encoder_form"] == "adain"
    assert info["facts"]["imported"]["decoder_file"] == "decoder.pth"
    assert info["facts"]["imported"]["decoder_file_sha256"] == hashlib.sha256(files["decoder"].read_bytes()).hexdigest()


@pytest.mark.slow
def test_wrappers_are_taken_off(tmp_path: Path) -> None:
    for name, prefix, state in (("encoder", "model.", published_vgg()), ("decoder", "module.", published_decoder())):
        wrapped = {f"{prefix}{key}": value for key, value in state.items()}
        torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / f"{name}.pth")
    out = tmp_path / "a.safetensors"
    assert advbn_gen(*words(tmp_path / "encoder.pth", tmp_path / "decoder.pth", out)).code == 0
    assert torch.equal(load_file(tmp_path / "a.safetensors")["decoder.28.bias"], published_decoder()["28.bias"])


class Bomb:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.trace),))


@pytest.mark.parametrize("which", ["encoder", "decoder"])
def test_a_pickle_with_code_is_refused_and_not_run(files: dict[str, Path], tmp_path: Path, which: str) -> None:
    torch.save({**published_decoder(), "x": Bomb(tmp_path / "code-was-run")}, tmp_path / "evil.pth")
    chosen = {**files, which: tmp_path / "evil.pth"}
    said = refused(*words(chosen["encoder"], chosen["decoder"], tmp_path / "a.safetensors"))
    assert "evil.pth holds Python code" in said
    assert not (tmp_path / "code-was-run").exists()
    assert not (tmp_path / "a.safetensors").exists()


def test_missing_and_left_over_names_are_listed(files: dict[str, Path], tmp_path: Path) -> None:
    state = published_decoder()
    state["29.weight"] = state.pop("28.weight")
    torch.save(state, tmp_path / "decoder.pth")
    said = refused(*words(files["encoder"], tmp_path / "decoder.pth", tmp_path / "a.safetensors"))
    assert "missing: 28.weight" in said
    assert "unknown: 29.weight" in said


def test_another_shape_is_named(files: dict[str, Path], tmp_path: Path) -> None:
    state = published_decoder()
    state["1.weight"] = state["1.weight"][:, :256]
    torch.save(state, tmp_path / "decoder.pth")
    said = refused(*words(files["encoder"], tmp_path / "decoder.pth", tmp_path / "a.safetensors"))
    assert "1.weight (256, 256, 3, 3) instead of (256, 512, 3, 3)" in said


def test_exchanged_files_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    assert "not a VGG-19" in refused(*words(files["decoder"], files["encoder"], tmp_path / "a.safetensors"))


@pytest.mark.slow
def test_an_encoder_without_any_convolution_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    torch.save({name: value.flatten() for name, value in published_vgg().items()}, tmp_path / "flat.pth")
    refused(*words(tmp_path / "flat.pth", files["decoder"], tmp_path / "a.safetensors"))


def test_missing_files_are_named(files: dict[str, Path], tmp_path: Path) -> None:
    assert "absent.pth" in refused(*words(tmp_path / "absent.pth", files["decoder"], tmp_path / "a.safetensors"))
    assert "absent.pth" in refused(*words(files["encoder"], tmp_path / "absent.pth", tmp_path / "a.safetensors"))


@pytest.mark.slow
def test_a_file_that_is_there_is_kept_unless_asked(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    out.write_text("mine")
    command = words(files["encoder"], files["decoder"], out)
    assert "is there already" in refused(*command)
    assert out.read_text() == "mine"
    assert advbn_gen(*command, "--overwrite").code == 0
    assert "decoder.1.weight" in load_file(out)
