"""Results of attacks, a layout of `downstream.result_store`: a line for each (network, attack), and a value a sample.

results.jsonl   one line a network and attack
samples.h5      a data set of int8 for each of these, by the line's `pair`: 1 correct, 0 wrong, -1 not attacked yet;
                its attribute `data_content` is the state checksum of the images
clips/          a few attacked clips, see `abnn.kept_clips`; of images there are none
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from abnn.kept_clips import KeptClip, KeptClips, read_clips, write_clips
from basics.files import write_bytes
from basics.hdf5 import open_hdf5
from basics.progress import say
from downstream.result_store import CONTENT, RESULTS, ComparisonKey, Row, images_changed

RESULTS_FOLDER = "attacks"
"""Sub-folder of a run folder for results without `--out`."""
PLAIN_PASSES = 2.0
"""Cost of a training step without defence in passes N through a network, in which results state the cost of
training: one forward pass and one backward pass."""
NOT_ATTACKED = -1
"""Value of a sample that was not attacked yet."""
SAME_TEST = ComparisonKey(
    group="model",
    fields=("weights_sha256", "data_sha256", "n"),
    described="of {} with other weights or on other test images",
    replaced=False,
    advice="give another --out, or the same images",
)
"""All results of a network are results of the same weights on the same test images."""

_READ = {"pair", "settings", "weights_sha256", "data_sha256", "n", "accuracy", "seconds", "cost"}
"""Fields of earlier lines that are read."""

Correct = NDArray[np.int8]
"""For each sample 1 if it is classified correctly under an attack, 0 if not, NOT_ATTACKED if that is unknown."""


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """One network under one attack, as far as it was carried out."""

    row: Row
    """The line of results.jsonl, with `accuracy` and `seconds` if the result is complete."""
    correct_N: Correct
    """Value of each sample (see `Correct`)."""
    clips: KeptClips = field(default_factory=dict)
    """Clips that are kept for a report."""

    @property
    def rows(self) -> list[Row]:
        """The one line."""
        return [self.row]

    @property
    def complete(self) -> bool:
        """Whether every sample was attacked."""
        return not bool((self.correct_N == NOT_ATTACKED).any())


class AttackLayout:
    """Reads and adds to results.jsonl, samples.h5 and the kept clips.

    Args:
        path: `samples.h5` in the folder of the results.
    """

    sort_keys = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._samples: dict[str, Correct] = {}
        self._contents: dict[str, str] = {}

    def rows(self) -> list[Row]:
        """Return the lines of results.jsonl; the samples are read as well.

        Raises:
            OSError, ValueError, KeyError, TypeError: a file is damaged, or not of this program.
        """
        if self.path.exists():
            with open_hdf5(self.path) as file:
                self._samples = {pair: data[()] for pair, data in file.items()}
                self._contents = {pair: str(data.attrs.get(CONTENT, "")) for pair, data in file.items()}
        lines = self.path.parent / RESULTS
        if not lines.exists():
            return []
        rows: list[Row] = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
        for row in rows:
            if _READ - set(row) or not isinstance(row["settings"], dict):
                raise ValueError(f"a line of {RESULTS} is no result of an attack")
            if row["pair"] not in self._samples:
                raise ValueError(f"{self.path.name} has no samples of a line of {RESULTS}")
            if self._contents.get(row["pair"]):
                row[CONTENT] = self._contents[row["pair"]]
        return rows

    def correct(self, row: Mapping[str, object], count: int) -> Correct:
        """Return the values of a result's samples, which are stored by its `pair`: none, if the images have changed.

        Args:
            row: the result's row.
            count: how many samples it has.
        """
        pair = str(row["pair"])
        known = self._samples.get(pair)
        if known is not None and images_changed({CONTENT: self._contents.get(pair)}, row):
            if (known == NOT_ATTACKED).any():
                # Of complete results the store says so.
                say(f"{row['attack']} on {row['model']} was begun on other images, and begins anew.")
            return not_attacked(count)
        return not_attacked(count) if known is None or len(known) != count else known.copy()

    def clips(self, row: Row) -> dict[int, KeptClip]:
        """Return the clips that are kept of a result, or of its beginning."""
        return read_clips(self.path.parent, row)

    def write(self, results: AttackResult) -> None:
        """Write the values of a result's samples, and its clips."""
        if results.clips:
            # First: a sample that counts as attacked is not attacked again, so that its clip would be missing.
            write_clips(self.path.parent, results.row, results.clips)
        pair = results.row["pair"]
        self._samples[pair], self._contents[pair] = results.correct_N.copy(), results.row.get(CONTENT, "")
        # In memory first: HDF5 does not recover from a disk that fills up, and would lock a file.
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            for name in sorted(self._samples):
                data = file.create_dataset(name, data=self._samples[name], compression="gzip")
                if self._contents.get(name):
                    data.attrs[CONTENT] = self._contents[name]
        write_bytes(self.path, buffer.getvalue())


def not_attacked(count: int) -> Correct:
    """Return the values of samples of which none was attacked yet."""
    return np.full(count, NOT_ATTACKED, np.int8)
