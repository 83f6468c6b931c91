"""From a ledger to its data set again: source and autoencoder are compared with the ledger, then the main job runs.

Only the step that perturbs a batch is another one (`replay`): no classifier is loaded and there is no ascent. Order,
batches, names, labels, keys and predictions come from the ledger; the source only provides the files.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from basics.compute import choose_compute
from basics.differences import differences
from basics.errors import UserError
from basics.files import digest_file
from basics.paths import Address, AnyPath
from pipeline.compare import Comparison, compare, original_manifest, require_rows_of
from pipeline.config import GenerationConfig
from pipeline.dataset.ledger import Ledger
from pipeline.drawn_networks import drawn_networks
from pipeline.job import Job, Product, dataset_description, open_images, requirements_of
from pipeline.renderable import config_of, plan_of, read_renderable, records_of
from pipeline.replay import Replay
from pipeline.run import RunResult, run
from pipeline.runners.selection import RunnerSelection, select_runner
from pipeline.worker import own_environment
from sources.base import ImageRecord, Source


@dataclass(frozen=True, kw_only=True)
class RenderRequest:
    """Settings of a rendering."""

    ledger: AnyPath
    """Address of the ledger."""
    source: Address | None
    """Address of the images; None for the embedded drawn world."""
    autoencoder: str | os.PathLike[str] | None
    """Path of the autoencoder, or of its run folder; None for the drawn world's own."""
    labels: Address | None = None
    """Label list or devkit of a flat ILSVRC2012 folder."""
    order: Address | None = None
    """The order file of the ledger's run, if it had one."""
    scale: float = 1.0
    """S in S * (delta - 1) + 1, by which the multipliers are scaled."""
    device: str | None = None
    """Device; None for the CPU if the ledger was made on one, else as `auto`."""
    precision: str | None = None
    """Precision; None for the ledger's, if the device has it."""
    threads: int | None = None
    """Computing threads; None for the ledger's, or all cores if it was made on a GPU."""
    workers: int = 0
    """Processes that make shards at the same time; 0 for this one."""
    scheduler: str | None = None
    """Address of a running Dask scheduler to work on."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale) or math.copysign(1, self.scale) < 0:
            raise UserError(f"The scale is {self.scale}; give a number of 0 or more, e.g. 0.5 (1: the ledger's run).")


@dataclass(frozen=True, kw_only=True)
class RenderResult:
    """Result of a rendering."""

    run: RunResult
    """Result of the run that made the shards."""
    scale: float
    """Scale of the perturbations."""
    comparison: Comparison
    """Comparison with the ledger's run."""

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {**self.run.to_json(), "scale": self.scale, **asdict(self.comparison), "ok": self.comparison.ok}


def render(
    request: RenderRequest, out: AnyPath, *, manifest: AnyPath | None = None, overwrite: bool = False
) -> RenderResult:
    """Make the data set of a ledger again, or one with weaker or stronger shifts; an interrupted rendering is resumed.

    Args:
        request: ledger, source and autoencoder.
        out: data-set folder.
        manifest: manifest of the original run to compare with; None for the one beside the ledger, if there is one.
        overwrite: remove what an earlier run left in `out`.

    Raises:
        UserError: ledger, source, autoencoder or manifest do not belong together; nothing was written.
        WorkError: some shards failed, for example because originals are missing or have changed.
    """
    ledger = read_renderable(request.ledger)
    for kind, path in (("ledger", request.ledger), ("manifest", manifest)):
        if overwrite and path is not None and _lies_in(path, out):
            raise UserError(f"The {kind} {path} lies in {out}, which --overwrite would empty; copy it elsewhere.")
    if manifest is not None and request.scale != 1:
        raise UserError("A manifest belongs to the run at scale 1; leave out --manifest, or --scale.")
    original = original_manifest(request.ledger, ledger, manifest)
    with select_runner(render_config(request, ledger), request.scheduler) as selection:
        job = render_job(request, ledger, out, selection)
        if not overwrite:
            require_rows_of(job, ledger)
        result = run(job, selection.runner, overwrite=overwrite)
    return RenderResult(run=result, scale=request.scale, comparison=compare(job, ledger, original))


def _lies_in(path: AnyPath, folder: AnyPath) -> bool:
    # Paths are compared as they are written and with links resolved, because a link in the folder or to it would be
    # emptied as well.
    parents = {str(parent) for name in (path.absolute(), path.resolve()) for parent in name.parents}
    resolved = {str(parent.resolve()) for parent in path.absolute().parents}
    return str(folder.resolve()) in parents | resolved


def render_job(request: RenderRequest, ledger: Ledger, out: AnyPath, selection: RunnerSelection | None = None) -> Job:
    """Check everything that can be checked before work starts, and return the job that makes a ledger's data set.

    Args:
        request: the rendering.
        ledger: content of its ledger.
        out: data-set folder.
        selection: the runner that will make the shards; None for this process.

    Raises:
        UserError: the autoencoder, or the names, labels or order of the source's images are not the ledger's.
    """
    identity = ledger.attributes["identity"]
    config = selection.config if selection else render_config(request, ledger)
    environment_of = partial(own_environment, classes=None)
    environment = selection.environment(environment_of, config) if selection else environment_of(config)
    changed = differences({"autoencoder": identity["autoencoder"]}, {"autoencoder": environment["autoencoder"]})
    if changed:
        raise UserError(
            f"The autoencoder {config.autoencoder} is not the one of the ledger ({'; '.join(changed)}); give that one."
        )
    source = open_images(config)
    records = records_of(ledger)
    absent = _absent(source, records, ledger.attributes["classes"])
    replay = Replay(
        columns=ledger.columns,
        scale=request.scale,
        ledger=str(request.ledger.absolute()),
        ledger_sha256=digest_file(request.ledger),
        absent=absent,
    )
    identity = {**identity, **environment, **({} if request.scale == 1 else {"scale": request.scale})}
    product = Product(folder=out.absolute(), name=rendered_name(ledger, request.scale), perturbed=True)
    return Job(
        config=config,
        source=source,
        records=records,
        keys=ledger.keys,
        plan=plan_of(ledger),
        perturbation=replay,
        datasets=(dataset_description(product, config, source, replay, identity),),
        requirements=requirements_of(config, replay, environment),
        identity=identity,
    )


def rendered_name(ledger: Ledger, scale: float) -> str:
    """Return the name of a ledger's data set at a scale."""
    name = str(ledger.attributes["name"])
    short = f"{scale:g}"
    return name if scale == 1 else f"{name}-scale-{short if float(short) == scale else scale}"


def render_config(request: RenderRequest, ledger: Ledger) -> GenerationConfig:
    """Return the settings of a rendering: those of the ledger's run, with the addresses and devices of the request."""
    original = config_of(ledger)
    autoencoder = request.autoencoder
    if autoencoder is None and request.source is None:
        autoencoder = str(drawn_networks(original.encoder).autoencoder)
    device = request.device or original.device
    # Which precisions the devices of a remote cluster have is only known there.
    usual = original.precision if request.scheduler else _available_precision(device, original.precision)
    return replace(
        original,
        source=request.source,
        autoencoder=autoencoder,
        labels=request.labels,
        order=request.order,
        device=device,
        precision=request.precision or usual,
        threads=request.threads or original.threads,
        workers=request.workers,
    )


def _available_precision(device: str, precision: str) -> str:
    """Return a precision if the device has it, else `auto`."""
    try:
        choose_compute(device, precision)
    except UserError:
        return "auto"
    return precision


def _absent(source: Source, records: Sequence[ImageRecord], classes: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of images that are in the ledger but not in the source.

    Raises:
        UserError: the source has none of the images, or has them with other labels or in another order.
    """
    if (source.classes.imagenet, list(source.classes.names)) != (classes["imagenet"], classes["names"]):
        raise UserError(f"The classes of {source.address} are not those of the ledger; give its --source and --labels.")
    wanted = {record.name: (position, record.label) for position, record in enumerate(records)}
    found = [record for record in source.records if record.name in wanted]
    if not found:
        raise UserError(
            f"The source {source.address} has none of the ledger's images, such as {records[0].name}; give the "
            "--source of the ledger's run."
        )
    for record in found:
        if record.label != wanted[record.name][1]:
            raise UserError(
                f"The image {record.name} of {source.address} has the label {record.label}, but the ledger has "
                f"{wanted[record.name][1]}; give the labels of the ledger's run with --labels."
            )
    positions = [wanted[record.name][0] for record in found]
    if positions != sorted(positions):
        raise UserError(
            f"The source {source.address} has its images in another order than the ledger; give the --order file of "
            "the ledger's run, or leave --order out if it had none."
        )
    return frozenset(wanted.keys() - {record.name for record in found})
