"""Data sets in one call: a run prepared, with the processes that make its shards, and carried out."""

from collections.abc import Iterator
from contextlib import contextmanager

from basics.paths import Address, AnyPath, as_path
from encoders import file_name_of
from pipeline.config import GenerationConfig
from pipeline.job import Job, prepare, products_of
from pipeline.run import RunResult, run
from pipeline.runners.runner import Runner
from pipeline.runners.selection import select_runner


def default_name(config: GenerationConfig) -> str:
    """Return the name of a run's data set: with it begin the names of its files and, without another, its folder."""
    return f"{'sample' if config.source is None else 'imagenet'}-advbn-{file_name_of(config.encoder)}"


@contextmanager
def prepared(
    config: GenerationConfig, out: AnyPath, name: str, *, scheduler: str | None = None, overwrite: bool = False
) -> Iterator[tuple[Job, Runner]]:
    """Check everything that can be checked before work starts; yield the job and what will make its shards.

    Args:
        config: the run.
        out: folder of the perturbed images; reconstructions, if there are any, lie beside it.
        name: name of the data set.
        scheduler: address of a running Dask scheduler to work on.
        overwrite: whether what an earlier run left in the folders will be removed.

    Raises:
        UserError: anything that a user has to correct.
    """
    products = products_of(config, out, name)
    with select_runner(config, scheduler) as selection:
        job = prepare(selection.config, products, selection.environment, selection.trial_config, anew=overwrite)
        yield job, selection.runner


def generate(
    config: GenerationConfig,
    out: Address,
    *,
    name: str | None = None,
    scheduler: str | None = None,
    overwrite: bool = False,
) -> RunResult:
    """Make a data set, or go on with one that was interrupted (paper section 3 and appendix B.1).

    Args:
        config: the run; `imagenet_advbn` returns the published one.
        out: folder of the perturbed images, or address; reconstructions, if there are any, lie beside it.
        name: name of the data set; None: `imagenet-advbn-ENCODER`, or `sample-advbn-ENCODER` of the drawn world.
        scheduler: address of a running Dask scheduler to work on.
        overwrite: remove what an earlier run left in the folders, and start anew.

    Raises:
        UserError: anything that a user has to correct; no work has been done.
        WorkError: some shards failed; the others are finished.

    Example (the drawn world's networks are trained at first use, for two minutes):
        >>> from dataclasses import replace
        >>> from advbn_gen import LabelledImages, generate, sample_advbn
        >>> config = replace(sample_advbn("vgg"), limit=8, batch_size=4, batches_per_shard=1)
        >>> result = generate(config, "advbn")
        >>> result.images, result.shards, result.made
        (8, 2, 2)
        >>> generate(config, "advbn").made  # nothing is left to do
        0
        >>> LabelledImages("advbn")[0][0].size
        (48, 48)
    """
    named = name or default_name(config)
    with prepared(config, as_path(out), named, scheduler=scheduler, overwrite=overwrite) as (job, runner):
        return run(job, runner, overwrite=overwrite)
