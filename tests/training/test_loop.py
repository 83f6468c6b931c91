"""The loop on a task that counts: checkpoints, metric lines, the end of a diverging run."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from basics import loading
from basics.compute import Compute
from basics.errors import UserError, WorkError
from sources.opening import open_source
from tests.support import image_folder
from training import loop
from training.config import TrainingConfig
from training.data import TrainingImages, Variation
from training.loop import schedule_factor, train


class Counting:
    """Fits one number to 1; may diverge or be interrupted at a step."""

    def __init__(self, *, nan_at: int | None = None, stop_at: int | None = None) -> None:
        self.module: nn.Module = nn.Linear(1, 1)
        nn.init.zeros_(self.module.weight)
        nn.init.zeros_(self.module.bias)
        self.nan_at, self.stop_at, self.calls = nan_at, stop_at, 0
        self.outputs: list[Path] = []
        self.ended: list[int] = []
        self.optim: torch.optim.Optimizer | None = None

    def optimizer(self, config: TrainingConfig) -> torch.optim.Optimizer:
        self.optim = torch.optim.Adam(self.module.parameters(), lr=config.lr)
        return self.optim

    def losses(self, module: nn.Module, image_N3HW: Tensor, label_N: Tensor) -> dict[str, Tensor]:
        assert 0 <= float(image_N3HW.min()) <= float(image_N3HW.max()) <= 1
        assert len(label_N) == len(image_N3HW)
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        loss = (module(image_N3HW.mean((1, 2, 3))[:, None]) - torch.rand(1)).square().mean()
        return {"loss": loss * (math.nan if self.calls == self.nan_at else 1)}

    def end_epoch(self, epoch: int, compute: Compute) -> dict[str, float]:
        assert compute.device.type == "cpu"
        self.ended.append(epoch)
        return {"held": float(epoch)}


CONFIG = TrainingConfig(epochs=3, batch_size=4, lr=0.1, image_size=16, checkpoint_every=2, device="cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> TrainingImages:
    folder = image_folder(tmp_path_factory.mktemp("images") / "source", per_class=7)
    return TrainingImages(open_source(str(folder)), 16, variation=Variation())


def lines(out: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in found]


def test_a_run_does_not_go_on_over_images_that_were_made_anew(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "source", per_class=7, seed=1)

    def opened() -> TrainingImages:
        return TrainingImages(open_source(str(folder)), 16, variation=Variation())

    with pytest.raises(KeyboardInterrupt):
        train(Counting(stop_at=4), opened(), CONFIG, tmp_path / "run", {})
    shutil.rmtree(folder)
    image_folder(folder, per_class=7, seed=2)
    with pytest.raises(UserError, match="holds a run on other training images"):
        train(Counting(), opened(), CONFIG, tmp_path / "run", {})
    train(Counting(), opened(), CONFIG, tmp_path / "run", {}, overwrite=True)


def test_lines_and_checkpoints_come_when_they_should(images: TrainingImages, tmp_path: Path) -> None:
    train(Counting(), images, CONFIG, tmp_path, {})
    # 21 images are 5 steps an epoch: a checkpoint every second step and at the end of each epoch.
    assert [line["step"] for line in lines(tmp_path) if "loss" in line] == [2, 4, 5, 6, 8, 10, 12, 14, 15]
    assert [(line["epoch"], line["held"]) for line in lines(tmp_path) if "held" in line] == [(1, 1), (2, 2), (3, 3)]
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=False)["done"] == 15


@pytest.mark.parametrize("stop_at", [1, 3, 4, 6, 9, 15])
def test_interrupted_anywhere_it_ends_the_same(images: TrainingImages, tmp_path: Path, stop_at: int) -> None:
    whole, parts = Counting(), Counting(stop_at=stop_at)
    train(whole, images, CONFIG, tmp_path / "whole", {})
    with pytest.raises(KeyboardInterrupt):
        train(parts, images, CONFIG, tmp_path / "parts", {})
    resumed = Counting()
    train(resumed, images, CONFIG, tmp_path / "parts", {})
    for name, value in whole.module.state_dict().items():
        assert torch.equal(resumed.module.state_dict()[name], value)
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")
    assert resumed.calls < whole.calls or stop_at <= 2


def test_lines_after_the_checkpoint_are_dropped(images: TrainingImages, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(Counting(stop_at=4), images, CONFIG, tmp_path, {})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 1, "step": 3, "loss": 777.0}\n')
    train(Counting(), images, CONFIG, tmp_path, {})
    assert all(line.get("loss") != 777.0 for line in lines(tmp_path))


def test_a_loss_that_is_no_number_stops_the_run(images: TrainingImages, tmp_path: Path) -> None:
    with pytest.raises(WorkError, match=r"no longer a number at step 8;.*checkpoint\.pt, of step 6"):
        train(Counting(nan_at=8), images, CONFIG, tmp_path, {})
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=False)
    assert checkpoint["done"] == 6
    assert all(math.isfinite(float(value)) for value in checkpoint["module"].values())


def test_the_first_bad_step_is_named_although_it_is_found_later(images: TrainingImages, tmp_path: Path) -> None:
    config = replace(CONFIG, checkpoint_every=500)
    with pytest.raises(WorkError, match=r"at step 2; no checkpoint had been made"):
        train(Counting(nan_at=2), images, config, tmp_path, {})
    assert not (tmp_path / "checkpoint.pt").exists()


def test_weights_that_are_no_numbers_are_neither_kept_nor_written(images: TrainingImages, tmp_path: Path) -> None:
    class Poisoned(Counting):
        """Its loss is a number and its gradient is not: the root of 0 is infinitely steep."""

        def losses(self, module: nn.Module, image_N3HW: Tensor, label_N: Tensor) -> dict[str, Tensor]:
            nothing = (module(image_N3HW.mean((1, 2, 3))[:, None]) * 0).abs().sum().sqrt()
            return {"loss": super().losses(module, image_N3HW, label_N)["loss"] + nothing}

    task = Poisoned()
    with pytest.raises(WorkError, match="weights are no longer numbers"):
        train(task, images, replace(CONFIG, epochs=1, checkpoint_every=1), tmp_path, {})
    assert task.ended == []
    assert not (tmp_path / "checkpoint.pt").exists()


def test_an_epoch_is_not_lost_with_its_end(images: TrainingImages, tmp_path: Path) -> None:
    """A held-out image is broken; mended, the run goes on from the end of that epoch."""

    class Failing(Counting):
        def end_epoch(self, epoch: int, compute: Compute) -> dict[str, float]:
            raise WorkError(f"a broken image in epoch {epoch} on {compute.device}")

    with pytest.raises(WorkError, match="a broken image"):
        train(Failing(), images, CONFIG, tmp_path / "parts", {})
    mended, whole = Counting(), Counting()
    train(mended, images, CONFIG, tmp_path / "parts", {})
    train(whole, images, CONFIG, tmp_path / "whole", {})
    assert mended.calls == whole.calls - whole.calls // 3
    assert mended.ended == [1, 2, 3]
    assert torch.equal(mended.module.weight, whole.module.weight)  # type: ignore[arg-type]
    ends = [line for line in lines(tmp_path / "parts") if "held" in line]
    assert [line["epoch"] for line in ends] == [1, 2, 3]


def test_a_finished_run_does_no_step(images: TrainingImages, tmp_path: Path) -> None:
    train(Counting(), images, CONFIG, tmp_path, {})
    again = Counting()
    train(again, images, CONFIG, tmp_path, {})
    assert again.calls == 0


def test_a_lost_result_is_written_again(images: TrainingImages, tmp_path: Path) -> None:
    train(Counting(), images, CONFIG, tmp_path, {})
    before = (tmp_path / "metrics.jsonl").read_bytes()
    again = Counting()
    again.outputs = [tmp_path / "lost"]
    train(again, images, CONFIG, tmp_path, {})
    assert (again.calls, again.ended) == (0, [3])
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_more_epochs_go_on_where_the_run_ended(images: TrainingImages, tmp_path: Path) -> None:
    whole, more = Counting(), Counting()
    train(whole, images, CONFIG, tmp_path / "whole", {})
    train(Counting(), images, replace(CONFIG, epochs=2), tmp_path / "parts", {})
    train(more, images, replace(CONFIG, checkpoint_every=3), tmp_path / "parts", {})
    assert more.calls == whole.calls // 3
    assert torch.equal(more.module.weight, whole.module.weight)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"holds 3 epochs already; give --epochs 3 or more"):
        train(Counting(), images, replace(CONFIG, epochs=1), tmp_path / "parts", {})


def test_a_constant_schedule_is_one() -> None:
    assert {schedule_factor(CONFIG, step, 40) for step in range(40)} == {1.0}


def test_a_cosine_schedule_warms_up_and_falls_to_zero() -> None:
    config = TrainingConfig(epochs=1, batch_size=1, lr=1, image_size=16, schedule="cosine", warmup=0.1)
    found = [schedule_factor(config, step, 40) for step in range(41)]
    assert found[:4] == [0.25, 0.5, 0.75, 1.0]
    for step in range(4, 41):
        assert found[step] == pytest.approx((1 + math.cos(math.pi * (step - 4) / 36)) / 2)
    assert found[22] == pytest.approx(0.5)
    assert found[40] == pytest.approx(0)
    assert found[4:] == sorted(found[4:], reverse=True)


def test_epochs_asked_for_by_mistake_can_be_taken_back(images: TrainingImages, tmp_path: Path) -> None:
    train(Counting(), images, replace(CONFIG, epochs=2), tmp_path, {})
    with pytest.raises(KeyboardInterrupt):
        train(Counting(stop_at=1), images, replace(CONFIG, epochs=2000), tmp_path, {})
    again = Counting()
    train(again, images, replace(CONFIG, epochs=2), tmp_path, {})
    assert again.calls == 0


def test_two_runs_never_write_to_one_folder(images: TrainingImages, tmp_path: Path) -> None:
    class Meddling(Counting):
        def end_epoch(self, epoch: int, compute: Compute) -> dict[str, float]:
            for overwrite in (False, True):
                with pytest.raises(UserError, match="Another run is writing"):
                    train(Counting(), images, CONFIG, tmp_path, {}, overwrite=overwrite)
            return super().end_epoch(epoch, compute)

    meddled = Meddling()
    train(meddled, images, CONFIG, tmp_path, {})
    assert meddled.ended == [1, 2, 3]


@pytest.mark.slow
def test_overwriting_removes_what_the_run_left_and_nothing_else(images: TrainingImages, tmp_path: Path) -> None:
    train(Counting(), images, CONFIG, tmp_path, {})
    (tmp_path / "own.txt").write_text("mine")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "weights").write_text("old")
    anew = Counting()
    anew.outputs = [tmp_path / "weights", tmp_path / "pictures"]
    train(anew, images, replace(CONFIG, lr=0.5), tmp_path, {}, overwrite=True)
    assert anew.calls == 15
    assert {path.name for path in tmp_path.iterdir()} == {"own.txt", "checkpoint.pt", "metrics.jsonl", "settings.json"}


class AskedError(Exception):
    pass


@pytest.mark.parametrize(("device", "expected"), [("cuda:1", [1]), ("cuda", 1), ("cpu", 1)])
def test_the_device_asked_for_is_the_one_used(
    images: TrainingImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, expected: object
) -> None:
    options_seen: dict[str, object] = {}

    def fabric(**options: object) -> None:
        options_seen.update(options)
        raise AskedError

    monkeypatch.setattr(loop, "Fabric", fabric)
    monkeypatch.setattr(loop, "choose_compute", lambda *_: Compute(device=torch.device(device), precision="fp32"))
    with pytest.raises(AskedError):
        train(Counting(), images, replace(CONFIG, device=device), tmp_path, {})
    assert (options_seen["accelerator"], options_seen["devices"]) == (device.split(":", maxsplit=1)[0], expected)


def test_a_step_schedule_falls_to_a_tenth_every_so_many_epochs() -> None:
    config = TrainingConfig(epochs=20, batch_size=1, lr=1, image_size=16, schedule="step")
    found = [schedule_factor(config, step, 7) for step in range(140)]
    assert found[:70] == [1.0] * 70
    assert found[70:] == pytest.approx([0.1] * 70)


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (
            RuntimeError("bad magic"),
            UserError,
            "is damaged, or of another version .*; restore it, go on with that version,",
        ),
        (
            PermissionError(13, "Permission denied"),
            UserError,
            r"cannot be read \(.*Permission denied\); check its perm",
        ),
        (MemoryError(), WorkError, "too little memory for the checkpoint .*; free some and go on"),
        (torch.OutOfMemoryError("CUDA"), WorkError, "too little memory for the checkpoint"),
    ],
)
def test_a_checkpoint_is_called_damaged_only_if_it_is(
    images: TrainingImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception, kind: type, said: str
) -> None:
    train(Counting(), images, CONFIG, tmp_path, {})

    def fail(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr("training.loop.Fabric.load", fail)
    with pytest.raises(kind, match=said):
        train(Counting(), images, CONFIG, tmp_path, {})


@pytest.mark.slow
def test_loaders_that_there_is_no_room_for_are_refused_before_the_folder_is_taken(
    images: TrainingImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_free_shared_memory", lambda: 1000)
    with pytest.raises(UserError, match="There is no room for 2 loaders"):
        train(Counting(), images, replace(CONFIG, loaders=2), tmp_path / "out", {})
    assert not (tmp_path / "out").exists()
    train(Counting(), images, replace(CONFIG, loaders=None), tmp_path / "out", {})
