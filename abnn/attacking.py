"""Attacks on trained networks: accuracy under each, and by sample, so that the worst case can be computed."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from abnn.attack_run import AttackRun
from abnn.benchmarks import Benchmark, benchmark_of
from abnn.checkpoint import Checkpoint, load_checkpoint
from abnn.images import HeldOut, open_test_for, require_fitting, require_unseen, takes_clips
from abnn.named_attacks import (
    AttackOptions,
    Roa,
    attack_of,
    cuts_shortcuts,
    require_another,
    require_possible,
    require_shortcuts,
    require_used,
)
from abnn.options import HeldOutOptions, PixelOptions, RectangleOptions
from abnn.results import NOT_ATTACKED, RESULTS_FOLDER, SAME_TEST, AttackLayout, AttackResult, not_attacked
from attacks.micro_batches import require_micro_batch
from attacks.pixels import PixelConfig
from basics.compute import Compute, choose_compute
from basics.errors import UserError
from basics.files import digest_json
from basics.memory import enough_memory
from basics.progress import Advance, progress
from downstream.result_store import SAMPLES, Key, ResultStore, Row, opened_store, without_content
from downstream.scoring_run import refuse_repeated
from networks.recomputation import recompute_activations
from training.config import require_seed

WORST = "worst"
"""Name of the worst case over the attacks in one ball: a sample is correct only where all of them failed."""


@dataclass(frozen=True, kw_only=True)
class AttackRequest:
    """Request of `abnn attack`: trained networks, attacks, test images, and the folder of the results."""

    checkpoints: Sequence[Path]
    """Run folders of `abnn train`."""
    attacks: Sequence[str]
    """Names, see `abnn.named_attacks.ATTACKS`."""
    data: str | None
    """Address of what holds the test images, or clips; None for drawn clips."""
    benchmarks: Mapping[str, Benchmark]
    """Known benchmarks by name, of which each checkpoint names one."""
    out: Path | None = None
    """Folder of the results; None takes `attacks` in each run folder."""
    pixels: PixelOptions = field(default_factory=PixelOptions)
    """Changes of the benchmark's attack on pixels."""
    rectangle: RectangleOptions = field(default_factory=RectangleOptions)
    """Changes of the published attack with rectangles."""
    restarts: int | None = None
    """Random starts of PGD; None takes the attack's own number."""
    surrogate: Path | None = None
    """Run folder of the network whose gradients the transfer attack uses."""
    cut_shortcut: bool = False
    """Whether gradients are cut in shortcuts without weights, as published (see `networks.video`)."""
    clips: HeldOutOptions = field(default_factory=HeldOutOptions)
    """How test clips are found and kept."""
    limit: int | None = None
    """Only this many images, evenly spread over the test set; None takes all."""
    batch_size: int | None = None
    """Images at a time; None takes as many as the network's plan says."""
    micro_batch: int | None = None
    """Most images in one pass of the network, which changes no result; None passes the whole batch."""
    seed: int = 0
    """Seed of random starts and positions."""
    device: str = "auto"
    """Device, see `basics.compute`."""
    precision: str = "auto"
    """Precision, see `basics.compute`."""
    overwrite: bool = False
    """Replace results of the same names."""

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise UserError(f"The batch size is {self.batch_size}; give 1 or more.")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"--limit is {self.limit}; give 1 or more.")
        require_micro_batch(self.micro_batch)
        require_seed(self.seed)


def attack_all(request: AttackRequest) -> list[Row]:
    """Carry out every attack on every network; go on where an earlier run of the same stopped. Return all rows.

    Raises:
        UserError: something in the request does not exist or does not fit.
        WorkError: a network's outputs are not finite, an attack left its ball, or there is too little memory.
    """
    compute = choose_compute(request.device, request.precision)
    checkpoints = [load_checkpoint(folder) for folder in request.checkpoints]
    surrogate = None if request.surrogate is None else load_checkpoint(request.surrogate)
    refuse_repeated([checkpoint.name for checkpoint in checkpoints], "run folders")
    options = AttackOptions(
        pixels=request.pixels, rectangle=request.rectangle, restarts=request.restarts, surrogate=surrogate,
        cut_shortcut=request.cut_shortcut,
    )  # fmt: skip
    networks = [*checkpoints, *([surrogate] if surrogate else [])]
    data = HeldOut(open_test_for(networks, request.data, request.clips), request.limit, request.clips.cache)
    require_unseen(checkpoints, request.data, request.clips)
    if request.clips.checkpoint_activations:
        for each in networks:
            recompute_activations(each.module)
    by_folder: dict[Path, list[AttackRun]] = {}
    for checkpoint in checkpoints:
        runs = _attack_runs(checkpoint, surrogate, options, data, request, compute)
        by_folder.setdefault(request.out or checkpoint.folder / RESULTS_FOLDER, []).extend(runs)
    total = sum(len(run.images) for runs in by_folder.values() for run in runs)
    with ExitStack() as held:
        # All folders are checked before the first attack.
        opened = [_opened(folder, runs, held, overwrite=request.overwrite) for folder, runs in by_folder.items()]
        with (
            progress("attacking", total, "clips" if takes_clips(checkpoints) else "images") as advance,
            compute.kernels(),
            enough_memory("--micro-batch 1, or a smaller --batch-size, needs less"),
        ):
            rows = [row for results in opened for row in _carry_out(results, advance, overwrite=request.overwrite)]
        for results in opened:
            for checkpoint in _checkpoints(results.runs):
                published_attack = benchmark_of(checkpoint.task, request.benchmarks).pixels
                rows += _worst(results, checkpoint, published_attack)
    return [without_content(row) for row in rows]


@dataclass(frozen=True, kw_only=True)
class _ResultFolder:
    """A folder of results with the attack runs whose results go there."""

    layout: AttackLayout
    store: ResultStore[AttackResult]
    runs: Sequence[AttackRun]
    missing: Collection[Key]
    """Names of the results that have to be computed."""


def _opened(folder: Path, runs: Sequence[AttackRun], held: ExitStack, *, overwrite: bool) -> _ResultFolder:
    """Hold a folder of results, and find out which are missing.

    Raises:
        UserError: it holds other results under the same names, or on other test images.
    """
    layout = AttackLayout(folder / SAMPLES)
    store = held.enter_context(opened_store(layout, SAME_TEST))
    worst = [(WORST, checkpoint.name) for checkpoint in _checkpoints(runs)]
    missing = store.missing([run.wanted for run in runs], overwrite=overwrite, derived=worst)
    return _ResultFolder(layout=layout, store=store, runs=runs, missing={each.key for each in missing})


def _checkpoints(runs: Sequence[AttackRun]) -> list[Checkpoint]:
    return list({run.checkpoint.name: run.checkpoint for run in runs}.values())


def _carry_out(results: _ResultFolder, advance: Advance, *, overwrite: bool) -> list[Row]:
    # The worst case is over attacks of which some may now be carried out again.
    results.store.drop((WORST, checkpoint.name) for checkpoint in _checkpoints(results.runs))
    rows = []
    for run in results.runs:
        if run.wanted.key not in results.missing:
            rows.append(run.reuse(results.store, advance))
            continue
        count = len(run.images)
        known = not_attacked(count) if overwrite else results.layout.correct(run.wanted.row, count)
        clips = {} if (known == NOT_ATTACKED).all() else results.layout.clips(run.wanted.row)
        rows.append(run.run(results.store, known, clips, advance))
    return rows


def _attack_runs(  # noqa: PLR0913, PLR0917 (who, against what, with what, on what)
    checkpoint: Checkpoint,
    surrogate: Checkpoint | None,
    options: AttackOptions,
    data: HeldOut,
    request: AttackRequest,
    compute: Compute,
) -> list[AttackRun]:
    """Return a network's attacks, in the request's order.

    Raises:
        UserError: data, network and attacks do not fit.
    """
    benchmark, plan = benchmark_of(checkpoint.task, request.benchmarks), checkpoint.plan
    require_fitting(checkpoint, data.source, surrogate)
    attacks = {name: attack_of(name, benchmark, options) for name in request.attacks}
    require_used(request.attacks, options)
    for attack in attacks.values():
        require_possible(attack, checkpoint, compute, request.micro_batch)
        if isinstance(attack, Roa):
            attack.config.size_in(plan.image_size, plan.image_size)
    if surrogate is not None:
        require_another(checkpoint, surrogate)
    if request.cut_shortcut:
        require_shortcuts(checkpoint)
    images = data.for_plan(plan)
    return [
        AttackRun(
            checkpoint=checkpoint, attack=attack, benchmark=benchmark, images=images,
            batch_size=request.batch_size or plan.attack_batch, micro_batch=request.micro_batch,
            cut_shortcuts=cuts_shortcuts(name, options), seed=request.seed, compute=compute,
        )
        for name, attack in attacks.items()
    ]  # fmt: skip


def _worst(results: _ResultFolder, checkpoint: Checkpoint, published_attack: PixelConfig) -> list[Row]:
    """Return and write the worst case over the complete attacks in the benchmark's ball, if there are two."""
    same: list[Row] = []
    for row in results.store.rows.values():
        same_network = row["model"] == checkpoint.name and row["weights_sha256"] == checkpoint.checksum
        settings = row["settings"]
        in_ball = (
            settings.get("eps") == published_attack.eps
            and settings.get("norm") == published_attack.norm
            and "over" not in settings
            # Cut gradients make an attack weaker. They are measured, and are no attack of their own.
            and "cut_shortcut" not in settings
        )
        # A perturbation of 0 is in the ball as well: an image that is misclassified as it is needs no attack.
        if same_network and (in_ball or not settings):
            same.append(row)
    if len(same) < 2:
        return []
    ordered = sorted(same, key=lambda row: str(row["attack"]))
    return [_worst_of(results, ordered, published_attack.eps, published_attack.norm)]


def _worst_of(results: _ResultFolder, rows: Sequence[Row], eps: float, norm: str) -> Row:
    correct_N = np.min([results.layout.correct(row, row["n"]) for row in rows], axis=0)
    row = {
        **rows[0],
        "attack": WORST,
        "settings": {"eps": eps, "norm": norm, "over": [row["attack"] for row in rows]},
        "pair": digest_json([row["pair"] for row in rows]),
        "accuracy": float(correct_N.mean()),
        "seconds": round(sum(each["seconds"] for each in rows), 2),
    }
    results.store.add(AttackResult(row=row, correct_N=correct_N))
    return row
