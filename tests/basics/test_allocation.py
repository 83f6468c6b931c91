"""Freed memory stays with the process: a second use of it faults no pages in; the collector can be paused."""

import gc
import subprocess
import sys

import pytest

from basics.allocation import without_collector

PROGRAM = """
import resource, sys
import torch
from basics.allocation import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def fill_often() -> int:
    before = faults()
    for _ in range(20):
        image = torch.empty(2**24)
        image.fill_(1.0)
        del image
    return faults() - before


fill_often()
print(fill_often())
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="page faults are counted on Linux")
def test_freed_memory_is_used_again() -> None:
    found = {
        way: int(
            subprocess.run([sys.executable, "-c", PROGRAM, way], capture_output=True, text=True, check=True).stdout
        )
        for way in ("keep", "default")
    }
    assert found["keep"] * 2 < found["default"], found


def test_collector_is_paused_and_goes_on() -> None:
    """It is switched on again after an error, too, and stays off if the caller had switched it off."""
    with pytest.raises(KeyError):
        _fail_without_collector()
    assert gc.isenabled()
    gc.disable()
    try:
        with without_collector():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@without_collector()
def _fail_without_collector() -> None:
    assert not gc.isenabled()
    raise KeyError
