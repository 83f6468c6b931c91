"""Attacking trained networks: accuracy under each attack, kept by sample, so that the worst case can be told."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from abnn.attack_run import Bout
from abnn.benchmarks import benchmark_of
from abnn.checkpoint import Checkpoint, load_checkpoint
from abnn.images import open_test, shown_images
from abnn.results import ATTACKS, Row, Store, held_store
from abnn.threats import Roa, ThreatOptions, require_another, require_possible, require_used, threat_of
from basics.compute import Compute, choose_compute
from basics.errors import UserError
from basics.files import digest_json
from basics.progress import progress
from sources.base import Source

_ONE_TEST = ("weights_sha256", "data_sha256", "n")
"""What all results of a network in one folder have in common."""
WORST = "worst"
"""What the worst case over the attacks in one ball is called: right only where all of them failed."""


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
    """Fields of PixelConfig that differ from the benchmark's."""
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
    overwrite: bool = False
    """Attack anew, also where results stand under the same names."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"The batch size is {self.batch_size}; give 1 or more.")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"--limit is {self.limit}; give 1 or more.")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"The seed is {self.seed}; give a whole number from 0 to 2**32 - 1.")


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
    source = open_test(request.data)
    bouts = [bout for each in checkpoints for bout in _bouts(each, twin, options, source, request, compute)]
    folders = {each.name: request.out or each.folder / ATTACKS for each in checkpoints}
    with ExitStack() as held:
        # Held before they are read: what another run adds must not be lost.
        stores = {folder: held.enter_context(held_store(folder)) for folder in dict.fromkeys(folders.values())}
        for each in checkpoints:
            _require_places(stores[folders[each.name]], [bout for bout in bouts if bout.checkpoint is each])
        with progress("attacking", sum(len(bout.images) for bout in bouts), "images") as advance, compute.kernels():
            for each in checkpoints:
                # It is over attacks some of which may now be made anew.
                stores[folders[each.name]].drop(each.name, WORST)
            rows = [bout.fight(stores[folders[bout.checkpoint.name]], advance) for bout in bouts]
        for each in checkpoints:
            rows += _worst(stores[folders[each.name]], each)
    return rows


def _require_places(store: Store, bouts: Sequence[Bout]) -> None:
    """Make sure that a network's results take no other ones' place, and that all are on the same images.

    Raises:
        UserError: see above.
    """
    for bout in bouts:
        bout.require_place(store)
    first = bouts[0].identity()
    replaced = {WORST, *(bout.name for bout in bouts)}
    mine = [row for row in store.rows if row["model"] == first["model"]]
    others = [row for row in mine if any(row[name] != first[name] for name in _ONE_TEST)]
    if any(row["attack"] not in replaced for row in others):
        raise UserError(
            f"The folder {store.folder} holds results of {first['model']} with other weights or on other test images "
            f"({others[0]['n']}, now {first['n']}); give another --out, or the same images."
        )


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
) -> list[Bout]:
    """Return a network's attacks, in the order asked for.

    Raises:
        UserError: data, network and attacks do not fit.
    """
    benchmark = benchmark_of(checkpoint.task)
    images = shown_images(checkpoint, source, request.limit, twin)
    threats = [threat_of(name, benchmark, options) for name in dict.fromkeys(request.attacks)]
    require_used(request.attacks, options)
    for threat in threats:
        require_possible(threat, checkpoint, compute)
    if twin is not None:
        require_another(checkpoint, twin)
    for threat in threats:
        if isinstance(threat, Roa):
            threat.config.size_in(images.image_size, images.image_size)
    return [
        Bout(
            checkpoint=checkpoint, threat=threat, benchmark=benchmark, images=images, batch_size=request.batch_size,
            seed=request.seed, overwrite=request.overwrite, compute=compute,
        )
        for threat in threats
    ]  # fmt: skip


def _worst(store: Store, checkpoint: Checkpoint) -> list[Row]:
    """Return (and keep) the worst case over the finished attacks in the benchmark's ball on the same images, if any."""
    paper = benchmark_of(checkpoint.task).pixels
    same: list[Row] = []
    for row in store.rows:
        mine = row["model"] == checkpoint.name and row["weights_sha256"] == checkpoint.checksum
        settings = row["settings"]
        ball = settings.get("eps") == paper.eps and settings.get("norm") == paper.norm and "over" not in settings
        # A shift of 0 is in the ball as well: an image that is answered wrongly as it is needs no attack.
        if mine and (ball or not settings):
            same.append(row)
    if len(same) < 2:
        return []
    return [_worst_of(store, sorted(same, key=lambda row: str(row["attack"])), paper.eps, paper.norm)]


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
