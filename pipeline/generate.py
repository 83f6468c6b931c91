"""The work on one shard of a job: a picklable function of the job and a number, and all that runners call."""

import errno
from collections.abc import Callable

from basics.errors import UserError, WorkError
from basics.memory import is_out_of_memory
from basics.ownership import FolderTakenError
from pipeline.compiled import compilation_failure, is_compilation_error
from pipeline.dataset.layout import is_done
from pipeline.job import Job
from pipeline.outcome import Outcome, ShardResult
from pipeline.shard import make_shard
from pipeline.worker import WrongEnvironmentError, ready_worker


def generate_shard(job: Job, shard: int, on_batch: Callable[[int], None] | None = None) -> ShardResult:
    """Make one shard of every product of a job that lacks it, or say why not.

    Args:
        job: the run, or its part with this shard.
        shard: number of the shard.
        on_batch: called with the number of images of each finished batch.
    """
    try:
        networks = ready_worker(job.requirements)
        missing = [dataset for dataset in job.datasets if not is_done(dataset.folder, shard, dataset.fingerprint)]
        if missing:
            make_shard(networks, job.shard_plan(shard), missing, on_batch)
    except WrongEnvironmentError as error:
        return ShardResult(shard=shard, outcome=Outcome.WRONG_ENVIRONMENT, reason=str(error))
    except FolderTakenError as error:
        return ShardResult(shard=shard, outcome=Outcome.FATAL, reason=f"shard {shard}: {error}")
    except (WorkError, UserError) as error:
        return ShardResult(shard=shard, outcome=Outcome.FAILED, reason=f"shard {shard}: {error}")
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        outcome = Outcome.MACHINE_FAULT if full else Outcome.TRANSIENT
        return ShardResult(shard=shard, outcome=outcome, reason=f"shard {shard}: {error}.")
    except Exception as error:
        known = _known(job, shard, error)
        if known is None:
            raise
        return known
    return ShardResult(shard=shard)


def _known(job: Job, shard: int, error: Exception) -> ShardResult | None:
    """Return what torch's error means for a shard; None if it is a fault of this program."""
    if is_out_of_memory(error):
        reason = f"shard {shard}: out of memory ({error}). {_advice(job)}"
        return ShardResult(shard=shard, outcome=Outcome.MACHINE_FAULT, reason=reason)
    if is_compilation_error(error):
        return ShardResult(shard=shard, outcome=Outcome.FATAL, reason=f"shard {shard}: {compilation_failure(error)}")
    return None


def _advice(job: Job) -> str:
    if job.perturbation.rendered is not None:
        return "Use a device with more memory, such as --device cpu."
    return (
        "Give a smaller --micro-batch, which changes no statistics, as a smaller --batch-size would; it is another "
        "run, so give another --out or --overwrite as well."
    )
