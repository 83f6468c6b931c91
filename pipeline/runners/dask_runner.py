"""The runner on Dask workers: which shard goes to which worker, and how often it is tried."""

import math
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from distributed import Client

from basics.progress import say
from pipeline.generate import generate_shard
from pipeline.job import Job
from pipeline.outcome import Outcome, ShardResult
from pipeline.runners.dispatcher import Cancelled, Dispatcher, NotStarted, Progress, ShardEvent, WorkersKilled
from pipeline.runners.runner import MAX_ATTEMPTS, OnProgress, ShardFunction
from pipeline.runners.worker_entry import AttemptResult
from pipeline.runners.worker_pool import WorkerPool
from pipeline.runners.worker_probe import WorkerProbe, worker_slots

SHORT_LOGS = {"distributed.admin.low-level-log-length": 10}
"""Dask's configuration: otherwise each connection keeps its last thousand messages, with the images' names in them."""
_SHARDS_PER_SLOT = 2
"""Shards submitted for each worker slot: one in work and one waiting."""
_POLL_INTERVAL = 2.0
"""Seconds between two looks at the scheduler's list of workers."""
_REPLACEMENT_TIMEOUT = 60.0
"""Seconds to wait for a usable worker when only refused ones are left: a worker that dies may be started again."""
_SCHEDULER_LOST = "the Dask scheduler was lost, with what was in work."
_NO_WORKER_LEFT = "no worker is left that may be used."


@dataclass(frozen=True)
class DaskRunner:
    """Makes shards on the workers of a Dask scheduler, several at a time.

    Only a few shards for each worker are with the scheduler at any time, each with what it needs of the job, so that
    neither client nor scheduler holds the whole run. A shard whose worker dies is tried again by Dask; if that happens
    too often, it is put last and made with no other shard in work, so that a shard that kills workers is not confused
    with those that were in work beside it. After a transient fault a shard is retried by another worker, if there is
    one.
    """

    client: Client
    resources: Mapping[str, float] = field(default_factory=dict)
    """What a worker must offer to get a shard, such as {"GPU": 1}."""
    shard_function: ShardFunction = generate_shard
    """What makes a shard."""
    no_worker_timeout: float = math.inf
    """Seconds to wait when no worker is left; a cluster's queue may take hours to start others."""

    def results(self, job: Job, shards: Sequence[int], on_progress: OnProgress) -> Iterator[ShardResult]:
        """See `Runner`. If the scheduler is lost, the last result has that as its reason."""
        with Dispatcher(self.client, job, self.shard_function, self.resources) as dispatcher:
            yield from _RunLoop(self, dispatcher, deque(shards)).results(on_progress)


class _RunLoop:
    """One call of `DaskRunner.results`."""

    def __init__(self, runner: DaskRunner, dispatcher: Dispatcher, pending: "deque[int]") -> None:
        self.client, self.runner, self.dispatcher = runner.client, runner, dispatcher
        self.pending = pending
        """Shards to submit."""
        self.isolated_retries = deque[int]()
        """Shards that may have killed workers; each is submitted when nothing else is in work."""
        self.pool, self.probe = WorkerPool(), WorkerProbe(runner.client, dispatcher.wake)
        self.lost_with_workers: Counter[int] = Counter()
        """How often a shard was submitted to workers that all died."""
        self.updated = -math.inf
        """When the worker pool was last updated."""
        self.worker_seen = time.monotonic()
        """When there was last a worker that is not refused."""
        self.all_in_backoff = False
        """Whether all workers were in backoff at the last update."""

    def results(self, on_progress: OnProgress) -> Iterator[ShardResult]:
        while self.pending or self.isolated_retries or self.dispatcher.submitted:
            if time.monotonic() - self.updated >= _POLL_INTERVAL or self.probe.has_news():
                fault = self._update_pool()
                if fault:
                    yield ShardResult(shard=self._first_unfinished(), outcome=Outcome.FATAL, reason=fault)
                    return
                yield from self._reassign_lost()
                for event in self.dispatcher.late_results():
                    yield from self._handle(event)
            self._submit_pending()
            for event in self.dispatcher.events(_POLL_INTERVAL):
                if isinstance(event, Progress):
                    on_progress(*event)
                else:
                    yield from self._handle(event)

    def _first_unfinished(self) -> int:
        return min([*self.pending, *self.isolated_retries, *(one.shard for one in self.dispatcher.submitted.values())])

    def _update_pool(self) -> str:
        """Update the worker pool from the scheduler; return why the run cannot go on, if it cannot."""
        self.updated = time.monotonic()
        try:
            alive = worker_slots(self.client, self.runner.resources) if self.client.status == "running" else None
        except (OSError, RuntimeError):
            alive = None
        if alive is None:
            return _SCHEDULER_LOST
        self.probe.start(alive)
        for address, error in self.probe.failed().items():
            self._refuse(address, f"it cannot load what a shard needs ({error})")
        had_workers = bool(self.pool.slots)
        self.pool.update(alive, self.probe.ready())
        if alive.keys() - self.pool.refused:
            self.worker_seen = self.updated
        elif had_workers:
            say("No worker is left; waiting for one.")
        all_in_backoff = bool(self.pool.slots) and not self.pool.available()
        if all_in_backoff and not self.all_in_backoff:
            say("All workers have failed and get no shards for a while; then they are tried again.")
        self.all_in_backoff = all_in_backoff
        timeout = _REPLACEMENT_TIMEOUT if self.pool.refused else self.runner.no_worker_timeout
        return _NO_WORKER_LEFT if self.updated - self.worker_seen > timeout else ""

    def _reassign_lost(self) -> Iterator[ShardResult]:
        """Put the shards of dead workers back among those to submit; fail a shard that lost its workers too often."""
        for submission in self.dispatcher.withdraw_unassigned(self.pool.slots) if self.pool.slots else ():
            self.lost_with_workers[submission.shard] += 1
            if self.lost_with_workers[submission.shard] >= 2 * MAX_ATTEMPTS:
                yield _killed_workers(submission.shard)
            elif submission.isolated or self.lost_with_workers[submission.shard] >= MAX_ATTEMPTS:
                self.isolated_retries.append(submission.shard)
            else:
                self.pending.appendleft(submission.shard)

    def _submit_pending(self) -> None:
        """Submit as many shards as the slots of available workers allow."""
        available = self.pool.available()
        room = _SHARDS_PER_SLOT * sum(available.values()) - len(self.dispatcher.submitted)
        shards = [self.pending.popleft() for _ in range(min(room, len(self.pending)))]
        first_attempts = [shard for shard in shards if not self.pool.failures(shard)]
        if first_attempts:
            self.dispatcher.submit(first_attempts, list(available))
        for shard in shards:
            if self.pool.failures(shard):
                self.dispatcher.submit([shard], self.pool.candidates(shard))
        if self.isolated_retries and available and not self.dispatcher.submitted:
            shard = self.isolated_retries.popleft()
            self.dispatcher.submit([shard], self.pool.candidates(shard), isolated=True)

    def _handle(self, event: ShardEvent) -> Iterator[ShardResult]:
        match event:
            case AttemptResult():
                yield from self._handle_result(event.worker, event.result)
            case WorkersKilled(shard, isolated=True):
                yield _killed_workers(shard)
            case WorkersKilled(shard):
                self.isolated_retries.append(shard)
            case Cancelled(shard):
                self.pending.append(shard)
            case NotStarted(shard, reason):
                result = ShardResult(shard=shard, outcome=Outcome.TRANSIENT, reason=reason)
                yield from self._handle_result("", result)

    def _handle_result(self, worker: str, result: ShardResult) -> Iterator[ShardResult]:
        if result.outcome is Outcome.WRONG_ENVIRONMENT:
            self._refuse(worker, f"it differs from this run ({result.reason})")
            self.pending.appendleft(result.shard)
            return
        if not result.retryable:
            self.pool.record_success(worker)
        elif self._retry(worker, result):
            return
        yield result

    def _retry(self, worker: str, result: ShardResult) -> bool:
        """Put a shard last after a fault that another attempt may not meet; return False if there were enough."""
        seconds = self.pool.record_failure(worker, result.shard)
        if seconds and worker:
            say(f"The worker {worker} failed and gets no shards for {seconds:.0f} s ({result.reason})")
        if self.pool.failures(result.shard) >= MAX_ATTEMPTS:
            return False
        self.pending.append(result.shard)
        return True

    def _refuse(self, worker: str, why: str) -> None:
        """Give a worker no more shards."""
        if self.pool.refuse(worker):
            say(f"The worker {worker} is refused: {why}.")


def _killed_workers(shard: int) -> ShardResult:
    fault = "every worker that made it died, also when nothing else was in work; see their logs"
    return ShardResult(shard=shard, outcome=Outcome.FAILED, reason=f"shard {shard}: {fault} (too little memory?).")
