"""The runner on Dask workers: it maps the work on a shard over shard numbers, and knows nothing of images."""

import math
import pickle
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import NamedTuple

from distributed import Client, Future
from distributed.scheduler import KilledWorker

from basics.files import digest_json
from basics.progress import say
from pipeline.generate import ShardResult, generate_shard
from pipeline.job import Job
from pipeline.roster import Roster
from pipeline.scheduler import able_workers
from pipeline.tasks import TRIES, Made, Reached, Task, Work, work_on

_AHEAD = 2
"""Shards submitted for each place to compute in: one in work and one waiting."""
_LAST = "-alone"
"""End of the key of a shard that is tried with nothing else in work."""
_LOOK = 2.0
"""Seconds between two looks at which workers there are."""
_RETURN = 60.0
"""Seconds in which a worker may come that is not refused: where there is one, what dies is started again."""
_FETCH = 2.0
"""Seconds to wait for a result that is ready; the worker that has it may hang."""
_LOST = "the Dask scheduler was lost, with what was in work."
_NONE_LEFT = "no worker is left that may be used."


class _Ended(NamedTuple):
    key: str


class _Reached(NamedTuple):
    shard: int
    images: int


def _event(message: "tuple[int, int] | bytes") -> "_Reached | Made":
    if isinstance(message, bytes):
        made: Made = pickle.loads(message)  # noqa: S301 (from a worker, whose results Dask itself unpickles)
        return made
    return _Reached(*message)


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

    def results(self, job: Job, shards: Sequence[int], reached: Reached) -> Iterator[ShardResult]:
        """See `Runner`. If the scheduler is lost, the last result says so."""
        run = _Run(self, job, deque(shards))
        self.client.subscribe_topic(run.topic, lambda event: run.events.put(_event(event[1])))
        try:
            yield from run.results(reached)
        finally:
            with suppress(OSError, RuntimeError):
                self.client.unsubscribe_topic(run.topic)
                self.client.cancel([future for _, future in run.running.values()])


class _Run:
    """One call of `Distributed.results`."""

    def __init__(self, runner: Distributed, job: Job, waiting: "deque[int]") -> None:
        self.client, self.runner, self.job = runner.client, runner, job
        self.waiting, self.suspects = waiting, deque[int]()
        self.running: dict[str, tuple[int, Future[bytes]]] = {}
        self.roster = Roster()
        self.unheard = set[str]()
        """Keys of tasks that ended, and whose results have not come."""
        self.deaths: Counter[int] = Counter()
        """How often a shard was meant for workers that all went away."""
        self.allowed: dict[str, list[str]] = {}
        """Workers to which the tasks of a key are confined."""
        self.events: SimpleQueue[_Ended | _Reached | Made] = SimpleQueue()
        # A second client that asks for the same, in the same place, is given this one's tasks.
        self.name = digest_json([job.identity, *(str(product.folder) for product in job.products)])[:12]
        self.topic = f"advbn-{self.name}"
        self.sent: Counter[int] = Counter()
        """How often each shard was sent to the scheduler."""
        self.looked, self.seen = -math.inf, time.monotonic()
        """When it was looked around last, and when a worker was seen last."""

    def results(self, reached: Reached) -> Iterator[ShardResult]:
        while self.waiting or self.suspects or self.running:
            if time.monotonic() - self.looked >= _LOOK:
                stop = self._look_around()
                if stop:
                    left = {*self.waiting, *self.suspects, *(shard for shard, _ in self.running.values())}
                    yield ShardResult(shard=min(left), error=stop, hopeless=True)
                    return
                yield from self._freed()
                yield from self._overdue()
            self._submit_what_fits()
            for event in self._next_events():
                match event:
                    case _Reached():
                        reached(*event)
                    case Made():
                        yield from self._made(event)
                    case _Ended():
                        yield from self._ended(event.key)

    def _look_around(self) -> str:
        """Count the places to compute in; return why the run cannot go on, if it cannot."""
        self.looked = time.monotonic()
        try:
            able = able_workers(self.client, self.runner.resources) if self.client.status == "running" else None
        except (OSError, RuntimeError):
            able = None
        if able is None:
            return _LOST
        before = self.roster.usable
        self.roster.update(able)
        if self.roster.usable:
            self.seen = self.looked
        elif before:
            say("No worker is left; waiting for one.")
        waited = self.looked - self.seen
        return _NONE_LEFT if waited > (_RETURN if self.roster.refused else self.runner.patience) else ""

    def _freed(self) -> Iterator[ShardResult]:
        """Take back shards that wait for workers which are gone for good: started again, they have other addresses."""
        stranded = [key for key, allowed in self.allowed.items() if not self.roster.usable.keys() & set(allowed)]
        for key in stranded if self.roster.usable else ():
            shard, future = self.running[key]
            if future.done():
                continue
            del self.running[key], self.allowed[key]
            self.client.cancel([future])
            self.deaths[shard] += 1
            if self.deaths[shard] >= 2 * TRIES:
                yield _deadly(shard)
            elif key.endswith(_LAST) or self.deaths[shard] >= TRIES:
                self.suspects.append(shard)
            else:
                self.waiting.appendleft(shard)

    def _next_events(self) -> list[_Ended | _Reached | Made]:
        """Wait for an event, and return all that there are then; none if it was too long to wait."""
        events: list[_Ended | _Reached | Made] = []
        with suppress(Empty):
            events.append(self.events.get(timeout=_LOOK))
            while True:
                events.append(self.events.get_nowait())
        return events

    def _submit_what_fits(self) -> None:
        """Send shards to the scheduler as far as there is room."""
        if self.roster.refused and not self.roster.usable:
            return
        room = max(1, _AHEAD * self.roster.places()) - len(self.running)
        for allowed, shards in self._by_workers([self.waiting.popleft() for _ in range(min(room, len(self.waiting)))]):
            self._submit(shards, allowed)
        if self.suspects and not self.running:
            shard = self.suspects.popleft()
            self._submit([shard], self.roster.allowed(shard), _LAST)

    def _by_workers(self, shards: Sequence[int]) -> Iterator[tuple[list[str] | None, Sequence[int]]]:
        """Yield shards with the workers that may have them: all that were not tried yet together."""
        fresh = [shard for shard in shards if not self.roster.failures(shard)]
        yield self.roster.allowed(), fresh
        for shard in shards:
            if self.roster.failures(shard):
                yield self.roster.allowed(shard), [shard]

    def _submit(self, shards: Sequence[int], allowed: list[str] | None, suffix: str = "") -> None:
        """Send shards to the scheduler, all in one message: each costs it more than a few tasks do."""
        if not shards:
            return
        keys = [f"{self._key(shard)}{suffix}" for shard in shards]
        futures = self.client.map(
            work_on,
            [pickle.dumps(self._task(key, shard)) for key, shard in zip(keys, shards, strict=True)],
            key=keys,
            retries=TRIES - 1,
            resources=dict(self.runner.resources) or None,
            workers=allowed,
        )
        for key, shard, future in zip(keys, shards, futures, strict=True):
            self.running[key] = (shard, future)
            if allowed is not None:
                self.allowed[key] = allowed
            future.add_done_callback(self._tell_end)

    def _task(self, key: str, shard: int) -> Task:
        return Task(key, self.job.part(shard), shard, self.topic, self.runner.work)

    def _key(self, shard: int) -> str:
        """Return the key for a shard to be sent now; sent again under the same one, Dask might give the old result."""
        before = self.sent[shard]
        self.sent[shard] += 1
        return f"advbn-shard-{self.name}-{shard:06d}" + (f"-{before}" if before else "")

    def _tell_end(self, future: "Future[bytes]") -> None:
        self.events.put(_Ended(str(future.key)))

    def _made(self, made: Made) -> Iterator[ShardResult]:
        # Of shards that were taken back, or are in work for another client as well, more may be heard.
        if made.key not in self.running:
            return
        self._drop(made.key)
        if made.result.unlike:
            self._refuse(made.worker, made.result)
            return
        if not made.result.passing:
            self.roster.made(made.worker)
        elif self._again(made.worker, made.result):
            return
        yield made.result

    def _ended(self, key: str) -> Iterator[ShardResult]:
        if key not in self.running:
            return
        if self.running[key][1].status in {"error", "cancelled"}:
            yield from self._asked(key)
        else:
            # The event with its result is on its way, or was sent before this client listened.
            self.unheard.add(key)

    def _overdue(self) -> Iterator[ShardResult]:
        """Ask for what ended without being heard of; lost with its worker, it is made again and not asked for yet."""
        self.unheard &= self.running.keys()
        for key in sorted(self.unheard):
            if self.running[key][1].done():
                yield from self._asked(key)

    def _asked(self, key: str) -> Iterator[ShardResult]:
        shard, future = self.running[key]
        try:
            made: Made = pickle.loads(future.result(timeout=_FETCH))  # noqa: S301 (as in `_event`)
        except KilledWorker:
            self._drop(key)
            if key.endswith(_LAST):
                yield _deadly(shard)
            else:
                self.suspects.append(shard)
        except CancelledError:
            self._drop(key)
            yield ShardResult(shard=shard, error=_LOST, hopeless=True)
        except Exception as error:
            if isinstance(error, TimeoutError) and future.status != "error":
                # Its worker went or hangs; it is asked for again later.
                return
            self._drop(key)
            # What a task raises comes back as a result; this is a worker that cannot even load the task.
            yield ShardResult(shard=shard, error=f"shard {shard}: {type(error).__name__}: {error}")
        else:
            yield from self._made(made)

    def _drop(self, key: str) -> None:
        del self.running[key]
        self.allowed.pop(key, None)

    def _again(self, address: str, result: ShardResult) -> bool:
        """Put a shard back after a fault that may pass; return False if it was tried often enough."""
        if self.roster.failed(address, result.shard) and len(self.roster.usable) > 1:
            say(f"The worker {address} is given a rest ({result.error})")
        if self.roster.failures(result.shard) >= TRIES:
            return False
        self.waiting.appendleft(result.shard)
        return True

    def _refuse(self, address: str, result: ShardResult) -> None:
        """Give a worker that is not like the others no more shards, and this one to another."""
        if address not in self.roster.refused:
            say(f"The worker {address} is refused: it differs from this run ({result.unlike}).")
        self.roster.refuse(address)
        self.waiting.appendleft(result.shard)


def _deadly(shard: int) -> ShardResult:
    fault = "every worker that made it died, also when nothing else was in work; see their logs"
    return ShardResult(shard=shard, error=f"shard {shard}: {fault} (too little memory?).")
