"""Which workers there are, and which of them may be given a shard."""

import math
import time
from collections.abc import Mapping
from typing import NamedTuple

_REST, _LONGEST_REST = 10.0, 600.0
"""Seconds in which a worker that failed is given no shard, doubled with each time."""


class _Rest(NamedTuple):
    until: float = -math.inf
    times: int = 0


class Roster:
    """The workers of a run, and what is known of them.

    A worker that fails is given a rest. If it is to blame, it would otherwise fail at one shard after the other, as it
    is always free for more while the healthy ones are busy. If it is not, because a store is away, all rest in the
    end, and the shards are not used up in the meantime.
    """

    def __init__(self) -> None:
        self.usable: dict[str, int] = {}
        """How many shards each worker that may be used can work on at a time, when it was looked last."""
        self.refused: set[str] = set()
        """Workers that are there, and may not be used."""
        self._failed: dict[int, list[str]] = {}
        """Workers that have failed at a shard, each as often as it did."""
        self._rests: dict[str, _Rest] = {}
        """Of workers that have failed since they last made a shard."""

    def update(self, here: Mapping[str, int], ready: Mapping[str, int]) -> None:
        """Take note of which workers are here, and how many shards those can work on that are ready."""
        # One that comes back at the address of another may have been mended.
        self.refused &= here.keys()
        self.usable = {address: places for address, places in ready.items() if address not in self.refused}

    def refuse(self, address: str) -> bool:
        """Give a worker no more shards; return whether that is new."""
        self.usable.pop(address, None)
        new = address not in self.refused
        self.refused.add(address)
        return new

    def made(self, address: str) -> None:
        """Take note that a worker has made a shard."""
        self._rests.pop(address, None)

    def failed(self, address: str, shard: int) -> float:
        """Take note that a worker has failed at a shard; return the seconds of the rest that this begins, or 0."""
        self._failed.setdefault(shard, []).append(address)
        rest, now = self._rests.get(address, _Rest()), time.monotonic()
        if now < rest.until:
            return 0
        seconds = min(_REST * 2.0**rest.times, _LONGEST_REST)
        self._rests[address] = _Rest(now + seconds, rest.times + 1)
        return seconds

    def failures(self, shard: int) -> int:
        """Return how often workers have failed at a shard."""
        return len(self._failed.get(shard, []))

    def rested(self) -> dict[str, int]:
        """Return the workers that do not rest, and how many shards each can work on at a time."""
        now = time.monotonic()
        return {
            address: places for address, places in self.usable.items() if self._rests.get(address, _Rest()).until < now
        }

    def allowed(self, shard: int) -> list[str]:
        """Return the workers that may have a shard now: others than have failed at it, if there are any."""
        rested = self.rested()
        return [address for address in rested if address not in self._failed.get(shard, [])] or list(rested)
