"""The training loop under every trainer: epochs, checkpoints, resume, metric lines."""

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from basics.compute import Compute, choose_compute
from basics.errors import UserError, WorkError
from basics.files import TEMPORARY_SUFFIX, commit
from basics.loading import fitting_loaders
from basics.memory import enough_memory
from basics.progress import Advance, progress
from basics.reading import cannot_be_read
from training.config import TrainingConfig
from training.data import TrainingImages, epoch_batches
from training.folder import CHECKPOINT, CONTENT, CONTENT_PARTS, METRICS, drop_metrics_after, lock_run_folder
from training.order import mixed_seed, steps_per_epoch

LOG_EVERY = 50
_LESS_MEMORY = (
    "a smaller --batch-size needs less; for clips, --checkpoint-activations does so as well and changes no result"
)

_FABRIC_PRECISION: dict[str, Any] = {
    "fp32": "32-true",
    "tf32": "32-true",
    "bf16": "bf16-mixed",
    "fp64": "64-true",
}


class Task(Protocol):
    """What a trainer optimises: the loss of a step, the optimiser, and the end of an epoch."""

    @property
    def module(self) -> nn.Module:
        """Everything that is trained or kept in the checkpoint."""
        ...

    @property
    def outputs(self) -> Sequence[Path]:
        """Files and folders that every epoch writes: first the file with the weights."""
        ...

    def optimizer(self, config: TrainingConfig) -> Optimizer:
        """Return the optimiser of what is trained."""
        ...

    def losses(self, module: nn.Module, image_N3HW: Tensor, label_N: Tensor) -> dict[str, Tensor]:
        """Return the scalars to log; the one called `loss` is minimised. Images (or clips) are in [0, 1]."""
        ...

    def end_epoch(self, epoch: int, compute: Compute) -> dict[str, float]:
        """Score the held-out images, write weights and pictures; return the scalars to log."""
        ...


def train(  # noqa: PLR0913 (independent parts of a run)
    task: Task,
    images: TrainingImages,
    config: TrainingConfig,
    out: Path,
    identity: Mapping[str, Any],
    *,
    held_out: TrainingImages | None = None,
    overwrite: bool = False,
) -> None:
    """Train `task` into the folder `out`; go on from its checkpoint if there is one.

    On the CPU an interrupted and resumed run ends with the same bits as one that was not interrupted (with as many
    threads): order, crops and dropout are functions of (seed, epoch, step), everything else is in the checkpoint.

    Args:
        task: what is trained and how.
        images: the training images.
        config: length, speed, randomness.
        out: run folder.
        identity: what else distinguishes the run from others (data, weights); a folder whose run has another identity
            is refused, except where only ADDRESSES differ.
        held_out: the images that the task scores; None if it scores none.
        overwrite: start anew and remove the files of an earlier run.

    Raises:
        UserError: the folder holds another run or one on other images, another run writes to it now, or it cannot be
            written; or there is no room for the loader processes.
        WorkError: the loss is no longer a number, a loader process failed, or there is too little memory.
    """
    compute = choose_compute(config.device, config.precision)
    of_kind = {"training": images, "held-out": held_out}
    content = {kind: each.state_checksums(CONTENT_PARTS) for kind, each in of_kind.items() if each is not None}
    settings = {"training": asdict(config), **identity, CONTENT: content}
    batch_bytes = config.batch_size // config.devices * images.image_bytes
    loaders = fitting_loaders(config.loaders, compute, batch_bytes=batch_bytes, devices=config.devices)
    config = replace(config, loaders=loaders)
    with lock_run_folder(out, settings, task.outputs, devices=config.devices, overwrite=overwrite):
        fabric = Fabric(
            accelerator=compute.device.type,
            devices=config.devices if compute.device.index is None else [compute.device.index],
            strategy="ddp" if config.devices > 1 else "auto",
            precision=_FABRIC_PRECISION[compute.precision],
        )
        fabric.launch()
        with compute.kernels(), enough_memory(_LESS_MEMORY):
            _Run(task, images, config, out, fabric, compute).finish()


class _Run:
    """One process's part of a training run."""

    def __init__(  # noqa: PLR0913, PLR0917 (independent parts of a run)
        self,
        task: Task,
        images: TrainingImages,
        config: TrainingConfig,
        out: Path,
        fabric: Fabric,
        compute: Compute,
    ) -> None:
        self.task, self.images, self.config, self.out = task, images, config, out
        self.fabric, self.compute = fabric, compute
        self.layout = compute.training_layout(task.module)
        module = task.module.to(memory_format=self.layout)
        self.module, self.optimizer = fabric.setup(module, task.optimizer(config))
        self.steps = steps_per_epoch(images.composition, config)
        self.state: dict[str, Any] = {"module": self.module, "optimizer": self.optimizer, "done": 0, "ended": 0}
        if (out / CHECKPOINT).exists():
            _load(fabric, out / CHECKPOINT, self.state)
        self.saved = self.state["done"]
        # The first step whose loss was not a number. It stays on the device, because fetching it after every step would
        # wait for the device each time.
        self.bad_step = torch.zeros((), dtype=torch.int64, device=compute.device)
        if fabric.is_global_zero:
            drop_metrics_after(out / METRICS, self.state["done"], self.state["ended"])

    def finish(self) -> None:
        total = self.steps * self.config.epochs
        if self.state["done"] > total:
            made = self.state["done"] // self.steps
            raise UserError(
                f"The folder {self.out} holds {made} epochs already; give --epochs {made} or more, or --overwrite."
            )
        if self.state["done"] == total and self.fabric.is_global_zero and not self._outputs_exist():
            self.task.end_epoch(self.config.epochs, self.compute)
        self.fabric.barrier()
        with progress("training", total, "steps", self.state["done"]) as advance:
            while self.state["done"] < total or self.state["ended"] < self.config.epochs:
                self._epoch(self.state["ended"], advance)

    def _outputs_exist(self) -> bool:
        return all(path.exists() for path in self.task.outputs)

    def _epoch(self, epoch: int, advance: Advance) -> None:
        """Run an epoch from its first step that is not done, and then its end."""
        first_step = self.state["done"] - epoch * self.steps
        if first_step < self.steps:
            self.module.train()
            with epoch_batches(
                self.images, self.config, epoch=epoch, first_step=first_step, rank=self.fabric.global_rank
            ) as batches:
                self._steps(batches, epoch, advance)
            # Saved before the held-out images are scored: a broken one among them must not cost the epoch.
            self._save()
        if self.fabric.is_global_zero:
            self._log(epoch, self.task.end_epoch(epoch + 1, self.compute))
        self.state["ended"] = epoch + 1
        self._save()

    def _steps(self, batches: Iterable[Any], epoch: int, advance: Advance) -> None:
        start, images = time.monotonic(), 0
        for image_N3HW, label_N in batches:
            scalars = self._step(image_N3HW, label_N)
            self.state["done"] += 1
            images += self.config.batch_size
            last = self.state["done"] % self.steps == 0
            save = not last and self.state["done"] % self.config.checkpoint_every == 0
            if last or save or self.state["done"] % LOG_EVERY == 0:
                values = self._checked(scalars)
                rate = images / (time.monotonic() - start)
                self._log(epoch, {**values, "images_per_second": round(rate, 1)})
                advance(0, f"loss {values['loss']:.4f}")
            advance()
            if save:
                self._save()

    def _checked(self, scalars: Mapping[str, Tensor]) -> dict[str, float]:
        """Fetch the scalars from the device. Called before every checkpoint, so that none is made from a NaN."""
        values = {name: float(value) for name, value in scalars.items()}
        bad = int(self.bad_step)
        if bad:
            raise WorkError(f"The loss is no longer a number at step {bad}; {self._last_checkpoint()}")
        return values

    def _last_checkpoint(self) -> str:
        kept = f"the last good checkpoint is {self.out / CHECKPOINT}, of step {self.saved}"
        return f"{kept if self.saved else 'no checkpoint had been made'}. Start anew with a lower --lr."

    def _step(self, image_N3HW: Tensor, label_N: Tensor) -> dict[str, Tensor]:
        done = self.state["done"]
        torch.manual_seed(mixed_seed(self.config.seed, done, self.fabric.global_rank))
        factor = schedule_factor(self.config, done, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * factor
        image_N3HW, label_N = self.fabric.to_device(image_N3HW), self.fabric.to_device(label_N)
        image_N3HW = image_N3HW.contiguous(memory_format=self.layout).to(self.compute.dtype) / 255
        scalars = self.task.losses(self.module, image_N3HW, label_N)
        first_bad = (self.bad_step == 0) & ~scalars["loss"].detach().isfinite()
        self.bad_step = torch.where(first_bad, done + 1, self.bad_step)
        self.optimizer.zero_grad()
        self.fabric.backward(scalars["loss"])
        self.optimizer.step()
        return {name: value.detach() for name, value in scalars.items()}

    def _log(self, epoch: int, scalars: Mapping[str, float]) -> None:
        if self.fabric.is_global_zero:
            line = {"epoch": epoch + 1, "step": self.state["done"], **scalars}
            with (self.out / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def _save(self) -> None:
        if not all(value.isfinite().all() for value in self.module.state_dict().values() if value.is_floating_point()):
            raise WorkError(
                f"The weights are no longer numbers at step {self.state['done']}; {self._last_checkpoint()}"
            )
        # Every process calls `save`, which waits for all of them; the first one writes.
        temporary = self.out / (CHECKPOINT + TEMPORARY_SUFFIX)
        self.fabric.save(temporary, self.state)
        if self.fabric.is_global_zero:
            commit(temporary, self.out / CHECKPOINT)
        self.saved = self.state["done"]
        self.fabric.barrier()


def schedule_factor(config: TrainingConfig, step: int, steps: int) -> float:
    """Return the share of the highest learning rate that step number `step` (from 0) uses, with `steps` in an epoch."""
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "step":
        return float(0.1 ** (step // steps // config.decay_every))
    total = steps * config.epochs
    warm = max(1, round(config.warmup * total))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def _load(fabric: Fabric, path: Path, state: dict[str, Any]) -> None:
    try:
        fabric.load(path, state)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise WorkError(f"There is too little memory for the checkpoint {path}; free some and go on.") from error
    except Exception as error:
        if cannot_be_read(error):
            raise UserError(f"The checkpoint {path} cannot be read ({error}); check its permissions.") from error
        # torch's unpickler raises nearly any exception on a damaged file. It reads weights only, so no code is run.
        raise UserError(
            f"The checkpoint {path} is damaged, or of another version of this program or of torch; restore it, go on "
            "with that version, or start anew with --overwrite."
        ) from error
