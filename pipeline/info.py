"""Describing a data set, a file of weights or a ledger in a few named values."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from basics.errors import UserError
from basics.paths import AnyPath, is_remote
from networks.checkpoints import read_safetensors
from networks.weight_files import AUTOENCODER_FILE, CLASSIFIER_FILE, MAIN_FILE, MODEL_FILE
from pipeline.dataset.ledger import SAMPLES, read_ledger
from pipeline.dataset.manifest import read_manifest
from pipeline.dataset.shard_file import NO_PREDICTION


def describe(path: AnyPath) -> dict[str, Any]:
    """Return what a data-set folder, a safetensors file of this program or a ledger is, and how it was made.

    Raises:
        UserError: it is none of these.
    """
    if is_remote(path):
        # Trainings only write to local folders.
        return _ledger(path) if path.suffix == ".h5" else _dataset(path)
    if path.is_dir():
        weights = [path / name for name in _FILES_OF_TRAININGS if (path / name).is_file()]
        return _weights(weights[0]) if weights else _dataset(path)
    if path.suffix == ".safetensors":
        return _weights(path)
    if path.suffix == ".h5":
        return _ledger(path)
    raise UserError(f"{path} cannot be described; give a data-set folder, a .safetensors file or a ledger (.h5).")


_FILES_OF_TRAININGS = (MAIN_FILE, CLASSIFIER_FILE, AUTOENCODER_FILE, MODEL_FILE)
"""Files by which the run folder of a training is recognised; a data set has none of them."""


def _dataset(path: AnyPath) -> dict[str, Any]:
    values = read_manifest(path).values
    shown = (
        "name",
        "perturbed",
        "complete",
        "samples",
        "batches",
        "source",
        "fingerprint",
        "top1",
        "identity",
    )
    return {
        "kind": "data set",
        **{name: values[name] for name in shown},
        "shards": len(values["shards"]),
        "bytes": sum(shard["bytes"] for shard in values["shards"]),
    }


def _weights(path: Path) -> dict[str, Any]:
    state, metadata = read_safetensors(path)
    try:
        values = {name: json.loads(value) for name, value in metadata.items()}
    except ValueError as error:
        raise UserError(f"The file {path} was not written by this program.") from error
    if "format" not in values:
        raise UserError(f"The file {path} was not written by this program.")
    return {
        "kind": values.pop("format"),
        "parameters": sum(value.numel() for value in state.values()),
        **values,
    }


def _ledger(path: AnyPath) -> dict[str, Any]:
    ledger = read_ledger(path)
    columns = ledger.columns
    predictions = {name: columns[f"{SAMPLES}/{name}_prediction"] for name in ("clean", "reconstructed", "adversarial")}
    top1 = {
        name: float(np.mean(prediction_N == columns[f"{SAMPLES}/label"]))
        for name, prediction_N in predictions.items()
        if NO_PREDICTION not in prediction_N
    }
    return {
        "kind": "perturbation ledger",
        "samples": len(ledger.keys),
        "batches": ledger.batches,
        "channels": columns["delta_mean"].shape[1],
        "format_version": ledger.version,
        "scale": ledger.attributes.get("identity", {}).get("scale", 1.0),
        "losses_per_sample": columns["loss"].shape[1],
        "mean_shift": {name: round(float(np.abs(columns[name] - 1).mean()), 4) for name in ("delta_mean", "delta_std")},
        "mean_loss_by_step": [round(float(loss), 4) for loss in columns["loss"].mean(0)],
        "top1": top1,
        **ledger.attributes,
    }
