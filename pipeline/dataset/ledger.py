"""The perturbation ledger: what was done to every batch, without any image. HDF5, readable by plain h5py.

It holds everything that is needed to make the data set again from the originals and the autoencoder. Each column is
described in its attributes (`_COLUMNS`). docs/ledger.md describes the format and its uses.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from basics.errors import UserError, WorkError
from basics.files import write_bytes
from basics.paths import AnyPath
from basics.reading import read_bytes
from pipeline.dataset.layout import LEDGER
from pipeline.dataset.shard_file import SampleMetadata

FORMAT = "advbn-gen perturbation ledger"
VERSION = 2
"""Version of the format. 2 added each sample's losses and pixel mean; 1 had only the mean losses of the batches."""
RENDERABLE = 2
"""The first version that holds everything needed to make the data set again."""
SAMPLES = "samples"

_PER_NAT = 10**6
"""Losses of samples are stored as whole millionths: exactly as in their `.json`, in half the bytes of floats."""
_MOST_NATS = 2**53 // _PER_NAT
"""Largest loss whose millionths a float64 counts exactly."""


class _Column(NamedTuple):
    """Description of a column; axes of the same name have the same length in all columns."""

    content: str
    axes: tuple[str, ...]
    unit: str = ""
    kind: str = "i"
    """Kind of numpy's dtype: i, u, f or S."""
    since: int = 1
    """First version of the format with this column."""


_BATCHES, _SAMPLES = ("batches",), ("samples",)
# The descriptions are stored in every ledger: another wording would change its bytes.
_COLUMNS = {
    "delta_mean": _Column("multiplier of each feature channel's mean", ("batches", "channels"), "1", "f"),
    "delta_std": _Column("multiplier of each feature channel's standard deviation", ("batches", "channels"), "1", "f"),
    "loss": _Column(
        "cross-entropy of the true label, mean over the batch, before the first ascent step and after each one",
        ("batches", "steps + 1"),
        "nat",
        "f",
    ),
    "batch_size": _Column("images whose feature statistics were perturbed together", _BATCHES, "images"),
    "samples/key": _Column("name of the sample in the shards", _SAMPLES, kind="S"),
    "samples/source": _Column("name of the original in its source, class folder first", _SAMPLES, kind="S"),
    "samples/source_sha256": _Column("SHA-256 of the original file, as 32 raw bytes", ("samples", "32"), kind="u"),
    "samples/label": _Column("true class index", _SAMPLES),
    "samples/clean_prediction": _Column("the attacked classifier's answer to the original", _SAMPLES),
    "samples/reconstructed_prediction": _Column("... to the reconstruction without perturbation", _SAMPLES),
    "samples/adversarial_prediction": _Column(
        "... to the perturbed image before it was rounded to 8 bit; -1 if it was not asked", _SAMPLES
    ),
    "samples/losses": _Column(
        "cross-entropy of the true label before the first ascent step and after each one",
        ("samples", "steps + 1"),
        "millionths of a nat",
        since=2,
    ),
    "samples/pixel_mean": _Column(
        "mean of all values of the perturbed 8-bit image", _SAMPLES, "grey levels, 0 to 255", "f", since=2
    ),
}

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Ledger:
    """A ledger in memory."""

    columns: Columns
    """Columns by their path in the file."""
    attributes: dict[str, Any]
    """Attributes of the file, decoded from JSON: `name`, `fingerprint`, `identity` and `classes`."""
    version: int = VERSION
    """Version of the format."""

    @property
    def batches(self) -> int:
        """Number of batches."""
        return len(self.columns["batch_size"])

    @property
    def keys(self) -> list[str]:
        """Sample keys in order."""
        return [key.decode() for key in self.columns[f"{SAMPLES}/key"]]


@dataclass(frozen=True, kw_only=True)
class BatchRow:
    """What the ledger stores of a batch beside the metadata of its samples."""

    delta_mean_C: NDArray[np.float64]
    """Multiplier of each feature channel's mean."""
    delta_std_C: NDArray[np.float64]
    """Multiplier of each feature channel's standard deviation."""
    pixel_mean_N: NDArray[np.float32]
    """Mean of all values of each perturbed 8-bit image, see `pixel_means`."""


class LedgerRows:
    """Collects the rows of one shard."""

    def __init__(self) -> None:
        self._batches: dict[str, list[NDArray[Any]]] = {}
        self._samples: list[SampleMetadata] = []
        self._pixel_means: list[NDArray[np.float32]] = []

    def add(self, batch: BatchRow, samples: Sequence[SampleMetadata]) -> None:
        """Append one batch with its samples.

        Raises:
            WorkError: a loss is too large for the ledger.
        """
        losses = np.array([sample.losses for sample in samples])
        if losses.max() > _MOST_NATS:
            raise WorkError(f"a loss is {losses.max():.3g}, which no ledger can hold; check the classifier's weights.")
        row = {
            "delta_mean": batch.delta_mean_C,
            "delta_std": batch.delta_std_C,
            # The mean of the rounded losses in the samples' .json, so that it can be recomputed from the samples.
            "loss": losses.mean(0),
            "batch_size": np.int32(len(samples)),
        }
        for name, value in row.items():
            self._batches.setdefault(name, []).append(np.asarray(value))
        self._samples += samples
        self._pixel_means.append(batch.pixel_mean_N)

    def columns(self) -> Columns:
        """Return the rows as arrays."""
        rows: Columns = {name: np.stack(values) for name, values in self._batches.items()}
        samples = {
            "key": np.array([sample.key.encode() for sample in self._samples]),
            "source": np.array([sample.source.encode() for sample in self._samples]),
            "source_sha256": np.array(
                [list(bytes.fromhex(sample.source_sha256)) for sample in self._samples], np.uint8
            ),
            "losses": np.rint(np.array([sample.losses for sample in self._samples]) * _PER_NAT).astype(np.int64),
            "pixel_mean": np.concatenate(self._pixel_means),
        }
        for name in ("label", "clean_prediction", "reconstructed_prediction", "adversarial_prediction"):
            samples[name] = np.array([getattr(sample, name) for sample in self._samples], np.int32)
        return rows | {f"{SAMPLES}/{name}": column for name, column in samples.items()}


def pixel_means(image_N3HW: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the mean of all values of each 8-bit image (N)."""
    # Integers are summed, so that the mean does not depend on the order of summation or on the machine.
    sums = image_N3HW.sum(axis=(1, 2, 3), dtype=np.int64)
    means: NDArray[np.float32] = (sums / image_N3HW[0].size).astype(np.float32)
    return means


def losses_in_nats(columns: Columns) -> NDArray[np.float64]:
    """Return each sample's losses (samples, steps + 1) as in its `.json`, in nats."""
    nats: NDArray[np.float64] = columns[f"{SAMPLES}/losses"] / _PER_NAT
    return nats


def write_ledger(path: AnyPath, columns: Columns, attributes: Mapping[str, Any]) -> None:
    """Write a ledger atomically; equal content gives equal bytes."""
    # In memory first, because HDF5 does not recover from a disk that fills up while it writes.
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=("v110", "v110")) as file:
        file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
        for name in sorted(attributes):
            file.attrs[name] = json.dumps(attributes[name], sort_keys=True)
        for name in sorted(columns):
            column = columns[name]
            chunk = (min(len(column), 1024), *column.shape[1:])
            dataset = file.create_dataset(name, data=column, chunks=chunk, compression="gzip", shuffle=True)
            dataset.attrs["description"] = f"{_COLUMNS[name].content}: ({', '.join(_COLUMNS[name].axes)})"
            dataset.attrs["unit"] = _COLUMNS[name].unit
            # Without a flush, HDF5 orders the chunks by when its cache happens to evict them.
            file.flush()
    write_bytes(path, buffer.getvalue())


def read_ledger(path: AnyPath) -> Ledger:
    """Read a ledger, or one shard's part of it.

    Raises:
        UserError: it is missing, cannot be read, is truncated or damaged, is not a ledger, is of a newer version, or
            its columns do not fit together.
    """
    try:
        return load_ledger(path)
    except FileNotFoundError as error:
        raise UserError(f"The ledger {path} is missing; check the path.") from error
    except OSError as error:
        raise UserError(f"The ledger {path} cannot be read ({error.strerror or error}); check it.") from error


def load_ledger(path: AnyPath) -> Ledger:
    """Read a ledger as `read_ledger` does, but distinguish one that cannot be read from a damaged one.

    Raises:
        OSError: it is missing or cannot be read.
        UserError: it is truncated or damaged, is not a ledger, is of a newer version, or its columns do not fit
            together.
    """
    content = read_bytes(path)
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            stored = dict(file.attrs)
            columns: Columns = {}
            file.visititems(lambda name, item: _collect(columns, name, item))
    except (OSError, RuntimeError, KeyError) as error:
        raise damaged_ledger(path, str(error)) from error
    if stored.pop("format", None) != FORMAT:
        raise UserError(f"The file {path} is not a perturbation ledger of this program; give a {LEDGER}.")
    try:
        version = int(stored.pop("version"))
        attributes = {name: json.loads(value) for name, value in stored.items()} if version <= VERSION else {}
    except (KeyError, TypeError, ValueError) as error:
        raise damaged_ledger(path, f"an attribute cannot be read, {error}") from error
    if version > VERSION:
        raise UserError(
            f"The ledger {path} has the format version {version} of a newer advbn-gen, and this one knows up to "
            f"{VERSION}; update it."
        )
    fault = _fault(columns, version)
    if fault or not isinstance(attributes.get("identity", {}), dict):
        raise damaged_ledger(path, fault or "its identity is not an object")
    return Ledger(columns, attributes, version)


def damaged_ledger(path: AnyPath, fault: str) -> UserError:
    """Return the error for a ledger whose parts do not fit together."""
    return UserError(
        f"The ledger {path} is damaged ({fault}); fetch it again, or mend its data set with "
        "`advbn-gen verify --repair`."
    )


def _fault(columns: Columns, version: int) -> str:
    """Return what is wrong with the columns of a ledger; empty if nothing is."""
    # Length of each axis, from the first column that has it; "32" is the length itself.
    lengths = {"32": 32}
    for name, expected in _COLUMNS.items():
        if expected.since > version:
            continue
        if name not in columns:
            return f"it has no {name}"
        column = columns[name]
        if column.ndim != len(expected.axes) or any(
            lengths.setdefault(axis, length) != length for axis, length in zip(expected.axes, column.shape, strict=True)
        ):
            return f"{name} is not ({', '.join(expected.axes)})"
        if not _is_of_kind(column, expected.kind):
            return f"{name} holds other values than it should"
    if columns["batch_size"].sum() != lengths["samples"]:
        return "its batches are not its samples"
    return ""


def _is_of_kind(column: NDArray[Any], kind: str) -> bool:
    """Whether a column has the dtype of its kind, and holds finite numbers or valid UTF-8."""
    if column.dtype.kind != kind:
        return False
    if kind == "S":
        try:
            b" ".join(column).decode()
        except UnicodeDecodeError:
            return False
    return bool(kind == "S" or np.isfinite(column).all())


def _collect(columns: Columns, name: str, item: Any) -> None:
    if isinstance(item, h5py.Dataset):
        columns[name] = item[()]


def rows_of(columns: Columns, batches: slice, samples: slice) -> Columns:
    """Return the rows of some successive batches and of their samples."""
    return {name: column[samples if name.startswith(SAMPLES) else batches] for name, column in columns.items()}


def join_columns(parts: Sequence[Columns]) -> Columns:
    """Concatenate the columns of successive shards."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
