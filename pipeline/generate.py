"""The work on one shard of a job: a picklable function of the job and a number, and all that runners call."""

import errno
from collections.abc import Callable

from basics.errors import UserError, WorkError
from basics.memory import is_out_of_memory
from basics.ownership import FolderTakenError
from pipeline.compiled import is_compilation_error
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
        known = _known(shard, error)
        if known is None:
            raise
        return known
    return ShardResult(shard=shard)


def _known(shard: int, error: Exception) -> ShardResult | None:
    """Return what torch's error means for a shard; None if it is a fault of this program."""
    if is_out_of_memory(error):
        reason = f"out of memory ({error}). Give a smaller --micro-batch: it changes no statistics, as a smaller "
        return ShardResult(
            shard=shard, outcome=Outcome.MACHINE_FAULT, reason=f"shard {shard}: {reason}--batch-size would."
        )
    if is_compilation_error(error):
        first_line = str(error).partition("\n")[0]
        reason = f"shard {shard}: a network cannot be compiled ({first_line}); leave out --compile."
        return ShardResult(shard=shard, outcome=Outcome.FATAL, reason=reason)
    return None
