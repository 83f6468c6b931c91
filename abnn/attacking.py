"""Attacking trained networks: accuracy under each attack, kept by sample, so that the worst case can be told."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from abnn.checkpoint import Checkpoint, load_checkpoint, read_cost
from abnn.images import shown_images
from abnn.results import ATTACKS, OPEN, Right, Row, Store
from abnn.tasks import Task, task_of
from abnn.threats import Roa, Threat, ThreatOptions, threat_of
from basics.compute import Compute, choose_compute
from basics.errors import UserError, WorkError
from basics.files import digest_json, locked
from basics.progress import Advance, progress
from networks.fitting import batched
from sources.base import Source
from sources.opening import open_source
from training.data import TrainingImages
from training.order import mixed_seed

WORST = "worst"
"""What the worst case over the attacks in one ball is called: right only where all of them failed."""

_SECONDS_BETWEEN_SAVES = 60
_ROUNDING = 1e-4
"""How far beyond its ball a shift may be by rounding, as a share of the radius."""
_SOFTWARE = ("advbn-gen", "torch", "torchvision")


@dataclass(frozen=True, kw_only=True)
class AttackRequest:
    """What was asked for."""

    checkpoints: Sequence[Path]
    """Run folders of `abnn train`."""
    attacks: Sequence[str]
    """Names, see `abnn.threats.ATTACKS`."""
    data: str
    """Address of what holds the test images."""
    out: Path | None = None
    """Folder of the results; None takes `attacks` in each run folder."""
    pixels: Mapping[str, Any] = field(default_factory=dict)
    """Fields of PixelConfig that differ from the task's."""
    rectangle: Mapping[str, Any] = field(default_factory=dict)
    """Fields of RectangleConfig that differ from the published ones."""
    restarts: int | None = None
    """Of PGD."""
    twin: Path | None = None
    """Run folder of the network whose gradients the transfer attack uses."""
    limit: int | None = None
    """Only so many images, evenly spread."""
    batch_size: int = 250
    """Images at a time."""
    seed: int = 0
    """Of random starts and places."""
    device: str = "auto"
    """Device, see `basics.compute`."""
    precision: str = "auto"
    """Precision, see `basics.compute`."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"The batch size is {self.batch_size}; give 1 or more.")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"--limit is {self.limit}; give 1 or more.")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"The seed is {self.seed}; give a whole number from 0 to 2**32 - 1.")


@dataclass(frozen=True, kw_only=True)
class _Bout:
    """One network under one attack on the images."""

    checkpoint: Checkpoint
    threat: Threat
    task: Task
    images: TrainingImages
    request: AttackRequest
    compute: Compute

    def facts(self) -> Row:
        """Return what the result's line says beside the result; `pair` tells it from any other."""
        checkpoint, request = self.checkpoint, self.request
        what = {
            "model": checkpoint.name, "task": checkpoint.task, "defence": checkpoint.defence,
            "arch": checkpoint.plan.arch, "width": checkpoint.plan.width, "seed": checkpoint.seed,
            "recipe": checkpoint.recipe,
            "weights_sha256": checkpoint.checksum, "data_sha256": self.images.digest(), "attack": self.name,
            "settings": self.threat.settings(), "attack_seed": request.seed, "batch_size": request.batch_size,
            "precision": self.compute.precision, "n": len(self.images),
        }  # fmt: skip
        return {
            **what, "pair": digest_json(what), "data": self.images.source.address, "device": self.compute.kind,
            "software": {name: version(name) for name in _SOFTWARE}, "cost": read_cost(checkpoint.folder),
        }  # fmt: skip

    @property
    def name(self) -> str:
        """The attack's name, with its ball if that is not the task's."""
        settings, paper = self.threat.settings(), self.task.pixels
        if settings.get("eps", paper.eps) == paper.eps and settings.get("norm", paper.norm) == paper.norm:
            return self.threat.name
        return f"{self.threat.name} ({settings['norm']}, eps {settings['eps']:.4g})"


def attack_all(request: AttackRequest) -> list[Row]:
    """Carry out every attack on every network; go on where an earlier run of the same stopped. Return all lines.

    Raises:
        UserError: something that was asked for does not exist or does not fit.
        WorkError: a network's answer is not a number, or an attack left its ball.
    """
    compute = choose_compute(request.device, request.precision)
    checkpoints = [load_checkpoint(folder) for folder in request.checkpoints]
    twin = None if request.twin is None else load_checkpoint(request.twin)
    _require_names_apart(checkpoints)
    options = ThreatOptions(
        pixels=request.pixels, rectangle=request.rectangle, restarts=request.restarts, twin=twin
    )  # fmt: skip
    source = open_source(request.data, split="test")
    bouts = [bout for each in checkpoints for bout in _bouts(each, twin, options, source, request, compute)]
    folders = {each.name: request.out or each.folder / ATTACKS for each in checkpoints}
    with ExitStack() as held:
        stores = {folder: Store(folder) for folder in dict.fromkeys(folders.values())}
        for folder in stores:
            held.enter_context(locked(folder))
        with progress("attacking", sum(len(bout.images) for bout in bouts), "images") as advance, compute.kernels():
            rows = [_fight(bout, stores[folders[bout.checkpoint.name]], advance) for bout in bouts]
    for each in checkpoints:
        rows += _worst(stores[folders[each.name]], each)
    return rows


def _require_names_apart(checkpoints: Sequence[Checkpoint]) -> None:
    names = [checkpoint.name for checkpoint in checkpoints]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"Two run folders are called {name}; rename one of them.")


def _bouts(  # noqa: PLR0913, PLR0917 (who, against what, with what, on what)
    checkpoint: Checkpoint,
    twin: Checkpoint | None,
    options: ThreatOptions,
    source: Source,
    request: AttackRequest,
    compute: Compute,
) -> list[_Bout]:
    """Return a network's attacks, in the order asked for.

    Raises:
        UserError: data, network and attacks do not fit.
    """
    task = task_of(checkpoint.task)
    images = shown_images(checkpoint, source, request.limit, twin)
    threats = [threat_of(name, task, options) for name in dict.fromkeys(request.attacks)]
    for threat in threats:
        if isinstance(threat, Roa):
            threat.config.size_in(images.image_size, images.image_size)
    facts = {"checkpoint": checkpoint, "task": task, "images": images, "request": request, "compute": compute}
    return [_Bout(threat=threat, **facts) for threat in threats]  # type: ignore[arg-type]


def _fight(bout: _Bout, store: Store, advance: Advance) -> Row:
    """Carry out one attack, or read what it came to; return its line."""
    facts = bout.facts()
    known = [row for row in store.rows if row["pair"] == facts["pair"]]
    if known:
        advance(len(bout.images))
        return known[0]
    right_N = store.right(facts["pair"], len(bout.images))
    network = bout.checkpoint.module.to(bout.compute.device, bout.compute.dtype)
    size, start, saved = bout.request.batch_size, time.monotonic(), time.monotonic()
    for number, (image, label) in enumerate(batched(bout.images, size)):
        part = slice(number * size, number * size + len(image))
        if (right_N[part] == OPEN).any():
            moved = image.to(bout.compute.device, bout.compute.dtype) / 255
            right_N[part] = _round(bout, network, moved, label.to(bout.compute.device), number)
            if time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
                store.keep(facts["pair"], right_N)
                saved = time.monotonic()
        advance(len(image), f"{bout.checkpoint.name}, {bout.name}")
    store.keep(facts["pair"], right_N)
    row = {**facts, "accuracy": float(right_N.mean()), "seconds": round(time.monotonic() - start, 2)}
    store.add(row)
    return row


def _round(bout: _Bout, network: torch.nn.Module, image: Tensor, label: Tensor, number: int) -> Right:
    """Attack a batch; return which of its images are answered right afterwards."""
    seed = mixed_seed(bout.request.seed, number)
    torch.manual_seed(seed)
    with bout.compute.autocast():
        attacked = bout.threat(network, image, label, seed % 2**31)
        with torch.no_grad():
            logits = network(attacked)
    _require_sound(bout, image, attacked, logits)
    right: Right = (logits.argmax(1) == label).to(torch.int8).cpu().numpy()
    return right


def _require_sound(bout: _Bout, image: Tensor, attacked: Tensor, logits: Tensor) -> None:
    """Refuse answers that are no numbers, and attacks that went further than they may.

    Raises:
        WorkError: see above.
    """
    if not bool(logits.isfinite().all()):
        raise WorkError(f"The answers of {bout.checkpoint.name} under {bout.name} are not all numbers.")
    shift, settings = (attacked - image).flatten(1), bout.threat.settings()
    if "eps" in settings:
        reach = shift.abs().amax(1) if settings["norm"] == "linf" else torch.linalg.vector_norm(shift, dim=1)
        if bool((reach > settings["eps"] * (1 + _ROUNDING) + _ROUNDING * 1e-2).any()):
            raise WorkError(f"The attack {bout.name} on {bout.checkpoint.name} left its ball.")
    if float(attacked.min()) < 0 or float(attacked.max()) > 1:
        raise WorkError(f"The attack {bout.name} on {bout.checkpoint.name} left the range of pixels.")


def _worst(store: Store, checkpoint: Checkpoint) -> list[Row]:
    """Return (and keep) the worst case over the finished attacks in the task's ball on the same images, if any."""
    paper = task_of(checkpoint.task).pixels
    same: dict[tuple[str, int], list[Row]] = {}
    for row in store.rows:
        mine = row["model"] == checkpoint.name and row["weights_sha256"] == checkpoint.checksum
        settings = row["settings"]
        ball = settings.get("eps") == paper.eps and settings.get("norm") == paper.norm and "over" not in settings
        # A shift of 0 is in the ball as well: an image that is answered wrongly as it is needs no attack.
        if mine and (ball or not settings):
            same.setdefault((row["data_sha256"], row["n"]), []).append(row)
    return [
        _worst_of(store, sorted(rows, key=lambda row: str(row["attack"])), paper.eps, paper.norm)
        for rows in same.values()
        if len(rows) > 1
    ]


def _worst_of(store: Store, rows: Sequence[Row], eps: float, norm: str) -> Row:
    right_N = np.min([store.right(row["pair"], row["n"]) for row in rows], axis=0)
    settings = {"eps": eps, "norm": norm, "over": [row["attack"] for row in rows]}
    pair = digest_json([row["pair"] for row in rows])
    row = {
        **rows[0], "attack": WORST, "settings": settings, "pair": pair, "accuracy": float(right_N.mean()),
        "seconds": round(sum(each["seconds"] for each in rows), 2),
    }  # fmt: skip
    store.keep(pair, right_N)
    store.add(row)
    return row
