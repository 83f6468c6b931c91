"""How much memory a process took, and what is said where there is no more."""

import sys
from pathlib import Path

import pytest
import torch

from basics.errors import WorkError
from basics.memory import enough_memory, is_out_of_memory, peak_memory


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"), "CUDA out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried\nmore"), "can't allocate memory"),
        (MemoryError(), "out of memory"),
    ],
)
def test_full_memory_is_a_sentence(error: BaseException, reason: str) -> None:
    assert is_out_of_memory(error)
    with (
        pytest.raises(WorkError, match=rf"^There is too little memory \(.*{reason}.*\); take less\.$"),
        enough_memory("take less"),
    ):
        raise error


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("allocate memory")])
def test_other_errors_are_as_they_were(error: Exception) -> None:
    assert not is_out_of_memory(error)
    with pytest.raises(type(error), match=str(error)), enough_memory("take less"):
        raise error


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's own value")
def test_the_peak_is_in_bytes() -> None:
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (kibibytes,) = (int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    # The system counts a process's pages in two places, which do not always agree to the page.
    assert 0.9 < peak_memory() / (1024 * kibibytes) < 10
