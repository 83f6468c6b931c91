"""The runner on Dask workers: it maps the work on a shard over shard numbers, and knows nothing of images."""

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
from pipeline.runners.dispatch import Dispatch, Killed, Reached, TaskEvent, Undone
from pipeline.runners.tasks import TRIES, Made, Work
from pipeline.runners.tasks import Reached as OnReached
from pipeline.runners.worker_pool import Roster
from pipeline.runners.worker_probe import Newcomers, able_workers

_AHEAD = 2
"""Shards sent for each place to compute in: one in work and one waiting."""
_LOOK = 2.0
"""Seconds between two looks at which workers there are."""
_RETURN = 60.0
"""Seconds in which a worker may come that is not refused: where there is one, what dies is started again."""
_LOST = "the Dask scheduler was lost, with what was in work."
_NONE_LEFT = "no worker is left that may be used."


@dataclass(frozen=True)
class Distributed:
    """Makes shards on the workers of a Dask scheduler, several at a time.

    Only a few tasks for each worker are with the scheduler at any time, each with what one shard needs, so that
    neither client nor scheduler holds the whole run. A shard whose worker dies is tried again by Dask; if that happens
    too often, it is put last, and is then the only one in work: so one that kills workers is told from those that
    happened to be beside it. A shard whose worker had a fault that may pass is tried by another one, if there is one.
    """

    client: Client
    resources: Mapping[str, float] = field(default_factory=dict)
    """What a worker must offer to be given a shard, such as {"GPU": 1}."""
    work: Work = generate_shard
    """What is done for each shard."""
    patience: float = math.inf
    """Seconds to wait when all workers are gone; a cluster's queue may take hours to start others."""

    def results(self, job: Job, shards: Sequence[int], reached: OnReached) -> Iterator[ShardResult]:
        """See `Runner`. If the scheduler is lost, the last result says so."""
        with Dispatch(self.client, job, self.work, self.resources) as dispatch:
            yield from _Run(self, dispatch, deque(shards)).results(reached)


class _Run:
    """One call of `Distributed.results`: decides what is sent, where to, and how often."""

    def __init__(self, runner: Distributed, dispatch: Dispatch, waiting: "deque[int]") -> None:
        self.client, self.runner, self.dispatch = runner.client, runner, dispatch
        self.waiting, self.suspects = waiting, deque[int]()
        self.roster, self.newcomers = Roster(), Newcomers(runner.client, dispatch.wake)
        self.deaths: Counter[int] = Counter()
        """How often a shard was meant for workers that all went away."""
        self.looked, self.seen = -math.inf, time.monotonic()
        """When it was looked around last, and when a worker was seen last."""
        self.resting = False
        """Whether all workers rested then."""

    def results(self, reached: OnReached) -> Iterator[ShardResult]:
        while self.waiting or self.suspects or self.dispatch.sent:
            if time.monotonic() - self.looked >= _LOOK or self.newcomers.answered():
                stop = self._look_around()
                if stop:
                    yield ShardResult(shard=self._first_left(), outcome=Outcome.FATAL, reason=stop)
                    return
                yield from self._freed()
                for outcome in self.dispatch.overdue():
                    yield from self._after(outcome)
            self._send_what_fits()
            for outcome in self.dispatch.hear(_LOOK):
                if isinstance(outcome, Reached):
                    reached(*outcome)
                else:
                    yield from self._after(outcome)

    def _first_left(self) -> int:
        return min([*self.waiting, *self.suspects, *(sent.shard for sent in self.dispatch.sent.values())])

    def _look_around(self) -> str:
        """Count the places to compute in; return why the run cannot go on, if it cannot."""
        self.looked = time.monotonic()
        try:
            here = able_workers(self.client, self.runner.resources) if self.client.status == "running" else None
        except (OSError, RuntimeError):
            here = None
        if here is None:
            return _LOST
        self.newcomers.ask(here)
        for address, fault in self.newcomers.unable().items():
            self._refuse(address, f"it cannot load what a shard needs ({fault})")
        had_some = bool(self.roster.usable)
        self.roster.update(here, {address: here[address] for address in self.newcomers.ready()})
        if here.keys() - self.roster.refused:
            self.seen = self.looked
        elif had_some:
            say("No worker is left; waiting for one.")
        resting = bool(self.roster.usable) and not self.roster.rested()
        if resting and not self.resting:
            say("All workers rest, as each has failed; they are tried again after that.")
        self.resting = resting
        waited = self.looked - self.seen
        return _NONE_LEFT if waited > (_RETURN if self.roster.refused else self.runner.patience) else ""

    def _freed(self) -> Iterator[ShardResult]:
        """Send shards elsewhere whose workers are gone for good."""
        for sent in self.dispatch.stranded(self.roster.usable) if self.roster.usable else ():
            self.deaths[sent.shard] += 1
            if self.deaths[sent.shard] >= 2 * TRIES:
                yield _deadly(sent.shard)
            elif sent.alone or self.deaths[sent.shard] >= TRIES:
                self.suspects.append(sent.shard)
            else:
                self.waiting.appendleft(sent.shard)

    def _send_what_fits(self) -> None:
        """Send shards to the scheduler as far as there is room on workers that do not rest."""
        rested = self.roster.rested()
        room = _AHEAD * sum(rested.values()) - len(self.dispatch.sent)
        shards = [self.waiting.popleft() for _ in range(min(room, len(self.waiting)))]
        fresh = [shard for shard in shards if not self.roster.failures(shard)]
        if fresh:
            self.dispatch.send(fresh, list(rested))
        for shard in shards:
            if self.roster.failures(shard):
                self.dispatch.send([shard], self.roster.allowed(shard))
        if self.suspects and rested and not self.dispatch.sent:
            shard = self.suspects.popleft()
            self.dispatch.send([shard], self.roster.allowed(shard), alone=True)

    def _after(self, outcome: TaskEvent) -> Iterator[ShardResult]:
        match outcome:
            case Made():
                yield from self._made(outcome.worker, outcome.result)
            case Killed(shard, alone=True):
                yield _deadly(shard)
            case Killed(shard):
                self.suspects.append(shard)
            case Undone(shard, error=""):
                self.waiting.append(shard)
            case Undone(shard, error):
                yield from self._made("", ShardResult(shard=shard, outcome=Outcome.TRANSIENT, reason=error))

    def _made(self, worker: str, result: ShardResult) -> Iterator[ShardResult]:
        if result.outcome is Outcome.WRONG_ENVIRONMENT:
            self._refuse(worker, f"it differs from this run ({result.reason})")
            self.waiting.appendleft(result.shard)
            return
        if not result.retryable:
            self.roster.made(worker)
        elif self._again(worker, result):
            return
        yield result

    def _again(self, worker: str, result: ShardResult) -> bool:
        """Put a shard last after a fault that may pass; return False if it was tried often enough."""
        rest = self.roster.failed(worker, result.shard)
        if rest and worker:
            say(f"The worker {worker} is given a rest of {rest:.0f} s ({result.reason})")
        if self.roster.failures(result.shard) >= TRIES:
            return False
        self.waiting.append(result.shard)
        return True

    def _refuse(self, worker: str, why: str) -> None:
        """Give a worker no more shards."""
        if self.roster.refuse(worker):
            say(f"The worker {worker} is refused: {why}.")


def _deadly(shard: int) -> ShardResult:
    fault = "every worker that made it died, also when nothing else was in work; see their logs"
    return ShardResult(shard=shard, outcome=Outcome.FAILED, reason=f"shard {shard}: {fault} (too little memory?).")
