"""The shards that are with a Dask scheduler: sending them, and hearing what came of them."""

import pickle
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import NamedTuple, Self

from distributed import Client, Future
from distributed.scheduler import KilledWorker

from basics.files import digest_json
from pipeline.job import Job
from pipeline.runners.tasks import Made, Work, work_on

_FETCH = 2.0
"""Seconds to wait for a result that is ready; the worker that has it may hang."""


class Reached(NamedTuple):
    """So many images of a shard are done."""

    shard: int
    images: int


class Sent(NamedTuple):
    """A shard that is with the scheduler."""

    shard: int
    future: "Future[bytes]"
    allowed: Collection[str]
    """The workers that may have it."""
    alone: bool
    """Whether nothing else was in work when it was sent."""


class Killed(NamedTuple):
    """The workers that were given a shard died, one after the other."""

    shard: int
    alone: bool


class Undone(NamedTuple):
    """Nothing came of a shard, and no work of its own is to blame."""

    shard: int
    error: str
    """Empty if it was another client that cancelled it."""


class _Ended(NamedTuple):
    key: str


class _Woken(NamedTuple):
    """There is something to do."""


TaskEvent = Reached | Made | Killed | Undone


class Dispatch:
    """Sends shards to a scheduler, and tells what comes of them; a context.

    What workers tell comes as events of the scheduler. The futures only say which tasks ended without a result, and
    are asked for results that were not heard.
    """

    def __init__(self, client: Client, job: Job, work: Work, resources: Mapping[str, float]) -> None:
        self.sent: dict[str, Sent] = {}
        """What is with the scheduler, by key."""
        self._client, self._job, self._work, self._resources = client, job, work, resources
        # A second client that asks for the same, in the same place, is given this one's tasks.
        self._name = digest_json([job.identity, *(str(product.folder) for product in job.products)])[:12]
        self._topic = f"advbn-{self._name}"
        self._times: Counter[int] = Counter()
        """How often each shard was sent."""
        self._unheard = set[str]()
        """Keys of tasks that ended, and whose results have not come."""
        self._events: SimpleQueue[Reached | Made | _Ended | _Woken] = SimpleQueue()

    def __enter__(self) -> Self:
        self._client.subscribe_topic(self._topic, lambda event: self._events.put(_event(event[1])))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A client that has lost its scheduler may say so in many ways, and nothing is left to be done then.
        with suppress(Exception):
            self._client.unsubscribe_topic(self._topic)
            for key in list(self.sent):
                self.take_back(key)

    def send(self, shards: Sequence[int], allowed: Collection[str], *, alone: bool = False) -> None:
        """Send shards to some of the workers, all in one message: each costs the scheduler more than a few tasks do."""
        keys = [self._key(shard, alone) for shard in shards]
        futures = self._client.map(
            work_on,
            shards,
            [self._topic] * len(shards),
            [pickle.dumps((self._job.part(shard), self._work)) for shard in shards],
            key=keys,
            resources=dict(self._resources) or None,
            workers=list(allowed),
        )
        for key, shard, future in zip(keys, shards, futures, strict=True):
            self.sent[key] = Sent(shard, future, allowed, alone)
            future.add_done_callback(lambda ended: self._events.put(_Ended(str(ended.key))))

    def _key(self, shard: int, alone: bool) -> str:
        """Return the key for a shard to be sent now; sent again under the same one, Dask might give the old result."""
        before = self._times[shard]
        self._times[shard] += 1
        return f"advbn-shard-{self._name}-{shard:06d}" + (f"-{before}" if before else "") + ("-alone" if alone else "")

    def take_back(self, key: str) -> Sent:
        """Want a shard no more. It is not cancelled, as another client may want it, too."""
        self._unheard.discard(key)
        sent = self.sent.pop(key)
        sent.future.release()
        return sent

    def stranded(self, usable: Collection[str]) -> list[Sent]:
        """Take back what waits for workers none of which is there: started again, they have other addresses."""
        gone = [key for key, sent in self.sent.items() if not set(sent.allowed) & set(usable)]
        return [self.take_back(key) for key in gone if not self.sent[key].future.done()]

    def wake(self) -> None:
        """End the waiting in `hear`."""
        self._events.put(_Woken())

    def hear(self, seconds: float) -> Iterator[TaskEvent]:
        """Wait so long for an event, and yield what came of all that there are then."""
        events = []
        with suppress(Empty):
            events.append(self._events.get(timeout=seconds))
            while True:
                events.append(self._events.get_nowait())
        for event in events:
            match event:
                case Reached():
                    yield event
                # Of shards that were taken back, or are in work for another client as well, more may be heard.
                case Made() if event.key in self.sent:
                    self.take_back(event.key)
                    yield event
                case _Ended() if event.key in self.sent:
                    yield from self._ended(event.key)

    def _ended(self, key: str) -> Iterator[TaskEvent]:
        if self.sent[key].future.status in {"error", "cancelled"}:
            yield from self._asked(key)
        else:
            # The event with its result is on its way, or was sent before this client listened.
            self._unheard.add(key)

    def overdue(self) -> Iterator[TaskEvent]:
        """Ask for what ended without being heard of; lost with its worker, it is made again and not asked for yet."""
        for key in sorted(self._unheard):
            if self.sent[key].future.done():
                yield from self._asked(key)

    def _asked(self, key: str) -> Iterator[TaskEvent]:
        shard, future, _, alone = self.sent[key]
        outcome: TaskEvent
        try:
            outcome = pickle.loads(future.result(timeout=_FETCH))  # noqa: S301 (as in `_event`)
        except KilledWorker:
            outcome = Killed(shard, alone)
        except CancelledError:
            outcome = Undone(shard, "")
        except Exception as error:
            if isinstance(error, TimeoutError) and future.status != "error":
                # Its worker went or hangs; it is asked for again later.
                return
            # What a task raises comes back as a result; this is a worker that cannot even load the task.
            outcome = Undone(shard, f"shard {shard}: {type(error).__name__}: {error}")
        self.take_back(key)
        yield outcome


def _event(message: "tuple[int, int] | bytes") -> Reached | Made:
    if isinstance(message, bytes):
        made: Made = pickle.loads(message)  # noqa: S301 (from a worker, whose results Dask itself unpickles)
        return made
    return Reached(*message)
