"""What attacks left: a line for each (network, attack), and for each sample whether it was answered right.

results.jsonl   one line a network and attack
samples.h5      a data set of int8 for each of these, by the line's `pair`: 1 right, 0 wrong, -1 not attacked yet
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from basics.errors import UserError
from basics.files import atomic_path, require_writable_folder, write_text
from basics.ownership import hold

RESULTS = "results.jsonl"
SAMPLES = "samples.h5"
ATTACKS = "attacks"
"""Sub-folder of a run folder where results go if no other place is named."""
OPEN = -1
"""Stands for a sample that was not attacked yet."""

_READ = {"pair", "settings", "weights_sha256", "data_sha256", "n", "accuracy", "seconds", "cost"}
"""What is read of earlier lines."""

Right = NDArray[np.int8]
Row = dict[str, Any]


class Store:
    """A folder of results; each file is replaced as a whole or not at all.

    Raises:
        UserError: the folder cannot be written, or its files are damaged.
    """

    def __init__(self, folder: Path) -> None:
        require_writable_folder(folder)
        self.folder = folder
        self._samples: dict[str, Right] = {}
        try:
            self.rows = _rows(folder / RESULTS)
            if (folder / SAMPLES).exists():
                with h5py.File(folder / SAMPLES) as file:
                    self._samples = {pair: data[()] for pair, data in file.items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"The results in {folder} are damaged; move them away, or give another --out.") from error

    def right(self, pair: str, count: int) -> Right:
        """Return what is known of a pair's samples."""
        known = self._samples.get(pair)
        return np.full(count, OPEN, np.int8) if known is None or len(known) != count else known.copy()

    def keep(self, pair: str, right_N: Right) -> None:
        """Write what is known of a pair's samples."""
        self._samples[pair] = right_N.copy()
        with atomic_path(self.folder / SAMPLES) as temporary, h5py.File(temporary, "w") as file:
            for name in sorted(self._samples):
                file.create_dataset(name, data=self._samples[name], compression="gzip")

    def named_as(self, row: Mapping[str, Any]) -> Row | None:
        """Return the line that has the same network and attack by their names, if there is one."""
        return next((each for each in self.rows if _key(each) == _key(row)), None)

    def drop(self, model: str, attack: str) -> None:
        """Forget a line, if there is one."""
        kept = [each for each in self.rows if _key(each) != (model, attack)]
        if len(kept) < len(self.rows):
            self.rows = kept
            self._write()

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a line in place of the one that has the same names."""
        key = _key(row)
        self.rows = [each for each in self.rows if _key(each) != key] + [dict(row)]
        self._write()

    def _write(self) -> None:
        write_text(self.folder / RESULTS, "".join(json.dumps(each) + "\n" for each in self.rows))


@contextmanager
def held_store(folder: Path) -> Iterator[Store]:
    """Lend a folder of results that no other run writes to.

    Raises:
        UserError: another run does, or see `Store`.
    """
    with hold(folder):
        yield Store(folder)


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row["model"]), str(row["attack"])


def _rows(path: Path) -> list[Row]:
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        _key(row)
        missing = _READ - set(row)
        if missing or not isinstance(row["settings"], dict):
            raise ValueError("no line of results")
    return rows
