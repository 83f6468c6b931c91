"""Making damaged parts of a data set again, from the sources and settings in its manifest."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from basics.errors import UserError
from basics.files import digest_file
from basics.paths import AnyPath, as_path
from pipeline.config import config_of_manifest
from pipeline.dataset.checks import Problem
from pipeline.dataset.manifest import Manifest, read_manifest
from pipeline.job import Job, Product, prepare
from pipeline.render import RenderRequest, render_job
from pipeline.renderable import read_renderable
from pipeline.run import RunResult, run


def repair(folder: AnyPath, problems: Sequence[Problem], moved: Mapping[str, Any] | None = None) -> RunResult:
    """Make damaged shards again, and check that their bytes are the ones recorded in the manifest.

    Args:
        folder: the data set.
        problems: what `find_problems` found.
        moved: new addresses of the source, autoencoder, classifier or ledger, where they are not at those in the
            manifest: names of GenerationConfig's fields, or `ledger`. Their content must be unchanged.

    Raises:
        UserError: one of them is missing or has changed.
        WorkError: the run failed, or the present software or hardware gives other bytes.
    """
    job = job_of(folder, read_manifest(folder), moved or {})
    return run(job, remake={problem.shard for problem in problems if problem.shard is not None})


def job_of(folder: AnyPath, manifest: Manifest, moved: Mapping[str, Any]) -> Job:
    """Rebuild the job that made a data set, with the new addresses of what has `moved` since.

    Raises:
        UserError: its source or weights do not exist any more.
    """
    rendered = manifest.values.get("rendered")
    ledger = moved.get("ledger")
    if ledger and not rendered:
        raise UserError(f"The data set {folder} was not rendered from a ledger; leave out --ledger.")
    config = config_of_manifest(manifest)
    config = replace(config, **{field: value for field, value in moved.items() if field != "ledger"})
    if rendered:
        kept = ("source", "autoencoder", "labels", "order", "device", "precision", "threads")
        settings = {field: getattr(config, field) for field in kept}
        request = RenderRequest(ledger=as_path(ledger or rendered["ledger"]), scale=rendered["scale"], **settings)
        content = read_renderable(request.ledger)
        if digest_file(request.ledger) != rendered["ledger_sha256"]:
            raise UserError(f"The ledger {request.ledger} is not the one of {folder}; name that one with --ledger.")
        return render_job(request, content, folder)
    product = Product(folder=folder.absolute(), name=manifest.name, perturbed=manifest.perturbed)
    return prepare(config, (product,))
