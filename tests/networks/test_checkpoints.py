"""Reading weights without running code."""

import argparse
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from basics.errors import UserError
from networks.checkpoints import (
    known_by,
    load_into,
    read_checkpoint,
    read_safetensors,
    read_weights,
    weights_checksum,
    write_safetensors,
)
from tests.processes import in_a_process
from tests.support import dice_of

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2])}


def equal(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE},
        {"state_dict": {f"module.{name}": value for name, value in STATE.items()}, "epoch": 3, "arch": "resnet50"},
        {f"module.{name}": value for name, value in STATE.items()},
    ],
)
@pytest.mark.parametrize("old_format", [False, True])
def test_torch_files_in_any_wrapping(tmp_path: Path, content: Any, old_format: bool) -> None:
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not old_format)
    assert equal(read_weights(tmp_path / "x.pth"))


LAST = {name: value + 1 for name, value in STATE.items()}


def under(prefix: str, state: dict[str, torch.Tensor] = STATE) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def known(state: dict[str, torch.Tensor]) -> int:
    return len(state.keys() & STATE.keys())


@pytest.mark.parametrize(
    ("entry", "averaged"),
    [
        ("state_dict_ema", STATE),
        ("model_ema", STATE),
        ("model_ema", {**under("module."), "n_averaged": torch.tensor(7)}),
        ("ema", {"state_dict": under("module.")}),
    ],
)
@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_averaged_weights_are_taken_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], entry: str, averaged: Any, wrapper: str
) -> None:
    torch.save({wrapper: LAST, entry: averaged, "epoch": 3}, tmp_path / "x.pth")
    found = read_checkpoint(tmp_path / "x.pth", known)
    assert equal(found.state)
    assert found.averaged == entry
    assert f"x.pth holds averaged weights ({entry})" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"decay": 0.9, "num_updates": 3}, ""),
        ({"shadow": dict(list(LAST.items())[:1]), "decay": 0.9}, ""),
        (dict(list(LAST.items())[:1]), "averages (ema) of some weights only; the last weights are taken"),
    ],
)
def test_averages_that_are_no_whole_state_dict_are_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], other: Any, said: str
) -> None:
    torch.save({"state_dict": STATE, "ema": other}, tmp_path / "x.pth")
    found = read_checkpoint(tmp_path / "x.pth", known)
    assert equal(found.state)
    assert not found.averaged
    message = capsys.readouterr().err
    assert said in message if said else not message


@pytest.mark.parametrize("nothing", [None, {}])
def test_a_checkpoint_without_averaged_weights_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nothing: Any
) -> None:
    torch.save({"state_dict": STATE, "state_dict_ema": nothing}, tmp_path / "x.pth")
    found = read_checkpoint(tmp_path / "x.pth", known)
    assert equal(found.state)
    assert not found.averaged
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "prefix", ["model.", "_orig_mod.", "module.", "_orig_mod.module.", "module._orig_mod.", "model._orig_mod.module."]
)
def test_prefixes_that_hide_known_names_are_taken_off(tmp_path: Path, prefix: str) -> None:
    torch.save({"model": under(prefix)}, tmp_path / "x.pth")
    assert equal(read_weights(tmp_path / "x.pth", known))


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "model.", "module.model."])
def test_names_of_the_network_itself_keep_their_prefix(tmp_path: Path, prefix: str) -> None:
    network = nn.ModuleDict({"model": nn.ModuleDict({"model": nn.Linear(2, 3)}), "module": nn.Linear(3, 4)})
    state = network.state_dict()
    torch.save(under(prefix, state), tmp_path / "x.pth")
    assert read_weights(tmp_path / "x.pth", known_by(network)).keys() == state.keys()


def test_what_lies_beside_a_network_is_left_over(tmp_path: Path) -> None:
    network = nn.Linear(2, 3)
    torch.save({**under("model.", network.state_dict()), "criterion.weight": torch.ones(2)}, tmp_path / "x.pth")
    state = read_weights(tmp_path / "x.pth", known_by(network))
    with pytest.raises(UserError, match=r"do not fit it: unknown: criterion\.weight; give"):
        load_into(network, state, "it")


def test_two_names_never_become_one(tmp_path: Path) -> None:
    both = {**STATE, **under("model.", LAST)}
    torch.save(both, tmp_path / "x.pth")
    assert read_weights(tmp_path / "x.pth", known).keys() == both.keys()


def test_options_of_a_training_beside_its_weights(tmp_path: Path) -> None:
    torch.save({"state_dict": STATE, "args": argparse.Namespace(model="resnet50", lr=0.1)}, tmp_path / "x.pth")
    assert equal(read_weights(tmp_path / "x.pth"))


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin"])
def test_safetensors_under_any_name(tmp_path: Path, name: str) -> None:
    save_file(STATE, tmp_path / name)
    assert equal(read_weights(tmp_path / name))


def test_written_safetensors_are_read_by_the_plain_library(tmp_path: Path) -> None:
    view = torch.arange(12.0).view(3, 4).t()
    write_safetensors(tmp_path / "x.safetensors", {"view": view}, {"width": 0.5, "list": [1, 2]})
    assert torch.equal(load_file(tmp_path / "x.safetensors")["view"], view)
    _, stored = read_safetensors(tmp_path / "x.safetensors")
    assert stored["width"] == "0.5"
    assert stored["list"] == "[1, 2]"


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    metadata = {f"fact {index}": index for index in range(20)}
    written = set()
    for attempt in range(5):
        path = tmp_path / f"{attempt}.safetensors"
        write_safetensors(path, STATE, metadata)
        written.add(path.read_bytes())
    assert len(written) == 1
    assert equal(load_file(path))
    assert equal(read_weights(path))
    assert read_safetensors(path)[1] == {name: str(value) for name, value in metadata.items()}


class Bomb:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.trace),))


@pytest.mark.parametrize("old_format", [False, True])
def test_code_is_refused_and_not_run(tmp_path: Path, old_format: bool) -> None:
    trace = tmp_path / "code-was-run"
    content = {**STATE, "bomb": Bomb(trace)}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not old_format)
    with pytest.raises(UserError, match="holds Python code besides weights and was not run"):
        read_weights(tmp_path / "x.pth")
    assert not trace.exists()
    # It would have run: this is how a careless reader fares.
    torch.load(tmp_path / "x.pth", weights_only=False)
    assert trace.is_dir()


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for read in (read_weights, read_safetensors):
        for path in (tmp_path / "absent.pth", tmp_path):
            with pytest.raises(UserError, match="no weights file"):
                read(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_a_file_that_may_not_be_read(tmp_path: Path, name: str) -> None:
    (torch.save if name == "x.pth" else save_file)(STATE, tmp_path / name)
    (tmp_path / name).chmod(0)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o111)
    assert f"{name} cannot be read (Permission denied)" in in_a_process(error_of_nobody, tmp_path / name)


def error_of_nobody(path: Path) -> str:
    """The error for a user who may read no file that is not open to all."""
    if os.geteuid() == 0:
        os.seteuid(65534)
    with pytest.raises(UserError) as error:
        read_weights(path)
    return str(error.value)


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_truncated_anywhere(tmp_path: Path, name: str) -> None:
    state = {f"layer{index}": torch.randn(20, 20) for index in range(5)}
    (torch.save if name == "x.pth" else save_file)(state, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for length in range(0, len(whole) - 1, len(whole) // 40):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(UserError, match="not a readable checkpoint"):
            read_weights(tmp_path / name)


def test_random_bytes(tmp_path: Path) -> None:
    dice = dice_of(0)
    for _ in range(200):
        (tmp_path / "x.pth").write_bytes(dice.randbytes(dice.randint(1, 60)))
        with pytest.raises(UserError, match=r"x\.pth"):
            read_weights(tmp_path / "x.pth")


@pytest.mark.parametrize("text", ["hello", "<html>404</html>", '{"json": 1}', "n01440764 0\n" * 50])
def test_texts(tmp_path: Path, text: str) -> None:
    for name in ("x.pth", "x.safetensors"):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match="not a readable checkpoint"):
            read_weights(tmp_path / name)


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], {}, {"state_dict": {}}, {"a": 1}, {"a": STATE}])
def test_no_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match="state dict"):
        read_weights(tmp_path / "x.pth")


def test_loading_lists_everything_that_does_not_fit() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = {"0.weight": torch.zeros(3, 2), "0.bias": torch.zeros(5), "1.bias": torch.zeros(4), "other": torch.zeros(1)}
    with pytest.raises(UserError) as refusal:
        load_into(network, state, "the network")
    said = str(refusal.value)
    assert "do not fit the network" in said
    assert "missing: 1.weight" in said
    assert "unknown: other" in said
    assert "0.bias (5,) instead of (3,)" in said
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


def test_long_lists_are_shortened() -> None:
    with pytest.raises(UserError, match=r"x0, .* and 14 more"):
        load_into(nn.Sequential(), {f"x{index}": torch.zeros(1) for index in range(20)}, "it")


def test_loading_what_fits() -> None:
    network = nn.Linear(2, 3)
    load_into(network, {"weight": torch.full((3, 2), 7.0), "bias": torch.zeros(3)}, "it")
    assert bool((network.weight == 7).all())


def test_checksums_look_at_names_types_shapes_and_values() -> None:
    changed = [
        {**STATE, "b": torch.tensor([1, 3])},
        {**STATE, "b": torch.tensor([1, 2], dtype=torch.int32)},
        {**STATE, "a.weight": STATE["a.weight"].view(3, 2)},
        {"c": STATE["b"], "a.weight": STATE["a.weight"]},
        {"b": STATE["b"]},
    ]
    checksums = {weights_checksum(state) for state in [STATE, *changed]}
    assert len(checksums) == 6
    same = {"b": STATE["b"], "a.weight": STATE["a.weight"].t().contiguous().t()}
    assert weights_checksum(same) == weights_checksum(STATE)
    assert weights_checksum({"half": torch.zeros(2, dtype=torch.bfloat16)}) != weights_checksum({})
