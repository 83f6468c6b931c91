"""Runners: they map the work on a shard over shard numbers, here or on Dask workers, and know nothing of images."""

import pickle
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import NamedTuple, Protocol

from distributed import Client, Future
from distributed.scheduler import KilledWorker

from basics.files import digest_json
from basics.progress import say
from pipeline.generate import ShardResult, generate_shard
from pipeline.job import Job
from pipeline.tasks import TRIES, PassingError, Reached, Task, Work, counting, work_on

_AHEAD = 2
"""Shards submitted for each place to compute in: one in work and one waiting."""
_LAST = "-alone"
"""End of the key of a shard that is tried with nothing else in work."""
_PATIENCE = 2.0
"""Seconds between two looks at whether scheduler and workers are still there."""
_RETURN = 60.0
"""Seconds in which a worker may come that is not refused: where there is one, what dies is started again."""


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
            yield self._result(job, shard, reached)

    def _result(self, job: Job, shard: int, reached: Reached) -> ShardResult:
        for _ in range(TRIES):
            result = generate_shard(job, shard, counting(lambda done: reached(shard, done)))
            if not result.passing:
                break
        return result


class _Ended(NamedTuple):
    key: str


class _Told(NamedTuple):
    shard: int
    images: int


@dataclass(frozen=True)
class Distributed:
    """Makes shards on the workers of a Dask scheduler, several at a time.

    Only a few tasks for each worker are with the scheduler at any time, each with what one shard needs, so that
    neither client nor scheduler holds the whole run. A shard whose worker dies is tried again by Dask; if that happens
    too often, it is put last, and is then the only one in work: so one that kills workers is told from those that
    happened to be beside it.
    """

    client: Client
    resources: Mapping[str, float] = field(default_factory=dict)
    """What a worker must offer to be given a shard, such as {"GPU": 1}."""
    work: Work = generate_shard
    """What is done for each shard."""

    def results(self, job: Job, shards: Sequence[int], reached: Reached) -> Iterator[ShardResult]:
        """See `Runner`. If the scheduler is lost, the last result says so."""
        run = _Run(self, job, deque(shards))
        self.client.subscribe_topic(run.topic, lambda event: run.events.put(_Told(*event[1])))
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
        self.running: dict[str, tuple[int, Future[tuple[str, ShardResult]]]] = {}
        self.refused: set[str] = set()
        self.allowed: dict[str, list[str]] = {}
        """Workers to which the tasks of a key are confined."""
        self.events: SimpleQueue[_Ended | _Told] = SimpleQueue()
        # A second client that asks for the same, in the same place, is given this one's tasks.
        self.name = digest_json([job.identity, *(str(product.folder) for product in job.products)])[:12]
        self.topic = f"advbn-{self.name}"
        self.places, self.submitted, self.seen = 0, 0, time.monotonic()

    def results(self, reached: Reached) -> Iterator[ShardResult]:
        self._look_around()
        while self.waiting or self.suspects or self.running:
            if not self._submit_what_fits():
                error = "no worker is left that may be used."
                yield ShardResult(shard=min(self._open()), error=error, hopeless=True)
                return
            events = self._next_events()
            for told in (event for event in events if isinstance(event, _Told)):
                reached(*told)
            yield from self._ended([event.key for event in events if isinstance(event, _Ended)])
            if not events and not self._look_around():
                yield _lost(min(self._open()))
                return

    def _open(self) -> set[int]:
        """Return the shards that have not ended."""
        return {*self.waiting, *self.suspects, *(shard for shard, _ in self.running.values())}

    def _look_around(self) -> bool:
        """Count the places to compute in; return whether the scheduler is still there."""
        if self.client.status != "running":
            return False
        try:
            usable = self._usable()
        except (OSError, RuntimeError):
            return False
        if not usable and self.places:
            say("No worker is left; waiting for one.")
        self.places = sum(usable.values())
        if usable:
            self._free_stranded(usable)
        return True

    def _usable(self) -> dict[str, int]:
        """Return how many threads each worker has that may be given shards."""
        able = able_workers(self.client, self.runner.resources)
        threads = {address: number for address, number in able.items() if address not in self.refused}
        if threads:
            self.seen = time.monotonic()
        return threads

    def _free_stranded(self, usable: Mapping[str, int]) -> None:
        """Take back shards that wait for workers which are gone for good: started again, they have other addresses."""
        stranded = [key for key, allowed in self.allowed.items() if not usable.keys() & set(allowed)]
        for key in stranded:
            del self.allowed[key]
            shard, future = self.running.pop(key)
            self.client.cancel([future])
            self.waiting.appendleft(shard)

    def _next_events(self) -> list[_Ended | _Told]:
        """Wait for an event, and return all that there are then; none if it was too long to wait."""
        events: list[_Ended | _Told] = []
        with suppress(Empty):
            events.append(self.events.get(timeout=_PATIENCE))
            while True:
                events.append(self.events.get_nowait())
        return events

    def _submit_what_fits(self) -> bool:
        """Send shards to the scheduler as far as there is room; return False if no worker may have any."""
        allowed = list(self._usable()) if self.refused else None
        if allowed == []:
            return time.monotonic() - self.seen < _RETURN
        room = max(1, _AHEAD * self.places) - len(self.running)
        self._submit([self.waiting.popleft() for _ in range(min(room, len(self.waiting)))], allowed)
        if self.suspects and not self.running:
            self._submit([self.suspects.popleft()], allowed, _LAST)
        return True

    def _submit(self, shards: Sequence[int], allowed: list[str] | None, suffix: str = "") -> None:
        """Send shards to the scheduler, all in one message: each costs it more than a few tasks do."""
        if not shards:
            return
        self.submitted += 1
        again = f"-{self.submitted}" if suffix or allowed is not None else ""
        keys = [f"advbn-shard-{self.name}-{shard:06d}{again}{suffix}" for shard in shards]
        futures = self.client.map(
            work_on,
            [pickle.dumps(Task(self.job.part(shard), shard, self.topic, self.runner.work)) for shard in shards],
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

    def _tell_end(self, future: "Future[tuple[str, ShardResult]]") -> None:
        self.events.put(_Ended(str(future.key)))

    def _ended(self, keys: Sequence[str]) -> Iterator[ShardResult]:
        # Those that were taken back have ended, too.
        ended = {key: self.running.pop(key) for key in keys if key in self.running}
        for key in ended:
            self.allowed.pop(key, None)
        fetched = self._fetched([future for _, future in ended.values() if future.status == "finished"])
        for key, (shard, future) in ended.items():
            yield from self._result(key, shard, future, fetched.get(key))

    def _fetched(self, futures: "Sequence[Future[tuple[str, ShardResult]]]") -> dict[str, tuple[str, ShardResult]]:
        """Return the results of finished tasks by their keys, all in one request; none if a worker has just died."""
        try:
            results = self.client.gather(futures)
        except Exception:
            # Asked for one by one, each tells what became of it.
            return {}
        return {str(future.key): result for future, result in zip(futures, results, strict=True)}

    def _result(
        self,
        key: str,
        shard: int,
        future: "Future[tuple[str, ShardResult]]",
        fetched: tuple[str, ShardResult] | None,
    ) -> Iterator[ShardResult]:
        try:
            address, result = fetched or future.result()
        except KilledWorker:
            if not key.endswith(_LAST):
                self.suspects.append(shard)
                return
            fault = "every worker that made it died, also when nothing else was in work; see their logs"
            result = ShardResult(shard=shard, error=f"shard {shard}: {fault} (too little memory?).")
        except CancelledError:
            result = _lost(shard)
        except PassingError as error:
            result = ShardResult(shard=shard, error=str(error))
        except Exception as error:
            # A task's own faults come back as results; this is Dask's, or a fault of the program.
            result = ShardResult(shard=shard, error=f"shard {shard}: {type(error).__name__}: {error}")
        else:
            if result.unlike:
                self._refuse(address, result)
                return
        yield result

    def _refuse(self, address: str, result: ShardResult) -> None:
        """Give a worker that is not like the others no more shards, and this one to another."""
        if address not in self.refused:
            say(f"The worker {address} is refused: it differs from this run ({result.unlike}).")
        self.refused.add(address)
        self.waiting.appendleft(result.shard)


def able_workers(client: Client, resources: Mapping[str, float]) -> dict[str, int]:
    """Return how many threads each worker of a scheduler has that offers some resources.

    Raises:
        OSError, RuntimeError: the scheduler does not answer.
    """
    threads: dict[str, int] = client.nthreads()
    if not resources:
        return threads
    told = client.scheduler_info(n_workers=-1)["workers"]
    offers = {address: worker["resources"] for address, worker in told.items()}
    return {
        address: number
        for address, number in threads.items()
        if all(offers.get(address, {}).get(name, 0) >= amount for name, amount in resources.items())
    }


def _lost(shard: int) -> ShardResult:
    return ShardResult(shard=shard, error="the Dask scheduler was lost, with what was in work.", hopeless=True)
