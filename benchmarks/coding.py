"""How many images a second the CPU decodes and encodes: by one thread, by several, and by processes.

Imports no network, so that a process that only codes starts quickly.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.shard_file import encode_png
from sources.decode import load_image

Work = Callable[[Path], int]
"""Decodes or encodes the image of a file; returns the size of the result."""
_ENCODED = 4
"""Different pictures that are encoded; each process has to decode each of them once."""
_EACH = 8
"""Pieces of work for each worker that are given at a time, so that few wait for the end of the others."""


def decode(path: Path, image_size: int) -> int:
    """Read and decode a file as the main job does; return the number of values."""
    return load_image(path.read_bytes(), path.name, image_size).numel()


def encode(path: Path, image_size: int) -> int:
    """Encode a file's pixels as PNG as the main job does; return the number of bytes."""
    return len(encode_png(_pixels(path, image_size)))


@lru_cache(_ENCODED)
def _pixels(path: Path, image_size: int) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = load_image(path.read_bytes(), path.name, image_size).numpy()
    return pixels


def coding_rates(paths: Sequence[Path], image_size: int, workers: int, seconds: float) -> dict[str, float]:
    """Return images a second: decoded and encoded by one thread, by `workers` threads and by `workers` processes.

    Args:
        paths: pictures that are coded in turn.
        image_size: side that they are decoded to.
        workers: how many threads and how many processes.
        seconds: about how long each of the six measurements takes.
    """
    pools: dict[str, tuple[Executor, int]] = {
        "one_thread": (ThreadPoolExecutor(1), 1),
        "threads": (ThreadPoolExecutor(workers), workers),
        # Not forked: a process that has used a GPU must not be.
        "processes": (ProcessPoolExecutor(workers, get_context("spawn")), workers),
    }
    works = {"decoded": (decode, paths), "encoded": (encode, paths[:_ENCODED])}
    rates = {}
    for pool_name, (pool, size) in pools.items():
        with pool:
            for name, (work, used) in works.items():
                rate = _rate(pool, partial(work, image_size=image_size), used, size * _EACH, seconds)
                rates[f"{name}_per_s_{pool_name}"] = rate
    return rates


def _rate(pool: Executor, work: Work, paths: Sequence[Path], count: int, seconds: float) -> float:
    """Return the pieces of work a second when the pool is given `count` at a time, for about so many seconds."""
    given = [paths[number % len(paths)] for number in range(count)]
    list(pool.map(work, given))  # The first use starts the workers, which is not measured.
    start, done = time.perf_counter(), 0
    while not done or time.perf_counter() - start < seconds:
        done += len(list(pool.map(work, given)))
    return done / (time.perf_counter() - start)
