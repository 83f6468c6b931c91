"""The autoencoder's file, by plain safetensors."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from basics.errors import UserError
from decoders.autoencoder import (
    Autoencoder,
    autoencoder_from_encoder,
    load_autoencoder,
    network_state,
    save_autoencoder,
)
from encoders import encoder_kind
from tests.support import WIDTH, published_vgg, seeded, tiny_autoencoder


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def forged(path: Path, **changed: object) -> None:
    stored = {**metadata(path), **{name: json.dumps(value) for name, value in changed.items()}}
    save_file(load_file(path), path, stored)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["vgg", "resnet"])
def test_what_is_saved_comes_back(tmp_path: Path, encoder: str) -> None:
    with seeded(3):
        module = Autoencoder(encoder_kind(encoder), WIDTH)
    save_autoencoder(tmp_path / "a.safetensors", module, "adain", {"epochs": 3, "source": "x"})
    found = load_autoencoder(tmp_path / "a.safetensors", encoder)
    assert found.origin == {"epochs": 3, "source": "x"}
    assert found.summary() == {"encoder": encoder, "width": WIDTH, "encoder_form": "adain", "sha256": found.checksum}
    image = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(found.module(image), module.eval()(image))
        assert found.module(image).shape == image.shape
    assert not found.module.training
    assert not any(weight.requires_grad for weight in found.module.parameters())


def test_the_file_describes_itself_to_plain_safetensors(tmp_path: Path) -> None:
    stored = metadata(tiny_autoencoder(tmp_path / "a.safetensors"))
    assert json.loads(stored["encoder"]) == "vgg"
    assert json.loads(stored["width"]) == WIDTH
    assert {"sha256", "encoder_sha256", "decoder_sha256", "encoder_form", "facts"} <= stored.keys()


def test_checksums_tell_weights_apart_and_not_files(tmp_path: Path) -> None:
    paths = [tiny_autoencoder(tmp_path / f"{seed}-{n}.safetensors", seed=seed) for n, seed in enumerate((0, 0, 1))]
    first, again, other = (load_autoencoder(path).checksum for path in paths)
    assert first == again != other


def test_a_run_folder_stands_for_its_file(tmp_path: Path) -> None:
    path = tiny_autoencoder(tmp_path / "autoencoder.safetensors")
    assert load_autoencoder(tmp_path, "vgg").summary() == load_autoencoder(path, "vgg").summary()
    path.unlink()
    with pytest.raises(UserError, match=r"The folder .* holds no autoencoder\.safetensors; give a run folder of"):
        load_autoencoder(tmp_path)


@pytest.mark.parametrize(
    ("network", "builder"),
    [("resnet18", "networks.classifiers.get_model"), ("timm:test_resnet", "timm.create_model")],
)
def test_a_file_in_place_of_published_weights_is_named_with_the_module(
    monkeypatch: pytest.MonkeyPatch, network: str, builder: str
) -> None:
    def absent(*_words: object, **options: object) -> object:
        if options.get("weights") or options.get("pretrained"):
            raise OSError("no network")
        return nn.Identity()

    monkeypatch.setattr(builder, absent)
    kind = replace(encoder_kind("resnet"), name=f"{network}@layer1.0", network=network)
    with pytest.raises(UserError, match=rf"\(no network\); give .*{network}=FILE@layer1\.0\."):
        network_state(kind, "published")


@pytest.mark.slow
def test_the_encoder_stays_frozen_in_training_mode() -> None:
    module = Autoencoder(encoder_kind("resnet"), WIDTH).train()
    assert module.decoder.training
    assert not any(layer.training for layer in module.encoder.modules())
    assert not any(weight.requires_grad for weight in module.encoder.parameters())
    assert all(weight.requires_grad for weight in module.decoder.parameters())


@pytest.mark.slow
def test_another_encoder_is_refused(tmp_path: Path) -> None:
    path = tiny_autoencoder(tmp_path / "a.safetensors", "resnet")
    with pytest.raises(UserError, match="has the encoder resnet, not vgg"):
        load_autoencoder(path, "vgg")


def test_one_changed_weight_is_refused(tmp_path: Path) -> None:
    path = tiny_autoencoder(tmp_path / "a.safetensors")
    state = load_file(path)
    state["decoder.1.bias"][0] += 1e-6
    save_file(state, path, metadata(path))
    with pytest.raises(UserError, match="damaged"):
        load_autoencoder(path)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    path = tiny_autoencoder(tmp_path / "a.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"a\.safetensors is not a readable checkpoint"):
        load_autoencoder(path)


@pytest.mark.parametrize("stored", [None, {"format": "pt"}, {"sha256": "abc", "format": "pt"}])
def test_foreign_safetensors_are_refused(tmp_path: Path, stored: dict[str, str] | None) -> None:
    save_file({"x": torch.zeros(2)}, tmp_path / "x.safetensors", stored)
    with pytest.raises(UserError, match="not an autoencoder of this program"):
        load_autoencoder(tmp_path / "x.safetensors")


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tiny_autoencoder(tmp_path / "a.safetensors")
    forged(path, version=2)
    with pytest.raises(UserError, match="newer"):
        load_autoencoder(path)


@pytest.mark.slow
def test_published_encoders_have_width_one() -> None:
    module, form = autoencoder_from_encoder(encoder_kind("vgg"), published_vgg())
    assert (module.width, form) == (1.0, "adain")
    assert torch.equal(module.encoder.state_dict()["29.weight"], published_vgg()["29.weight"])


@pytest.mark.parametrize("width", [0, -1, 1.5, float("nan")])
def test_impossible_widths_are_refused(width: float) -> None:
    with pytest.raises(UserError, match="width"):
        Autoencoder(encoder_kind("vgg"), width)
