"""What models answered to every sample of every data set, in one HDF5 file that plain h5py reads.

`data/<data>`: `key`, `label`; attribute `facts` (JSON). `scores/<data>/<model>`: attribute `facts`; under `all`, and
under `present` where the data set does not have all of the model's classes: `classes` (samples, k) and
`probabilities` (samples, k), best first. `quality/<data>`: one column a measure. Names are percent-encoded.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import h5py
import numpy as np
from numpy.typing import NDArray

from basics.errors import UserError
from basics.files import write_bytes

FORMAT = "advbn-gen predictions"
VERSION = 1
PREDICTIONS = "predictions.h5"

IDENTIFYING = ("data_fingerprint", "samples_sha256")
"""Facts of a data set that tell it from another of the same name."""

ALL, PRESENT = "all", "present"
"""Label spaces: all outputs of the model, or only those of classes that occur in the data set."""


Pairs = dict[tuple[str, str], dict[str, Any]]
"""(data, name that answers are kept under) -> facts of what was scored."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The best answers of one model to each sample, in one label space."""

    classes_NK: NDArray[np.int32]
    """Class indices, best first."""
    probabilities_NK: NDArray[np.float32]
    """Their softmax probabilities within the label space."""

    def right(self, label_N: NDArray[np.int32], k: int) -> NDArray[np.bool_]:
        """Return whether the true class is among the best `k` answers (all that there are, if fewer)."""
        found: NDArray[np.bool_] = (self.classes_NK[:, :k] == label_N[:, None]).any(1)
        return found


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One model on one data set."""

    facts: dict[str, Any]
    """What was scored and how (see `downstream.scoring`)."""
    answers: dict[str, Answers]
    """By label space; `present` is left out where it is the same as `all`."""


@dataclass(frozen=True, kw_only=True)
class DataColumns:
    """The samples of one data set."""

    facts: dict[str, Any]
    keys: list[str]
    label_N: NDArray[np.int32]


def scored_name(facts: Mapping[str, Any]) -> str:
    """Return the name under which answers are kept: the model's, with the batch-norm set where it has two."""
    which = facts.get("batch_norm")
    name = str(facts["model"])
    return name if which is None else f"{name} ({which} batch norm)"


class PredictionFile:
    """Reads and adds to a predictions file; what is in it is replaced as a whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pairs(self) -> Pairs:
        """Return the facts of every (data, model) that was scored, in alphabetical order."""
        with self._opened() as file:
            found = {}
            for group in _groups(file, "scores"):
                for scored in group.values():
                    facts = json.loads(scored.attrs["facts"])
                    found[facts["data"], scored_name(facts)] = facts
        return found

    def data(self, name: str) -> DataColumns:
        """Return the samples of a data set.

        Raises:
            KeyError: it is not in the file.
        """
        with self._opened() as file:
            group = file["data"][_encoded(name)]
            keys = [key.decode() for key in group["key"][()]]
            return DataColumns(facts=json.loads(group.attrs["facts"]), keys=keys, label_N=group["label"][()])

    def data_facts(self) -> dict[str, dict[str, Any]]:
        """Return what is known of each data set, by its name."""
        with self._opened() as file:
            told = [json.loads(group.attrs["facts"]) for group in _groups(file, "data")]
            return {facts["data"]: facts for facts in told}

    def scored(self, data: str, model: str) -> Scored:
        """Return the answers on one data set that are kept under a model's name (see `scored_name`).

        Raises:
            KeyError: they are not in the file.
        """
        with self._opened() as file:
            group = file["scores"][_encoded(data)][_encoded(model)]
            answers = {
                space: Answers(classes_NK=item["classes"][()], probabilities_NK=item["probabilities"][()])
                for space, item in group.items()
            }
            return Scored(facts=json.loads(group.attrs["facts"]), answers=answers)

    def quality(self, data: str) -> dict[str, NDArray[np.float64]]:
        """Return the measures of a data set's samples against their originals; empty if there are none."""
        with self._opened() as file:
            group = file.get(f"quality/{_encoded(data)}")
            return {} if group is None else {name: column[()] for name, column in group.items()}

    def quality_facts(self, data: str) -> dict[str, Any]:
        """Return what a data set's measures were taken of; empty if there are none."""
        with self._opened() as file:
            group = file.get(f"quality/{_encoded(data)}")
            return {} if group is None else dict(json.loads(group.attrs["facts"]))

    def add(self, data: DataColumns, scored: Sequence[Scored]) -> None:
        """Add a data set with models' answers to it; what had the same names is replaced.

        If the name stood for other samples before, all that was known of those is dropped.
        """
        name = _encoded(data.facts["data"])
        with self._rewritten() as file:
            _forget_other_data(file, name, data.facts)
            group = _fresh(file, f"data/{name}", data.facts)
            group.create_dataset("key", data=np.array([key.encode() for key in data.keys]), compression="gzip")
            group.create_dataset("label", data=data.label_N, compression="gzip")
            for one in scored:
                group = _fresh(file, f"scores/{name}/{_encoded(scored_name(one.facts))}", one.facts)
                for space, answers in one.answers.items():
                    inner = group.create_group(space)
                    for column, values in (
                        ("classes", answers.classes_NK),
                        ("probabilities", answers.probabilities_NK),
                    ):
                        inner.create_dataset(column, data=values, compression="gzip", shuffle=True)

    def add_quality(self, data: str, columns: Mapping[str, NDArray[np.float64]], facts: Mapping[str, Any]) -> None:
        """Add measures of a data set's samples; earlier ones are replaced."""
        with self._rewritten() as file:
            group = _fresh(file, f"quality/{_encoded(data)}", facts)
            for name, values in columns.items():
                group.create_dataset(name, data=values, compression="gzip", shuffle=True)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        if not self.path.exists():
            with h5py.File.in_memory() as empty:
                yield empty
            return
        try:
            file = h5py.File(self.path, "r")
        except OSError as error:
            raise UserError(
                f"The predictions {self.path} are damaged or no HDF5 ({error}); move the file away."
            ) from error
        with file:
            if file.attrs.get("format") != FORMAT:
                raise UserError(f"The file {self.path} does not hold predictions of this program; give another --out.")
            if file.attrs["version"] > VERSION:
                raise UserError(f"The predictions {self.path} were written by a newer advbn-gen; update this one.")
            yield file

    @contextmanager
    def _rewritten(self) -> Iterator[Any]:
        """Lend a copy of the file, which takes its place if the block ends well."""
        # In memory first: HDF5 does not get over a disk that fills up while it writes.
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
            with self._opened() as before:
                for name in before:
                    before.copy(before[name], file, name)
            yield file
        write_bytes(self.path, buffer.getvalue())


def _groups(file: Any, name: str) -> Iterator[Any]:
    yield from file[name].values() if name in file else ()


def _forget_other_data(file: Any, name: str, facts: Mapping[str, Any]) -> None:
    if f"data/{name}" not in file:
        return
    before = json.loads(file[f"data/{name}"].attrs["facts"])
    if any(before[told] != facts[told] for told in IDENTIFYING):
        for room in ("scores", "quality"):
            if f"{room}/{name}" in file:
                del file[f"{room}/{name}"]


def _fresh(file: Any, name: str, facts: Mapping[str, Any]) -> Any:
    if name in file:
        del file[name]
    group = file.create_group(name)
    group.attrs["facts"] = json.dumps(facts, sort_keys=True)
    return group


def _encoded(name: str) -> str:
    return quote(name, safe="=: ")
