"""The shards that are with a Dask scheduler: submitting them, and collecting what becomes of them."""

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
from pipeline.runners.runner import ShardFunction
from pipeline.runners.worker_entry import AttemptResult, run_on_worker

_FETCH_TIMEOUT = 2.0
"""Seconds to wait for a result that is ready; the worker that holds it may hang."""


class Progress(NamedTuple):
    """Number of images of a shard that are done."""

    shard: int
    images: int


class WorkersKilled(NamedTuple):
    """The workers that got a shard died, one after the other, until Dask gave up."""

    shard: int
    isolated: bool
    """Whether no other shard was in work."""


class Cancelled(NamedTuple):
    """Another client has cancelled the shard."""

    shard: int


class NotStarted(NamedTuple):
    """A worker could not even load what it was sent for a shard."""

    shard: int
    reason: str


class Submission(NamedTuple):
    """A shard that is with the scheduler."""

    shard: int
    future: "Future[bytes]"
    workers: Collection[str]
    """The workers that may make it."""
    isolated: bool
    """Whether nothing else was in work when it was submitted."""


class _FutureDone(NamedTuple):
    key: str


class _WakeUp(NamedTuple):
    """Ends the wait for an event."""


ShardEvent = Progress | AttemptResult | WorkersKilled | Cancelled | NotStarted


class Dispatcher:
    """Submits shards to a scheduler, and yields what becomes of them; a context manager.

    Progress and results come as events of the scheduler. The futures only show which shards ended without a result, and
    return the results whose event did not arrive.
    """

    def __init__(self, client: Client, job: Job, shard_function: ShardFunction, resources: Mapping[str, float]) -> None:
        self.submitted: dict[str, Submission] = {}
        """Submissions that are not withdrawn yet, by Dask's key."""
        self._client, self._job, self._shard_function, self._resources = client, job, shard_function, resources
        # A second client that makes the same data set in the same folders gets this one's keys, and so its results.
        self._name = digest_json([job.identity, *(str(dataset.folder) for dataset in job.datasets)])[:12]
        self._topic = f"advbn-{self._name}"
        self._attempts: Counter[int] = Counter()
        """How often each shard was submitted."""
        self._without_result = set[str]()
        """Keys of futures that are done, and whose result has not arrived as an event."""
        self._events: SimpleQueue[Progress | AttemptResult | _FutureDone | _WakeUp] = SimpleQueue()

    def __enter__(self) -> Self:
        self._client.subscribe_topic(self._topic, lambda event: self._events.put(_decoded(event[1])))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A client that has lost its scheduler may fail in many ways here, and nothing is left to be done then.
        with suppress(Exception):
            self._client.unsubscribe_topic(self._topic)
            for key in list(self.submitted):
                self.withdraw(key)

    def submit(self, shards: Sequence[int], workers: Collection[str], *, isolated: bool = False) -> None:
        """Submit shards to some workers in one message, which costs the scheduler more than a few more shards do."""
        keys = [self._new_key(shard, isolated) for shard in shards]
        futures = self._client.map(
            run_on_worker,
            shards,
            [self._topic] * len(shards),
            [pickle.dumps((self._job.part(shard), self._shard_function)) for shard in shards],
            key=keys,
            resources=dict(self._resources) or None,
            workers=list(workers),
        )
        for key, shard, future in zip(keys, shards, futures, strict=True):
            self.submitted[key] = Submission(shard, future, workers, isolated)
            future.add_done_callback(lambda done: self._events.put(_FutureDone(str(done.key))))

    def _new_key(self, shard: int, isolated: bool) -> str:
        """Return the key for the next attempt at a shard; under the same key Dask might return the old result."""
        before = self._attempts[shard]
        self._attempts[shard] += 1
        suffix = (f"-{before}" if before else "") + ("-alone" if isolated else "")
        return f"advbn-shard-{self._name}-{shard:06d}{suffix}"

    def withdraw(self, key: str) -> Submission:
        """Give up a submission. It is not cancelled, as another client may need it, too."""
        self._without_result.discard(key)
        submission = self.submitted.pop(key)
        submission.future.release()
        return submission

    def withdraw_unassigned(self, usable: Collection[str]) -> list[Submission]:
        """Withdraw the shards whose workers are all dead: restarted workers have other addresses."""
        unassigned = [key for key, one in self.submitted.items() if not set(one.workers) & set(usable)]
        return [self.withdraw(key) for key in unassigned if not self.submitted[key].future.done()]

    def wake(self) -> None:
        """End the wait in `events`."""
        self._events.put(_WakeUp())

    def events(self, timeout: float) -> Iterator[ShardEvent]:
        """Wait for an event at most `timeout` seconds, and yield all that have arrived then."""
        arrived = []
        with suppress(Empty):
            arrived.append(self._events.get(timeout=timeout))
            while True:
                arrived.append(self._events.get_nowait())
        for event in arrived:
            match event:
                case Progress():
                    yield event
                # Results may also come for shards that were withdrawn, or that another client submitted as well.
                case AttemptResult() if event.key in self.submitted:
                    self.withdraw(event.key)
                    yield event
                case _FutureDone() if event.key in self.submitted:
                    yield from self._on_done(event.key)

    def _on_done(self, key: str) -> Iterator[ShardEvent]:
        if self.submitted[key].future.status in {"error", "cancelled"}:
            yield from self._fetch(key)
        else:
            # The event with its result is on its way, or was sent before this client had subscribed.
            self._without_result.add(key)

    def late_results(self) -> Iterator[ShardEvent]:
        """Fetch the results whose event did not arrive.

        A result that was lost with its worker is computed again by Dask; its future is then no longer done.
        """
        for key in sorted(self._without_result):
            if self.submitted[key].future.done():
                yield from self._fetch(key)

    def _fetch(self, key: str) -> Iterator[ShardEvent]:
        shard, future, _, isolated = self.submitted[key]
        event: ShardEvent
        try:
            event = pickle.loads(future.result(timeout=_FETCH_TIMEOUT))  # noqa: S301 (as in `_decoded`)
        except KilledWorker:
            event = WorkersKilled(shard, isolated)
        except CancelledError:
            event = Cancelled(shard)
        except Exception as error:
            if isinstance(error, TimeoutError) and future.status != "error":
                # Its worker died or hangs; the result is fetched later.
                return
            # What the shard function raises comes back in a result; this worker could not even load what it was sent.
            event = NotStarted(shard, f"shard {shard}: {type(error).__name__}: {error}")
        self.withdraw(key)
        yield event


def _decoded(message: "tuple[int, int] | bytes") -> Progress | AttemptResult:
    if isinstance(message, bytes):
        result: AttemptResult = pickle.loads(message)  # noqa: S301 (from a worker, whose results Dask itself unpickles)
        return result
    return Progress(*message)
