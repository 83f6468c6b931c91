"""Pickled tables are read without running code; damaged ones are refused."""

import pickle
import random
from typing import Any

import numpy as np
import pytest

from sources.pickled import PickledArray, PickleFormatError, read_table


@pytest.mark.parametrize("protocol", range(5))
def test_tables_of_texts_numbers_lists_and_arrays_are_read(protocol: int) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(4, 6)
    value = {"name": "cats", b"labels": [1, 2], "raw": b"\x00\xff", "data": array}
    table = read_table(pickle.dumps(value, protocol))
    found = table.pop("data")
    assert isinstance(found, PickledArray)
    assert (found.shape, found.content) == ((4, 6), array.tobytes())
    assert table.pop("name") in {"cats", b"cats"}  # protocols 0 to 2 do not say which
    assert table == {"labels": [1, 2], "raw": b"\x00\xff"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (print, "asks for __builtin__.print to be run, which is never done"),
        ({"a": np.float64}, "asks for numpy.float64 to be run"),
        ([1, 2], "is damaged or no pickled table"),
        ({"data": np.asfortranarray(np.ones((3, 3), np.uint8))}, "not stored row by row"),
    ],
)
def test_other_names_and_other_values_are_refused(value: Any, message: str) -> None:
    with pytest.raises(PickleFormatError, match=message):
        read_table(pickle.dumps(value, 2))


def test_a_memo_index_beyond_the_length_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(PickleFormatError, match="is damaged"):
        read_table(b"\x80\x02}r\xff\xff\xff\x7f.")


def test_damaged_bytes_raise_nothing_else() -> None:
    content = pickle.dumps({"labels": list(range(9)), "data": np.zeros((2, 8), np.uint8)}, 2)
    dice = random.Random(0)
    refused = 0
    for _ in range(500):
        damaged = bytearray(content)
        damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        try:
            read_table(bytes(damaged[: dice.randrange(1, len(damaged) + 1)]))
        except PickleFormatError:
            refused += 1
    assert refused > 300
