"""Which workers there are, and which of them may be given a shard."""

import math
import time
from collections.abc import Mapping
from typing import NamedTuple

_REST, _LONGEST_REST = 10.0, 600.0
"""Seconds in which a worker that failed is given no shard, doubled with each time, if there are others."""


class _Rest(NamedTuple):
    until: float = -math.inf
    times: int = 0


class Roster:
    """The workers of a run, and what is known of them.

    A worker that fails is given a rest: it may be the one to blame, and would otherwise fail at one shard after the
    other, as it is always free for more while the healthy ones are busy.
    """

    def __init__(self) -> None:
        self.usable: dict[str, int] = {}
        """How many shards each worker that is not refused can work on at a time, when it was looked last."""
        self.refused: set[str] = set()
        self._failed: dict[int, list[str]] = {}
        """Workers that have failed at a shard, each as often as it did."""
        self._rests: dict[str, _Rest] = {}
        """Of workers that have failed since they last made a shard."""

    def update(self, able: Mapping[str, int]) -> None:
        """Take note of which workers there are, with how many shards each can work on at a time."""
        self.usable = {address: places for address, places in able.items() if address not in self.refused}

    def refuse(self, address: str) -> None:
        """Give a worker no more shards."""
        self.refused.add(address)
        self.usable.pop(address, None)

    def made(self, address: str) -> None:
        """Take note that a worker has made a shard."""
        self._rests.pop(address, None)

    def failed(self, address: str, shard: int) -> bool:
        """Take note that a worker has failed at a shard; return whether that begins a rest."""
        self._failed.setdefault(shard, []).append(address)
        rest, now = self._rests.get(address, _Rest()), time.monotonic()
        if now < rest.until:
            return False
        self._rests[address] = _Rest(now + min(_REST * 2**rest.times, _LONGEST_REST), rest.times + 1)
        return True

    def failures(self, shard: int) -> int:
        """Return how often workers have failed at a shard."""
        return len(self._failed.get(shard, []))

    def places(self) -> int:
        """Return how many shards can be in work at a time, on workers that do not rest."""
        return sum(self.usable[address] for address in self.allowed() or self.usable)

    def allowed(self, shard: int | None = None) -> list[str] | None:
        """Return the workers that may have a shard, None: all may.

        Others than have failed at it and than rest, as far as there are any.
        """
        avoided = self._failed.get(shard, []) if shard is not None else []
        others = [address for address in self.usable if address not in avoided]
        now = time.monotonic()
        fit = [address for address in others if self._rests.get(address, _Rest()).until < now]
        allowed = fit or others or list(self.usable)
        return allowed if self.refused or len(allowed) < len(self.usable) else None
