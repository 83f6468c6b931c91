"""What maps the work on a shard over shard numbers, and the runner in this process."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from pipeline.generate import generate_shard
from pipeline.job import Job
from pipeline.outcome import Outcome, ShardResult
from pipeline.runners.tasks import TRIES, Reached, counting


class Runner(Protocol):
    """What makes shards."""

    def results(self, job: Job, shards: Sequence[int], reached: Reached) -> Iterator[ShardResult]:
        """Make shards; yield what is left of each, in the order in which they end."""
        ...


class Here:
    """Makes shards one after the other in this process."""

    def results(self, job: Job, shards: Sequence[int], reached: Reached) -> Iterator[ShardResult]:
        """See `Runner`."""
        for shard in shards:
            result = self._result(job, shard, reached)
            if result.outcome is Outcome.WRONG_ENVIRONMENT:
                changed = f"this process is no longer the one that the run was made for ({result.reason})"
                result = ShardResult(shard=shard, outcome=Outcome.FATAL, reason=f"shard {shard}: {changed}")
            yield result

    def _result(self, job: Job, shard: int, reached: Reached) -> ShardResult:
        for _ in range(TRIES):
            result = generate_shard(job, shard, counting(lambda done: reached(shard, done)))
            if result.outcome is not Outcome.TRANSIENT:
                break
        return result
