"""The ledger: what was done to every batch, without any image. HDF5, readable by plain h5py.

Datasets: `delta_mean`, `delta_std` (batches, channels); `loss` (batches, steps + 1), the batch's mean cross-entropy
before the first and after each step; `batch_size` (batches); and under `samples/`, one row an image: `key`, `source`,
`label`, `source_sha256` (32 bytes), `clean_prediction`, `reconstructed_prediction`, `adversarial_prediction`.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from basics.errors import UserError
from basics.files import write_bytes
from basics.places import AnyPath
from basics.remote import faults_of
from pipeline.perturb import PerturbedBatch
from pipeline.shardfile import SampleFacts

FORMAT = "advbn-gen perturbation ledger"
VERSION = 1
SAMPLES = "samples"

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Ledger:
    """A ledger in memory: its columns by their path in the file."""

    columns: Columns
    attributes: dict[str, Any]

    @property
    def batches(self) -> int:
        """Number of batches."""
        return len(self.columns["batch_size"])

    @property
    def keys(self) -> list[str]:
        """Sample keys in order."""
        return [key.decode() for key in self.columns[f"{SAMPLES}/key"]]


class LedgerRows:
    """Collects the rows of one shard."""

    def __init__(self) -> None:
        self._batches: dict[str, list[NDArray[Any]]] = {}
        self._samples: list[SampleFacts] = []

    def add(self, batch: PerturbedBatch, samples: Sequence[SampleFacts]) -> None:
        """Append one batch with its samples; its images are let go."""
        row = {
            "delta_mean": batch.delta_mean_C.numpy(),
            "delta_std": batch.delta_std_C.numpy(),
            "loss": batch.losses_SN.mean(1).numpy(),
            "batch_size": np.int32(len(samples)),
        }
        for name, value in row.items():
            self._batches.setdefault(name, []).append(np.asarray(value))
        self._samples += samples

    def columns(self) -> Columns:
        """Return the rows as arrays."""
        rows: Columns = {name: np.stack(values) for name, values in self._batches.items()}
        samples = {
            "key": np.array([sample.key.encode() for sample in self._samples]),
            "source": np.array([sample.source.encode() for sample in self._samples]),
            "source_sha256": np.array(
                [list(bytes.fromhex(sample.source_sha256)) for sample in self._samples], np.uint8
            ),
        }
        for name in ("label", "clean_prediction", "reconstructed_prediction", "adversarial_prediction"):
            samples[name] = np.array([getattr(sample, name) for sample in self._samples], np.int32)
        return rows | {f"{SAMPLES}/{name}": column for name, column in samples.items()}


def write_ledger(path: AnyPath, columns: Columns, attributes: Mapping[str, Any]) -> None:
    """Write a ledger atomically; equal content gives equal bytes."""
    # In memory first: HDF5 does not get over a disk that fills up while it writes.
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=("v110", "v110")) as file:
        file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
        for name in sorted(attributes):
            file.attrs[name] = json.dumps(attributes[name], sort_keys=True)
        for name in sorted(columns):
            column = columns[name]
            chunk = (min(len(column), 1024), *column.shape[1:])
            file.create_dataset(name, data=column, chunks=chunk, compression="gzip", shuffle=True)
            # Or HDF5 places the chunks in the order in which its cache happens to give them up.
            file.flush()
    write_bytes(path, buffer.getvalue())


def read_ledger(path: AnyPath) -> Ledger:
    """Read a ledger, or one shard's part of it.

    Raises:
        UserError: it is missing, truncated or damaged, no ledger, or of a newer version.
    """
    try:
        with faults_of(path):
            content = path.read_bytes()
        with h5py.File(io.BytesIO(content), "r") as file:
            told = dict(file.attrs)
            columns: Columns = {}
            file.visititems(lambda name, item: _collect(columns, name, item))
    except (OSError, RuntimeError, KeyError) as error:
        raise UserError(f"The ledger {path} is missing or damaged ({error}).") from error
    if told.pop("format", None) != FORMAT:
        raise UserError(f"The file {path} is not a perturbation ledger of this program.")
    if told.pop("version") > VERSION:
        raise UserError(f"The ledger {path} was written by a newer advbn-gen; update this one.")
    return Ledger(columns, {name: json.loads(value) for name, value in told.items()})


def _collect(columns: Columns, name: str, item: Any) -> None:
    if isinstance(item, h5py.Dataset):
        columns[name] = item[()]


def join_columns(parts: Sequence[Columns]) -> Columns:
    """Put the parts of successive shards together."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
