"""The worker pool: which Dask workers are alive, dead, refused or in backoff, and which of them may get a shard."""

import math
import time
from collections.abc import Collection, Mapping
from typing import NamedTuple

_FIRST_BACKOFF, _MAX_BACKOFF = 10.0, 600.0
"""Seconds in which a worker that failed gets no shard, doubled with each failure in a row."""


class _Backoff(NamedTuple):
    until: float = -math.inf
    failures: int = 0


class WorkerPool:
    """The workers of a run, and what is known of each, by address.

    A worker that fails gets no shards for a while. If it is at fault, it would otherwise fail at one shard after the
    other, as it is always free for more while the healthy workers are busy. If it is not, because a store is down, all
    workers are in backoff in the end, and the shards do not use up their attempts in the meantime.
    """

    def __init__(self) -> None:
        self.slots: dict[str, int] = {}
        """How many shards each worker that may be used can make at a time, as of the last update."""
        self.refused: set[str] = set()
        """Workers that are alive, and may not be used."""
        self._failed: dict[int, list[str]] = {}
        """Workers that have failed at a shard, each as often as it did."""
        self._backoffs: dict[str, _Backoff] = {}
        """Of workers that have failed since they last made a shard."""

    def update(self, alive: Mapping[str, int], ready: Collection[str]) -> None:
        """Take over the scheduler's present list of workers.

        Args:
            alive: slots of every worker that the scheduler lists.
            ready: the workers that passed the probe.
        """
        self._declare_dead((self.slots.keys() | self.refused) - alive.keys())
        self.slots = {address: alive[address] for address in ready if address not in self.refused}

    def _declare_dead(self, addresses: Collection[str]) -> None:
        """Forget workers that the scheduler no longer lists.

        Dask removes a worker when its connection ends, or when it has sent no heartbeat for `worker-ttl`. A worker at
        the address of a refused one may be a new process, or repaired, and is probed again.
        """
        for address in addresses:
            self.slots.pop(address, None)
            self.refused.discard(address)

    def refuse(self, address: str) -> bool:
        """Give a worker no more shards; return whether that is new."""
        self.slots.pop(address, None)
        new = address not in self.refused
        self.refused.add(address)
        return new

    def record_success(self, address: str) -> None:
        """End the backoff of a worker that has made a shard."""
        self._backoffs.pop(address, None)

    def record_failure(self, address: str, shard: int) -> float:
        """Record that a worker has failed at a shard; return the seconds of the backoff that this starts, or 0."""
        self._failed.setdefault(shard, []).append(address)
        backoff, now = self._backoffs.get(address, _Backoff()), time.monotonic()
        if now < backoff.until:
            return 0
        seconds = min(_FIRST_BACKOFF * 2.0**backoff.failures, _MAX_BACKOFF)
        self._backoffs[address] = _Backoff(now + seconds, backoff.failures + 1)
        return seconds

    def failures(self, shard: int) -> int:
        """Return how often workers have failed at a shard."""
        return len(self._failed.get(shard, []))

    def available(self) -> dict[str, int]:
        """Return the slots of the workers that are not in backoff."""
        now = time.monotonic()
        in_backoff = {address for address, backoff in self._backoffs.items() if now <= backoff.until}
        return {address: slots for address, slots in self.slots.items() if address not in in_backoff}

    def candidates(self, shard: int) -> list[str]:
        """Return the available workers that have not failed at a shard, or all available ones if each has."""
        available = self.available()
        return [address for address in available if address not in self._failed.get(shard, [])] or list(available)
