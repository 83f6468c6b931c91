"""One network under one attack: its identity, and carrying the attack out."""

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from abnn.benchmarks import Benchmark
from abnn.checkpoint import Checkpoint, read_cost
from abnn.kept_clips import KeptClip, KeptClips, kept_positions, some_frames
from abnn.named_attacks import Attack, keeps_clips
from abnn.results import NOT_ATTACKED, AttackResult, Correct
from attacks.micro_batches import outputs_in_micro_batches
from basics.compute import Compute
from basics.errors import WorkError
from basics.progress import Advance
from basics.software import versions_of
from downstream.result_store import CONTENT, ResultStore, Row, Wanted
from networks.video import set_cut_shortcuts
from training.data import TrainingImages
from training.evaluation import batched
from training.order import mixed_seed

SECONDS_BETWEEN_SAVES = 60
"""How often an unfinished result is written, so that an interruption costs little."""
_ROUNDING = 1e-4
"""How far beyond its ball a perturbation may be by rounding, as a share of the radius."""
_SOFTWARE = ("advbn-gen", "torch", "torchvision")


CUT = "cut shortcut"
"""In the name of an attack: gradients were cut in shortcuts without weights, as published."""


@dataclass(frozen=True, kw_only=True)
class BatchOutcome:
    """What an attack did to a batch."""

    correct_N: Correct
    """Whether each sample is classified correctly afterwards."""
    clips: KeptClips
    """Clips of the batch that are kept for a report."""


@dataclass(frozen=True, kw_only=True)
class AttackRun:
    """One network under one attack on test images."""

    checkpoint: Checkpoint
    """The attacked network: its weights, plan and metadata."""
    attack: Attack
    """The attack that is carried out, with its settings."""
    benchmark: Benchmark
    """The network's benchmark; an attack in its ball is named without the ball."""
    images: TrainingImages
    """The test images, or clips."""
    batch_size: int
    """Images at a time."""
    micro_batch: int | None = None
    """Most images in one pass of the network, which changes no result; None passes the whole batch."""
    cut_shortcuts: bool = False
    """Whether gradients are cut in shortcuts without weights, as published (see `networks.video`)."""
    seed: int
    """Seed of random starts and positions."""
    compute: Compute
    """Device and precision."""

    @property
    def settings(self) -> dict[str, Any]:
        """The attack's settings, and whether gradients were cut."""
        return {**self.attack.settings(), **({"cut_shortcut": True} if self.cut_shortcuts else {})}

    @property
    def name(self) -> str:
        """The attack's name, with its ball if that is not the benchmark's, and with what is cut."""
        settings, ball = self.attack.settings(), self.benchmark.pixels
        notes = []
        if settings.get("eps", ball.eps) != ball.eps or settings.get("norm", ball.norm) != ball.norm:
            notes += [settings["norm"], f"eps {settings['eps']:.4g}"]
        if self.cut_shortcuts:
            notes.append(CUT)
        return f"{self.attack.name} ({', '.join(notes)})" if notes else self.attack.name

    @property
    def kept(self) -> set[int]:
        """Positions of the clips that are kept for a report; none of images."""
        shown = self.checkpoint.plan.frames is not None and not self.cut_shortcuts and keeps_clips(self.attack)
        return kept_positions(len(self.images)) if shown else set()

    @cached_property
    def wanted(self) -> Wanted:
        """The result that this run computes."""
        checkpoint, plan = self.checkpoint, self.checkpoint.plan
        clips = {} if plan.frames is None else {"frames": plan.frames, "image_size": plan.image_size}
        identity = {
            "model": checkpoint.name, "task": checkpoint.task, "defence": checkpoint.defence, "arch": plan.arch,
            "width": plan.width, "recipe": checkpoint.recipe, "seed": checkpoint.seed,
            "weights_sha256": checkpoint.checksum, "data_sha256": self.images.digest(), "n": len(self.images),
            **clips, "attack": self.name, "settings": self.settings, "attack_seed": self.seed,
            "batch_size": self.batch_size, "precision": self.compute.precision,
        }  # fmt: skip
        more = {
            "data": self.images.source.address, CONTENT: self.images.content, "device": self.compute.kind,
            "software": versions_of(_SOFTWARE), "cost": read_cost(checkpoint.folder),
        }  # fmt: skip
        return Wanted(identity=identity, more=more)

    def reuse(self, store: ResultStore[AttackResult], advance: Advance) -> Row:
        """Return the row of an earlier run, with the current cost of training."""
        advance(len(self.images))
        row = store.rows[self.wanted.key]
        if row["cost"] != self.wanted.row["cost"]:
            # It may have been measured since.
            row = {**row, "cost": self.wanted.row["cost"]}
            store.replace_row(row)
        return row

    def run(self, store: ResultStore[AttackResult], correct_N: Correct, clips: KeptClips, advance: Advance) -> Row:
        """Attack the samples that were not attacked yet, and write the result; return its row.

        Args:
            store: store of the result; an interrupted run writes its part of the samples.
            correct_N: value of each sample (see `abnn.results.Correct`); it is filled in place.
            clips: clips that an interrupted run kept.
            advance: called with the number of images done.

        Raises:
            WorkError: the network's outputs are not finite, or the attack left its ball.
        """
        start = saved = time.monotonic()
        kept = dict(clips)
        try:
            for number, (image, label) in enumerate(batched(self.images, self.batch_size)):
                part = slice(number * self.batch_size, number * self.batch_size + len(image))
                if (correct_N[part] == NOT_ATTACKED).any():
                    outcome = self.attack_batch(image, label, number)
                    correct_N[part] = outcome.correct_N
                    kept |= outcome.clips
                    if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                        store.add(self._result(correct_N, kept, start))
                        saved = time.monotonic()
                advance(len(image), f"{self.checkpoint.name}, {self.name}")
        finally:
            # Also when it is interrupted: the next run goes on from here.
            result = self._result(correct_N, kept, start)
            store.add(result)
        return result.row

    def _result(self, correct_N: Correct, clips: KeptClips, start: float) -> AttackResult:
        values = {"accuracy": float(correct_N.mean()), "seconds": round(time.monotonic() - start, 2)}
        return AttackResult(row={**self.wanted.row, **values}, correct_N=correct_N, clips=clips)

    def attack_batch(self, image: Tensor, label: Tensor, number: int) -> BatchOutcome:
        """Attack a batch of 8-bit images, or clips; return which of them are classified correctly afterwards."""
        network = self.checkpoint.module.to(self.compute.device, self.compute.dtype)
        image = image.to(self.compute.device, self.compute.dtype) / 255
        label = label.to(self.compute.device)
        seed = mixed_seed(self.seed, number)
        torch.manual_seed(seed)
        outputs_of = outputs_in_micro_batches(network, self.micro_batch)
        with self.compute.autocast():
            set_cut_shortcuts(network, self.cut_shortcuts)
            attacked = self.attack(network, image, label, seed % 2**31, self.micro_batch)
            logits = outputs_of(attacked)
        self._require_valid(image, attacked, logits)
        correct: Correct = (logits.argmax(1) == label).to(torch.int8).cpu().numpy()
        return BatchOutcome(correct_N=correct, clips=self._clips(image, attacked, label, logits, number))

    def _clips(self, image: Tensor, attacked: Tensor, label: Tensor, logits: Tensor, number: int) -> KeptClips:
        """Return the clips of a batch that are kept for a report."""
        first = number * self.batch_size
        chosen = sorted(position for position in self.kept if first <= position < first + len(image))
        if not chosen:
            return {}
        with self.compute.autocast():
            # The whole batch: with statistics of the batch, predictions depend on it.
            clean_logits = outputs_in_micro_batches(self.checkpoint.module, self.micro_batch)(image)
        names, kept = self.checkpoint.classes, {}
        for position in chosen:
            index = position - first
            kept[position] = KeptClip(
                clean_3THW=some_frames(image[index]),
                attacked_3THW=some_frames(attacked[index]),
                label=names[int(label[index])],
                clean_prediction=names[int(clean_logits[index].argmax())],
                prediction=names[int(logits[index].argmax())],
            )
        return kept

    def _require_valid(self, image: Tensor, attacked: Tensor, logits: Tensor) -> None:
        if not bool(logits.isfinite().all()):
            raise WorkError(
                f"The outputs of {self.checkpoint.name} under {self.name} are not all numbers; check its weights."
            )
        perturbation, settings = (attacked - image).flatten(1), self.attack.settings()
        if "eps" in settings:
            order = float("inf") if settings["norm"] == "linf" else 2
            reach = torch.linalg.vector_norm(perturbation, order, dim=1)
            # The last term is for radii near 0, of which a share is less than rounding.
            if bool((reach > settings["eps"] * (1 + _ROUNDING) + _ROUNDING * 1e-2).any()):
                raise WorkError(
                    f"The attack {self.name} on {self.checkpoint.name} left its ball, which is a fault of this "
                    "program; report it."
                )
        if float(attacked.min()) < 0 or float(attacked.max()) > 1:
            raise WorkError(
                f"The attack {self.name} on {self.checkpoint.name} left the range of pixels, which is a fault of this "
                "program; report it."
            )
