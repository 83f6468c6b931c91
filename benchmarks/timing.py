"""Two ways to do the same work, timed alternately in one process, so that the ratio holds where the speed drifts."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from basics.compute import Compute


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


@torch.no_grad()
def matrix_rate(compute: Compute, size: int, rounds: int = 5, products: int = 4) -> float:
    """Return the operations a second of products of square matrices in a precision, the best of several rounds."""
    dtype = torch.bfloat16 if compute.precision == "bf16" else torch.float32
    left, right = (torch.randn(size, size, device=compute.device, dtype=dtype) for _ in range(2))

    def multiply() -> None:
        for _ in range(products):
            torch.mm(left, right)

    with compute.kernels():
        multiply()
        best = min(seconds_of(multiply, str(compute.device)) for _ in range(rounds))
    return 2 * size**3 * products / best
