"""What is said where memory is full."""

import pytest
import torch

from basics.errors import WorkError
from basics.memory import enough_memory, is_out_of_memory


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
