"""Attacks on trained networks: what is written, what is computed again, what the worst case is."""

import json
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from abnn import attack_run
from abnn.attack_run import AttackRun
from abnn.attacking import AttackRequest, attack_all
from abnn.checkpoint import Checkpoint, load_checkpoint
from abnn.options import PixelOptions, RectangleOptions
from basics.errors import UserError, WorkError
from downstream.result_store import RESULTS, SAMPLES
from experiments import BENCHMARKS
from tests.abnn.trained import small_world

# A network is trained before the first test.
pytestmark = pytest.mark.slow


def attack(world: Path, out: Path, *runs: Checkpoint, **changed: Any) -> list[dict[str, Any]]:
    request = AttackRequest(
        checkpoints=[run.folder for run in runs], data=str(world), out=out, benchmarks=BENCHMARKS,
        **{"attacks": ["clean", "pgd"], "batch_size": 5, **changed},
    )  # fmt: skip
    return attack_all(request)


def samples(out: Path) -> dict[str, list[int]]:
    with h5py.File(out / SAMPLES) as file:
        return {pair: data[()].tolist() for pair, data in file.items()}


def test_lines_agree_with_samples(world: Path, runs: dict[str, Checkpoint], tmp_path: Path) -> None:
    rows = attack(world, tmp_path, runs["none"], runs["abnn"])
    written = [json.loads(line) for line in (tmp_path / RESULTS).read_text().splitlines()]
    assert sorted(map(json.dumps, rows)) == sorted(map(json.dumps, written))
    assert {(row["model"], row["attack"]) for row in rows} == {
        (model, name) for model in ("none", "abnn") for name in ("clean", "pgd-5", "worst")
    }
    kept = samples(tmp_path)
    for row in rows:
        assert row["accuracy"] == np.mean(kept[row["pair"]])
        assert row["n"] == 12
        assert row["cost"]["passes"] == {"none": 2, "abnn": 3}[row["model"]]
    by_name = {(row["model"], row["attack"]): kept[row["pair"]] for row in rows}
    for model in ("none", "abnn"):
        both = zip(by_name[model, "clean"], by_name[model, "pgd-5"], strict=True)
        assert by_name[model, "worst"] == [min(pair) for pair in both]


def test_clean_accuracy_is_that_of_a_plain_loop(world: Path, runs: dict[str, Checkpoint], tmp_path: Path) -> None:
    from torchvision.transforms.functional import to_tensor

    run = runs["none"]
    correct = []
    for path in sorted((world / "test").rglob("*.png")):
        with Image.open(path) as image:
            predicted = run.module(to_tensor(image)[None]).argmax()
        correct.append(int(run.classes[int(predicted)] == path.parent.name))
    (row,) = attack(world, tmp_path, run, attacks=["clean"])
    assert samples(tmp_path)[row["pair"]] == correct


def test_a_second_run_attacks_nothing_again(world: Path, runs: dict[str, Checkpoint], tmp_path: Path) -> None:
    first = attack(world, tmp_path, runs["none"])
    with mock.patch.object(AttackRun, "attack_batch", side_effect=AssertionError("attacked again")):
        assert attack(world, tmp_path, runs["none"]) == first
    # Another ball is another result.
    more = attack(world, tmp_path, runs["none"], attacks=["pgd"], pixels=PixelOptions(eps=0.1))
    assert {row["attack"] for row in more} == {"pgd-5 (linf, eps 0.1)", "worst"}


def test_other_results_under_the_same_names_are_not_replaced_in_silence(
    world: Path, runs: dict[str, Checkpoint], tmp_path: Path
) -> None:
    (first,) = attack(world, tmp_path, runs["none"], attacks=["pgd"])
    before = (tmp_path / RESULTS).read_bytes()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"limit": 4}, "n: 12 -> 4"),
        ({"seed": 3}, "attack_seed: 0 -> 3"),
        ({"pixels": PixelOptions(step_size=0.5)}, "settings.step_size"),
    ]
    for changed, message in cases:
        with pytest.raises(UserError, match=f"holds another result of none under pgd-5 .*{message}"):
            attack(world, tmp_path, runs["none"], attacks=["pgd"], **changed)
        assert (tmp_path / RESULTS).read_bytes() == before
    (second,) = attack(world, tmp_path, runs["none"], attacks=["pgd"], limit=4, overwrite=True)
    assert (first["n"], second["n"]) == (12, 4)


def test_a_cost_that_was_measured_since_is_written(world: Path, runs: dict[str, Checkpoint], tmp_path: Path) -> None:
    run = load_checkpoint(Path(shutil.copytree(runs["none"].folder, tmp_path / "run")))
    cost = run.folder / "cost.json"
    kept = cost.read_text()
    cost.unlink()
    (row,) = attack(world, tmp_path / "out", run, attacks=["clean"])
    assert row["cost"] is None
    cost.write_text(kept)
    (row,) = attack(world, tmp_path / "out", run, attacks=["clean"])
    assert row["cost"]["passes"] == 2
    assert json.loads((tmp_path / "out" / RESULTS).read_text())["cost"] == row["cost"]


def test_an_interrupted_attack_goes_on_to_the_same_samples(
    world: Path, runs: dict[str, Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attack_run, "SECONDS_BETWEEN_SAVES", -1)
    whole = attack(world, tmp_path / "whole", runs["abnn"], attacks=["pgd"])
    real = AttackRun.attack_batch
    made: list[int] = []

    def breaks(self: AttackRun, image: Tensor, label: Tensor, number: int) -> Any:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(number)
        return real(self, image, label, number)

    with mock.patch.object(AttackRun, "attack_batch", breaks), pytest.raises(KeyboardInterrupt):
        attack(world, tmp_path / "parts", runs["abnn"], attacks=["pgd"])
    assert made == [0, 1]
    made[:] = [-1]
    with mock.patch.object(AttackRun, "attack_batch", breaks):
        parts = attack(world, tmp_path / "parts", runs["abnn"], attacks=["pgd"])
    assert made == [-1, 2]
    assert samples(tmp_path / "parts") == samples(tmp_path / "whole")
    assert parts[0]["accuracy"] == whole[0]["accuracy"]


def test_a_limit_takes_images_of_all_classes(world: Path, runs: dict[str, Checkpoint], tmp_path: Path) -> None:
    (row,) = attack(world, tmp_path, runs["none"], attacks=["clean"], limit=4)
    assert row["n"] == 4
    whole = attack(world, tmp_path / "whole", runs["none"], attacks=["clean"])[0]
    assert samples(tmp_path)[row["pair"]] == samples(tmp_path / "whole")[whole["pair"]][::3]


def test_an_output_that_is_no_number_stops_the_work(world: Path, runs: dict[str, Checkpoint], tmp_path: Path) -> None:
    run = load_checkpoint(Path(shutil.copytree(runs["none"].folder, tmp_path / "run")))
    path = run.folder / "model.safetensors"
    from networks.checkpoints import own_metadata, read_safetensors, write_safetensors

    state, metadata = read_safetensors(path)
    state["1.fc.bias"] = torch.full_like(state["1.fc.bias"], float("nan"))
    write_safetensors(path, state, own_metadata(metadata, "advbn-gen abnn network"))
    with pytest.raises(WorkError, match="not all numbers"):
        attack(world, tmp_path / "out", run)


def test_an_attack_that_leaves_its_ball_stops_the_work(
    world: Path, runs: dict[str, Checkpoint], tmp_path: Path
) -> None:
    escaping = mock.patch("attacks.pixels.PixelThreat.project", side_effect=lambda parameters: parameters)
    with escaping, pytest.raises(WorkError, match=r"left its ball|left the range"):
        attack(world, tmp_path, runs["none"], attacks=["pgd"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"attacks": ["magic"]}, "no attack"),
        ({"pixels": PixelOptions(eps=2.0)}, r"lies in \[0, 1\]"),
        ({"attacks": ["roa"], "rectangle": RectangleOptions(height=33, width=2)}, "33 x 2 pixels is larger"),
        ({"limit": 0}, "limit is 0"),
        ({"batch_size": 0}, "batch size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"device": "cuda:77"}, "not on this machine"),
    ],
)
def test_impossible_requests_are_refused(
    world: Path, runs: dict[str, Checkpoint], tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        attack(world, tmp_path / "out", runs["none"], **changed)
    assert not (tmp_path / "out").exists()


def test_images_that_do_not_fit_the_network_are_refused(runs: dict[str, Checkpoint], tmp_path: Path) -> None:
    from PIL import Image

    data = small_world(tmp_path / "data")
    for path in data.rglob("*.png"):
        with Image.open(path) as image:
            image.resize((48, 48)).save(path)
    with pytest.raises(UserError, match=r"not 32x32 .* is 48x48"):
        attack(data, tmp_path / "out", runs["none"])
    shutil.rmtree(data)
    small_world(data)
    (data / "test" / "cat").rename(data / "test" / "bird")
    with pytest.raises(UserError, match="bird for"):
        attack(data, tmp_path / "out", runs["none"])
    shutil.rmtree(data / "test" / "bird")
    with pytest.raises(UserError, match=r"has 4 classes, but .* has 3"):
        attack(data, tmp_path / "out", runs["none"])


def test_two_networks_of_one_name_are_refused(world: Path, runs: dict[str, Checkpoint], tmp_path: Path) -> None:
    shutil.copytree(runs["none"].folder, tmp_path / "none")
    from abnn.checkpoint import load_checkpoint

    with pytest.raises(UserError, match="Two run folders are called none"):
        attack(world, tmp_path / "out", runs["none"], load_checkpoint(tmp_path / "none"))


def test_damaged_results_are_refused(world: Path, runs: dict[str, Checkpoint], tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text("{")
    with pytest.raises(UserError, match="damaged"):
        attack(world, tmp_path, runs["none"])


def test_one_folder_holds_results_on_the_same_images(world: Path, runs: dict[str, Checkpoint], tmp_path: Path) -> None:
    attack(world, tmp_path, runs["none"])
    before = (tmp_path / RESULTS).read_bytes()
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"on other test images \(.*n: 12 -> 4.*the same images"):
            attack(
                world,
                tmp_path,
                runs["none"],
                attacks=["pgd"],
                pixels=PixelOptions(steps=2),
                limit=4,
                overwrite=overwrite,
            )
    assert (tmp_path / RESULTS).read_bytes() == before
    # All of them again, on fewer images: nothing of the others is left.
    rows = attack(world, tmp_path, runs["none"], limit=4, overwrite=True)
    assert {row["n"] for row in map(json.loads, (tmp_path / RESULTS).read_text().splitlines())} == {4}
    assert {row["attack"] for row in rows} == {"clean", "pgd-5", "worst"}


def test_a_second_run_in_the_same_folder_is_refused(world: Path, runs: dict[str, Checkpoint], tmp_path: Path) -> None:
    """Also while the worst case is computed: what another run writes must not be lost."""
    tried = []

    def meanwhile(*_: object) -> list[dict[str, Any]]:
        with pytest.raises(UserError, match="Another run is writing"):
            attack(world, tmp_path, runs["none"], attacks=["roa-random"])
        tried.append(True)
        return []

    with mock.patch("abnn.attacking._worst", side_effect=meanwhile):
        attack(world, tmp_path, runs["none"])
    assert tried


def test_an_interrupted_attack_loses_no_batch(world: Path, runs: dict[str, Checkpoint], tmp_path: Path) -> None:
    real, calls = AttackRun.attack_batch, list[int]()

    def interrupted(self: AttackRun, image: Tensor, label: Tensor, number: int) -> Any:
        if calls and number == 1:
            raise KeyboardInterrupt
        calls.append(number)
        return real(self, image, label, number)

    with mock.patch.object(AttackRun, "attack_batch", interrupted), pytest.raises(KeyboardInterrupt):
        attack(world, tmp_path, runs["none"], attacks=["pgd"])
    calls.clear()

    def counted(self: AttackRun, image: Tensor, label: Tensor, number: int) -> Any:
        calls.append(number)
        return real(self, image, label, number)

    with mock.patch.object(AttackRun, "attack_batch", counted):
        went_on = attack(world, tmp_path, runs["none"], attacks=["pgd"])
    assert calls == [1, 2]
    alone = attack(world, tmp_path / "alone", runs["none"], attacks=["pgd"])
    assert went_on[0]["accuracy"] == alone[0]["accuracy"]
    assert samples(tmp_path)[went_on[0]["pair"]] == samples(tmp_path / "alone")[alone[0]["pair"]]


def test_foreign_lines_are_refused_and_kept(world: Path, runs: dict[str, Checkpoint], tmp_path: Path) -> None:
    foreign = json.dumps({"model": "x", "attack": "y", "pair": "z", "mine": 1}) + "\n"
    (tmp_path / RESULTS).write_text(foreign)
    with pytest.raises(UserError, match=r"results in .* are damaged"):
        attack(world, tmp_path, runs["none"])
    assert (tmp_path / RESULTS).read_text() == foreign


def test_a_ball_of_another_radius_has_steps_in_proportion(
    world: Path, runs: dict[str, Checkpoint], tmp_path: Path
) -> None:
    rows = attack(world, tmp_path / "l2", runs["none"], attacks=["pgd"], pixels=PixelOptions(eps=0.5, norm="l2"))
    assert rows[0]["settings"]["step_size"] == pytest.approx(0.5 / 4)
    (row,) = attack(world, tmp_path, runs["none"], attacks=["pgd"], pixels=PixelOptions(eps=16 / 255))
    assert row["settings"]["step_size"] == pytest.approx(4 / 255)


def test_an_attack_begun_on_other_images_begins_anew(
    world: Path, runs: dict[str, Checkpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(world, tmp_path / "world"))
    done: list[int] = []
    attack_really = AttackRun.attack_batch

    def interrupted(self: AttackRun, image: Tensor, label: Tensor, number: int) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(number)
        return attack_really(self, image, label, number)

    with mock.patch.object(AttackRun, "attack_batch", interrupted), pytest.raises(KeyboardInterrupt):
        attack(data, tmp_path / "out", runs["none"], attacks=["pgd"])
    for path in (data / "test").rglob("*.png"):
        Image.open(path).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(path)
    (found,) = attack(data, tmp_path / "out", runs["none"], attacks=["pgd"])
    assert "pgd-5 on none was begun on other images" in capsys.readouterr().err
    (fresh,) = attack(data, tmp_path / "fresh", runs["none"], attacks=["pgd"])
    assert samples(tmp_path / "out") == samples(tmp_path / "fresh")
    # Complete results, and the worst case over them, are of the new images as well.
    attack(data, tmp_path / "out", runs["none"])
    for path in (data / "test").rglob("*.png"):
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    after = attack(data, tmp_path / "out", runs["none"])
    assert "other sizes or times than when 3 results in" in capsys.readouterr().err
    fresh_too = attack(data, tmp_path / "fresh too", runs["none"])
    assert [(row["attack"], row["accuracy"]) for row in after] == [
        (row["attack"], row["accuracy"]) for row in fresh_too
    ]
    assert found["pair"] == fresh["pair"]


def test_an_interrupted_overwrite_leaves_no_half_new_result(
    world: Path, runs: dict[str, Checkpoint], tmp_path: Path
) -> None:
    first = attack(world, tmp_path, runs["none"])
    real = AttackRun.attack_batch

    def interrupted(self: AttackRun, image: Tensor, label: Tensor, number: int) -> Any:
        if self.name == "pgd-5" and number == 1:
            raise KeyboardInterrupt
        return real(self, image, label, number)

    with mock.patch.object(AttackRun, "attack_batch", interrupted), pytest.raises(KeyboardInterrupt):
        attack(world, tmp_path, runs["none"], overwrite=True)
    left = {json.loads(line)["attack"] for line in (tmp_path / RESULTS).read_text().splitlines()}
    assert left == {"clean"}
    again = attack(world, tmp_path, runs["none"])
    assert [row["accuracy"] for row in again] == [row["accuracy"] for row in first]


def test_another_seed_is_another_start(world: Path, runs: dict[str, Checkpoint], tmp_path: Path) -> None:
    starts: list[Tensor] = []

    def watched(*args: Any) -> Tensor:
        starts.append(torch.rand(1))
        image: Tensor = args[2]
        return image

    with mock.patch("abnn.named_attacks.Pgd.__call__", watched):
        for seed in (0, 0, 1):
            attack(world, tmp_path / f"{len(starts)}", runs["none"], attacks=["pgd"], seed=seed)
    first, again, other = (torch.cat(starts[part : part + 3]) for part in (0, 3, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(set(first.tolist())) == 3
