"""The serial runner: it makes one shard after the other in this process."""

from collections.abc import Iterator, Sequence

from pipeline.generate import generate_shard
from pipeline.job import Job
from pipeline.outcome import Outcome, ShardResult
from pipeline.runners.runner import MAX_ATTEMPTS, OnProgress, running_total


class SerialRunner:
    """Makes shards one after the other in this process."""

    def results(self, job: Job, shards: Sequence[int], on_progress: OnProgress) -> Iterator[ShardResult]:
        """See `Runner`."""
        for shard in shards:
            result = self._attempt(job, shard, on_progress)
            if result.outcome is Outcome.WRONG_ENVIRONMENT:
                changed = f"this process is no longer the one that the run was made for ({result.reason})"
                result = ShardResult(shard=shard, outcome=Outcome.FATAL, reason=f"shard {shard}: {changed}")
            yield result

    def _attempt(self, job: Job, shard: int, on_progress: OnProgress) -> ShardResult:
        for _ in range(MAX_ATTEMPTS):
            result = generate_shard(job, shard, running_total(lambda images: on_progress(shard, images)))
            if result.outcome is not Outcome.TRANSIENT:
                break
        return result
