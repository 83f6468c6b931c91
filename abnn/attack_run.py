"""One network under one attack: what it is told by, and carrying it out."""

import time
from dataclasses import dataclass
from importlib.metadata import version

import torch
from torch import Tensor

from abnn.benchmarks import Benchmark
from abnn.checkpoint import Checkpoint, read_cost
from abnn.results import OPEN, Right, Row, Store
from abnn.threats import Threat
from basics.compute import Compute
from basics.differences import differences
from basics.errors import UserError, WorkError
from basics.files import digest_json
from basics.progress import Advance
from training.data import TrainingImages
from training.evaluation import batched
from training.order import mixed_seed

SECONDS_BETWEEN_SAVES = 60
_ROUNDING = 1e-4
"""How far beyond its ball a shift may be by rounding, as a share of the radius."""
_SOFTWARE = ("advbn-gen", "torch", "torchvision")


@dataclass(frozen=True, kw_only=True)
class Bout:
    """One network under one attack on test images."""

    checkpoint: Checkpoint
    """The network."""
    threat: Threat
    """The attack."""
    benchmark: Benchmark
    """The network's benchmark, whose ball is not named."""
    images: TrainingImages
    """The test images."""
    batch_size: int
    """Images at a time."""
    seed: int
    """Of random starts and places."""
    overwrite: bool
    """Whether it is carried out anew, in place of what stands under the same names."""
    compute: Compute
    """Device and precision."""

    @property
    def name(self) -> str:
        """The attack's name, with its ball if that is not the benchmark's."""
        settings, paper = self.threat.settings(), self.benchmark.pixels
        if settings.get("eps", paper.eps) == paper.eps and settings.get("norm", paper.norm) == paper.norm:
            return self.threat.name
        return f"{self.threat.name} ({settings['norm']}, eps {settings['eps']:.4g})"

    def identity(self) -> Row:
        """Return what tells this bout from any other."""
        checkpoint, plan = self.checkpoint, self.checkpoint.plan
        return {
            "model": checkpoint.name, "task": checkpoint.task, "defence": checkpoint.defence, "arch": plan.arch,
            "width": plan.width, "recipe": checkpoint.recipe, "seed": checkpoint.seed,
            "weights_sha256": checkpoint.checksum, "data_sha256": self.images.digest(), "n": len(self.images),
            "attack": self.name, "settings": self.threat.settings(), "attack_seed": self.seed,
            "batch_size": self.batch_size, "precision": self.compute.precision,
        }  # fmt: skip

    def facts(self) -> Row:
        """Return what the result's line says beside the result; `pair` is a checksum over the identity."""
        what = self.identity()
        return {
            **what, "pair": digest_json(what), "data": self.images.source.address, "device": self.compute.kind,
            "software": {name: version(name) for name in _SOFTWARE}, "cost": read_cost(self.checkpoint.folder),
        }  # fmt: skip

    def require_place(self, store: Store) -> None:
        """Make sure that its line takes no other one's place.

        Raises:
            UserError: under the same names stands something else, and it is not to be overwritten.
        """
        now = self.identity()
        there = store.named_as(now)
        if there is None or self.overwrite or there["pair"] == digest_json(now):
            return
        changed = differences({name: there.get(name) for name in now}, now)
        raise UserError(
            f"The folder {store.folder} holds another {self.name} of {self.checkpoint.name} ({'; '.join(changed)}); "
            "give another --out, or --overwrite to replace it."
        )

    def fight(self, store: Store, advance: Advance) -> Row:
        """Carry it out, go on with it, or read what it came to; return its line.

        Raises:
            WorkError: an answer is not a number, or the attack left its ball.
        """
        facts = self.facts()
        known = store.named_as(facts)
        if known is not None and known["pair"] == facts["pair"] and not self.overwrite:
            advance(len(self.images))
            if known["cost"] != facts["cost"]:
                # It may have been measured since.
                store.add({**known, "cost": facts["cost"]})
            return {**known, "cost": facts["cost"]}
        # From here on its samples may be half of them new.
        store.drop(facts["model"], facts["attack"])
        start = time.monotonic()
        right_N = self._attacked(store, facts["pair"], advance)
        row = {**facts, "accuracy": float(right_N.mean()), "seconds": round(time.monotonic() - start, 2)}
        store.add(row)
        return row

    def _attacked(self, store: Store, pair: str, advance: Advance) -> Right:
        """Attack what is not attacked yet, and keep what came of it."""
        right_N = store.right(pair, len(self.images))
        if self.overwrite:
            right_N[:] = OPEN
        try:
            self._attack_what_is_open(right_N, store, pair, advance)
        finally:
            # Also when it is interrupted: the next run goes on from here.
            store.keep(pair, right_N)
        return right_N

    def _attack_what_is_open(self, right_N: Right, store: Store, pair: str, advance: Advance) -> None:
        saved = time.monotonic()
        for number, (image, label) in enumerate(batched(self.images, self.batch_size)):
            part = slice(number * self.batch_size, number * self.batch_size + len(image))
            if (right_N[part] == OPEN).any():
                right_N[part] = self.attack_batch(image, label, number)
                if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                    store.keep(pair, right_N)
                    saved = time.monotonic()
            advance(len(image), f"{self.checkpoint.name}, {self.name}")

    def attack_batch(self, image: Tensor, label: Tensor, number: int) -> Right:
        """Attack a batch of 8-bit images; return which of them are answered right afterwards."""
        network = self.checkpoint.module.to(self.compute.device, self.compute.dtype)
        image = image.to(self.compute.device, self.compute.dtype) / 255
        label = label.to(self.compute.device)
        seed = mixed_seed(self.seed, number)
        torch.manual_seed(seed)
        with self.compute.autocast():
            attacked = self.threat(network, image, label, seed % 2**31)
            with torch.no_grad():
                logits = network(attacked)
        self._require_sound(image, attacked, logits)
        right: Right = (logits.argmax(1) == label).to(torch.int8).cpu().numpy()
        return right

    def _require_sound(self, image: Tensor, attacked: Tensor, logits: Tensor) -> None:
        if not bool(logits.isfinite().all()):
            raise WorkError(f"The answers of {self.checkpoint.name} under {self.name} are not all numbers.")
        shift, settings = (attacked - image).flatten(1), self.threat.settings()
        if "eps" in settings:
            reach = shift.abs().amax(1) if settings["norm"] == "linf" else torch.linalg.vector_norm(shift, dim=1)
            if bool((reach > settings["eps"] * (1 + _ROUNDING) + _ROUNDING * 1e-2).any()):
                raise WorkError(f"The attack {self.name} on {self.checkpoint.name} left its ball.")
        if float(attacked.min()) < 0 or float(attacked.max()) > 1:
            raise WorkError(f"The attack {self.name} on {self.checkpoint.name} left the range of pixels.")
