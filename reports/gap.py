"""The reconstruction gap (Table 8): what accuracy the autoencoder costs, and what the perturbation costs beyond it.

Everything in this module is computed from recorded predictions; no network runs. Legend: N samples, S steps, B batches.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from downstream.gap import ROLES, GapInputs
from downstream.predictions import ALL, PRESENT, Scored
from experiments import PUBLISHED_ADVBN
from reports.intervals import Estimate, accuracy, gap
from reports.published_table_8 import STANDARD_TRAINING, TABLE_8_SAMPLES, GapRow, table_8_row

KIND = "reconstruction gap"
"""What `report.json` calls this kind of report."""
GAPS = {"autoencoder": ("original", "reconstructed"), "perturbation": ("reconstructed", "advbn")}
"""Name of a gap -> between which data sets. The first is what the autoencoder costs, the second what AdvBN costs."""
QUANTILES = (0.1, 0.5, 0.9)
DELTA_BINS = 44
TOP_KS = (1, 5)


def gap_report(inputs: GapInputs) -> dict[str, Any]:
    """Return the whole report as JSON values.

    They are `rows`, `curve`, `gaps`, `classes`, `quality`, `ascent` and `provenance`. The curve is empty without data
    sets of other scales. There are `notes` only where a reader has to know something of the images.
    """
    return {
        "report": KIND,
        "n": len(inputs.keys),
        **({"notes": list(inputs.notes)} if inputs.notes else {}),
        "encoder": inputs.manifests["advbn"]["config"]["encoder"],
        "rows": [_row(inputs, model, role) for model in inputs.models for role in ROLES],
        "curve": _curve(inputs),
        "gaps": [_gaps(inputs, model) for model in inputs.models],
        "classes": _classes(inputs),
        "quality": {name: _summary(values) for name, values in inputs.quality.items()},
        "ascent": _ascent(inputs.ledger),
        "provenance": {role: dict(inputs.manifests[role]) for role in ROLES if role in inputs.manifests},
    }


def _row(inputs: GapInputs, model: str, role: str) -> dict[str, Any]:
    scored = inputs.scored[role, model]
    return {
        "model": model,
        "data": role,
        "attacked": is_attacked(inputs, model),
        "n": len(inputs.keys),
        **_accuracies(inputs, scored, ALL),
        **({"present": _present(inputs, scored)} if PRESENT in scored.predictions else {}),
        "published": _published_values(inputs, model, role),
        **{name: scored.row[name] for name in _PROVENANCE},
        # They are left out where they are ImageNet's.
        **({"colours": scored.row["colours"]} if "colours" in scored.row else {}),
    }


def _curve(inputs: GapInputs) -> list[dict[str, Any]]:
    """Return accuracies by the scale of the perturbation: 0 are the reconstructions, 1 is the data set itself."""
    if not inputs.scales:
        return []
    # One that was rendered at the scale 0 is the reconstructions again.
    scales = {"reconstructed": 0.0, "advbn": 1.0, **{role: scale for role, scale in inputs.scales.items() if scale}}
    return [
        {
            "model": model,
            "scale": scales[role],
            "data": role,
            "n": len(inputs.keys),
            **_accuracies(inputs, inputs.scored[role, model], ALL),
        }
        for model in inputs.models
        for role in sorted(scales, key=lambda role: scales[role])
    ]


_PROVENANCE = (
    "arch", "weights", "weights_sha256", "data_address", "data_fingerprint", "transform", "precision", "device",
    "software",
)  # fmt: skip


def _accuracies(inputs: GapInputs, scored: Scored, space: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for k in TOP_KS:
        estimate = accuracy(scored.predictions[space].correct(inputs.label_N, k))
        found |= {f"top{k}": estimate.value, f"top{k}_low": estimate.low, f"top{k}_high": estimate.high}
    return found


def _present(inputs: GapInputs, scored: Scored) -> dict[str, Any]:
    return {"classes": len(np.unique(inputs.label_N)), **_accuracies(inputs, scored, PRESENT)}


def is_attacked(inputs: GapInputs, model: str) -> bool:
    """Whether a model has the weights of the classifier that the AdvBN data set was made against."""
    attacked = inputs.manifests["advbn"]["identity"]["classifier"]["sha256"]
    return bool(inputs.scored["advbn", model].row["weights_sha256"] == attacked)


def _gaps(inputs: GapInputs, model: str) -> dict[str, Any]:
    gaps: dict[str, Any] = {"model": model, "attacked": is_attacked(inputs, model)}
    for name, (before, after) in GAPS.items():
        for k in TOP_KS:
            gaps[f"{name}_top{k}"] = asdict(_gap(inputs, model, before, after, k))
    return gaps


def _gap(inputs: GapInputs, model: str, before: str, after: str, k: int) -> Estimate:
    correct = [inputs.scored[role, model].predictions[ALL].correct(inputs.label_N, k) for role in (before, after)]
    return gap(correct[0], correct[1])


def published_row(inputs: GapInputs, model: str) -> GapRow | None:
    """Return the paper's row of a model: the one that a user named, or that of its published weights."""
    row = inputs.scored["original", model].row
    method = inputs.published.get(model)
    if method is None and (row["arch"], row["weights"]) == ("resnet50", "published"):
        method = STANDARD_TRAINING
    return None if method is None else table_8_row(method, inputs.manifests["advbn"]["config"]["encoder"])


def same_data_as_published(inputs: GapInputs) -> bool:
    """Whether these are the paper's images: all of ImageNet's validation set, perturbed as in the paper."""
    manifest = inputs.manifests["advbn"]
    return (
        len(inputs.keys) == TABLE_8_SAMPLES
        and bool(manifest["classes"]["imagenet"])
        and manifest["config"]["attack"] == asdict(PUBLISHED_ADVBN)
    )


def _published_values(inputs: GapInputs, model: str, role: str) -> dict[str, Any] | None:
    row = published_row(inputs, model)
    if row is None:
        return None
    values = {"original": (row.original, None), "reconstructed": row.reconstructed, "advbn": row.advbn}[role]
    shares = [None if value is None else round(value / 100, 6) for value in values]
    values_by_k = dict(zip(("top1", "top5"), shares, strict=True))
    return {"method": row.method, **values_by_k, "same_data": same_data_as_published(inputs)}


def _classes(inputs: GapInputs) -> list[dict[str, Any]]:
    """Return each class's top-1 of each model in each data set."""
    labels, position_N, count_C = np.unique(inputs.label_N, return_inverse=True, return_counts=True)
    shares: dict[str, dict[str, NDArray[np.float64]]] = {}
    for model in inputs.models:
        for role in ROLES:
            correct_N = inputs.scored[role, model].predictions[ALL].correct(inputs.label_N, 1)
            shares.setdefault(model, {})[role] = np.bincount(position_N, correct_N, len(labels)) / count_C
    return [
        {
            "label": int(label),
            "name": inputs.class_names[label],
            "n": int(count_C[position]),
            "top1": {
                model: {role: round(float(values[position]), 4) for role, values in by_role.items()}
                for model, by_role in shares.items()
            },
        }
        for position, label in enumerate(labels)
    ]


def _summary(values: NDArray[np.float64]) -> dict[str, float]:
    low, median, high = np.quantile(values, QUANTILES)
    return {"mean": float(values.mean()), "q10": float(low), "median": float(median), "q90": float(high)}


def _ascent(ledger: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Return how the batches' mean loss climbed, and how the multipliers are distributed."""
    loss_BS, weight_B = ledger["loss"], ledger["batch_size"]
    deltas = {name: ledger[name].ravel() for name in ("delta_mean", "delta_std")}
    reach = max(float(np.abs(values - 1).max()) for values in deltas.values()) or 1.0
    edges = np.linspace(1 - reach, 1 + reach, DELTA_BINS + 1)
    return {
        "batches": len(loss_BS),
        "loss_mean": [float(value) for value in np.average(loss_BS, axis=0, weights=weight_B)],
        "loss_q10": [float(value) for value in np.quantile(loss_BS, QUANTILES[0], axis=0)],
        "loss_q90": [float(value) for value in np.quantile(loss_BS, QUANTILES[2], axis=0)],
        "delta_edges": [float(edge) for edge in edges],
        # Shares of all multipliers; the outermost values are counted whatever rounding did to them.
        **{
            name: [float(share) for share in np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / values.size]
            for name, values in deltas.items()
        },
    }
