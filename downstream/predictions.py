"""Models' predictions for every sample of data sets, in one HDF5 file that plain h5py reads.

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
from basics.hdf5 import damaged_hdf5, open_hdf5
from downstream.result_store import ComparisonKey, Row, images_changed, model_name

FORMAT = "advbn-gen predictions"
VERSION = 1

_TIMEOUT = 600.0
"""Seconds to wait for another program that has the file open, when results of long work are to be added."""

IDENTIFYING = ("data_fingerprint", "samples_sha256")
"""Fields of a data set that distinguish it from another of the same name."""
SAME_SAMPLES = ComparisonKey(
    group="data",
    fields=IDENTIFYING,
    described="on another data set called {}",
    replaced=True,
    advice="give another --out, or --overwrite to replace them",
)
"""All results on a data set are results on the same samples."""

ALL, PRESENT = "all", "present"
"""Label spaces: all outputs of the model, or only those of classes that occur in the data set."""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The most probable classes that one model predicts for each sample, in one label space."""

    classes_NK: NDArray[np.int32]
    """Class indices, most probable first."""
    probabilities_NK: NDArray[np.float32]
    """Their softmax probabilities within the label space."""

    def correct(self, label_N: NDArray[np.int32], k: int) -> NDArray[np.bool_]:
        """Return whether the true class is among the first `k` predicted ones (all of them, if fewer)."""
        found: NDArray[np.bool_] = (self.classes_NK[:, :k] == label_N[:, None]).any(1)
        return found


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One model on one data set."""

    row: Row
    """What was scored and how, with the accuracies (see `downstream.scoring`)."""
    predictions: dict[str, Predictions]
    """By label space; `present` is left out where it is the same as `all`."""


@dataclass(frozen=True, kw_only=True)
class DataColumns:
    """The samples of one data set."""

    metadata: dict[str, Any]
    """Name, address, fingerprint and class names of the data set."""
    keys: list[str]
    """Key of each sample."""
    label_N: NDArray[np.int32]
    """True class of each sample."""


@dataclass(frozen=True, kw_only=True)
class ScoredData:
    """One or more models on one data set: what one pass over its images gives."""

    data: DataColumns
    scored: Sequence[Scored]

    @property
    def rows(self) -> list[Row]:
        """The row of each model."""
        return [one.row for one in self.scored]

    @property
    def complete(self) -> bool:
        """Whether every sample has its predictions: a pass that was interrupted gives nothing."""
        return True


class PredictionFile:
    """Reads and adds to a predictions file, a layout of `downstream.result_store`."""

    sort_keys = True

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[Row]:
        """Return the row of every model on every data set, in alphabetical order.

        Raises:
            UserError: the file is damaged, or not of this program.
        """
        with self._opened() as file:
            try:
                return [json.loads(one.attrs["facts"]) for group in _groups(file, "scores") for one in group.values()]
            except (ValueError, KeyError, TypeError) as error:
                raise damaged_hdf5(self.path, error) from error

    def data(self, name: str) -> DataColumns:
        """Return the samples of a data set.

        Raises:
            KeyError: it is not in the file.
        """
        with self._opened() as file:
            group = file["data"][_encoded(name)]
            keys = [key.decode() for key in group["key"][()]]
            return DataColumns(metadata=json.loads(group.attrs["facts"]), keys=keys, label_N=group["label"][()])

    def scored(self, data: str, model: str) -> Scored:
        """Return the predictions on one data set that are kept under a model's name (see `model_name`).

        Raises:
            KeyError: they are not in the file.
        """
        with self._opened() as file:
            group = file["scores"][_encoded(data)][_encoded(model)]
            predictions = {
                space: Predictions(classes_NK=item["classes"][()], probabilities_NK=item["probabilities"][()])
                for space, item in group.items()
            }
            return Scored(row=json.loads(group.attrs["facts"]), predictions=predictions)

    def quality(self, data: str) -> dict[str, NDArray[np.float64]]:
        """Return the measures of a data set's samples against their originals; empty if there are none."""
        with self._opened() as file:
            group = file.get(f"quality/{_encoded(data)}")
            return {} if group is None else {name: column[()] for name, column in group.items()}

    def quality_identity(self, data: str) -> dict[str, Any]:
        """Return what identifies the data sets that a data set's measures compare; empty if there are none."""
        with self._opened() as file:
            group = file.get(f"quality/{_encoded(data)}")
            return {} if group is None else dict(json.loads(group.attrs["facts"]))

    def write(self, results: ScoredData) -> None:
        """Add a data set with models' predictions; what had the same names is replaced.

        If the name stood for other samples before, everything about those is dropped, and of images that have changed
        since the predictions are.
        """
        data, name = results.data, _encoded(results.data.metadata["data"])
        with self._rewritten() as file:
            _drop_other_data(file, name, data.metadata)
            group = _fresh(file, f"data/{name}", data.metadata)
            group.create_dataset("key", data=np.array([key.encode() for key in data.keys]), compression="gzip")
            group.create_dataset("label", data=data.label_N, compression="gzip")
            for one in results.scored:
                _drop_other_images(file, name, one.row)
                group = _fresh(file, f"scores/{name}/{_encoded(model_name(one.row))}", one.row)
                for space, predictions in one.predictions.items():
                    inner = group.create_group(space)
                    for column, values in (
                        ("classes", predictions.classes_NK),
                        ("probabilities", predictions.probabilities_NK),
                    ):
                        inner.create_dataset(column, data=values, compression="gzip", shuffle=True)

    def add_quality(self, data: str, columns: Mapping[str, NDArray[np.float64]], identity: Mapping[str, Any]) -> None:
        """Add measures of a data set's samples; earlier ones are replaced.

        Args:
            data: name of the data set.
            columns: measure -> value of each sample.
            identity: what identifies the data sets that the measures compare.
        """
        with self._rewritten() as file:
            group = _fresh(file, f"quality/{_encoded(data)}", identity)
            for name, values in columns.items():
                group.create_dataset(name, data=values, compression="gzip", shuffle=True)

    @contextmanager
    def _opened(self, timeout: float = 0.0) -> Iterator[Any]:
        if not self.path.exists():
            with h5py.File.in_memory() as empty:
                yield empty
            return
        with open_hdf5(self.path, timeout) as file:
            if file.attrs.get("format") != FORMAT:
                raise UserError(f"The file {self.path} does not hold predictions of this program; give another --out.")
            if file.attrs["version"] > VERSION:
                raise UserError(f"The predictions {self.path} were written by a newer advbn-gen; update this one.")
            try:
                yield file
            except OSError as error:
                raise damaged_hdf5(self.path, error) from error

    @contextmanager
    def _rewritten(self) -> Iterator[Any]:
        """Yield a copy of the file, which replaces it if the block ends without an error."""
        # In memory first: HDF5 does not recover from a disk that fills up while it writes.
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
            with self._opened(_TIMEOUT) as before:
                for name in before:
                    before.copy(before[name], file, name)
            yield file
        write_bytes(self.path, buffer.getvalue())


def _groups(file: Any, name: str) -> Iterator[Any]:
    yield from file[name].values() if name in file else ()


def _drop_other_data(file: Any, name: str, metadata: Mapping[str, Any]) -> None:
    """Remove everything about other samples that had the name of a data set."""
    if f"data/{name}" not in file:
        return
    before = json.loads(file[f"data/{name}"].attrs["facts"])
    if any(before[field] != metadata[field] for field in IDENTIFYING):
        for part in ("scores", "quality"):
            if f"{part}/{name}" in file:
                del file[f"{part}/{name}"]


def _drop_other_images(file: Any, name: str, row: Row) -> None:
    """Remove all predictions for a data set's images before they changed."""
    models = file.get(f"scores/{name}", {})
    for model in list(models):
        if images_changed(json.loads(models[model].attrs["facts"]), row):
            del models[model]


def _fresh(file: Any, name: str, metadata: Mapping[str, Any]) -> Any:
    """Return a new group with metadata, in the attribute `facts`; an earlier group of the name is removed."""
    if name in file:
        del file[name]
    group = file.create_group(name)
    group.attrs["facts"] = json.dumps(metadata, sort_keys=True)
    return group


def _encoded(name: str) -> str:
    return quote(name, safe="=: ")
