"""Two ways to do the same work, timed alternately in one process, so that the ratio holds where the speed drifts."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch


class Round(NamedTuple):
    """Seconds of both in one round."""

    plain: float
    """Of the plain loop."""
    ours: float
    """Of this program."""

    @property
    def ratio(self) -> float:
        """Time of the plain loop relative to ours: above 1, ours is faster."""
        return self.plain / self.ours


def synchronise(device: str) -> None:
    """Wait until a device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], device: str) -> float:
    """Return how long some work takes on a device."""
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


def timed_round(number: int, plain: Callable[[], float], ours: Callable[[], float]) -> Round:
    """Time both once; each is first as often as the other, because what comes second finds the files in memory."""
    if number % 2:
        own = ours()
        return Round(plain(), own)
    return Round(plain(), ours())


def summary(rounds: Sequence[Round]) -> str:
    """Return the ratio in the median of the rounds, and of the best times: other work only ever adds time."""
    median = statistics.median(each.ratio for each in rounds)
    best = min(each.plain for each in rounds) / min(each.ours for each in rounds)
    return f"median ratio {median:.3f}, {best:.3f} of the best times"
