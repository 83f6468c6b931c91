"""Accuracy of many models on one data set, in one pass over its images.

Legend: N samples, K best answers, V views (distinct ways of preparing an image).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from basics.compute import Compute
from basics.errors import UserError, WorkError
from basics.files import digest_json
from basics.progress import progress
from downstream.predictions import ALL, PRESENT, Answers, DataColumns, Scored
from downstream.testset import TestSet
from networks.classifiers import Classifier
from sources.decode import View, decode_rgb, pixels_of

KEPT = 5
"""Answers that are kept of each model for each sample."""
_SOFTWARE = ("advbn-gen", "torch", "torchvision", "pillow")


@dataclass(frozen=True, kw_only=True)
class ScoringConfig:
    """How a pass over a data set is made; changes its speed and memory, not its answers (but for rounding)."""

    batch_size: int = 64
    """Images a step."""
    loaders: int = 0
    """Decoding processes; 0 decodes in this one."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"The batch size is {self.batch_size}; give 1 or more.")
        if self.loaders < 0:
            raise UserError(f"The number of loaders is {self.loaders}; give 0 or more.")


def pair_facts(label: str, model: Classifier, data: TestSet, compute: Compute) -> dict[str, Any]:
    """Return what one model on one data set is, as it stands in a result; `pair` tells it from any other."""
    what = {
        **data.facts(),
        "model": label,
        "arch": model.name,
        "weights": model.weights,
        "weights_sha256": model.checksum,
        "transform": data.view(model.view).describe(),
        "precision": compute.precision,
    }
    told_apart = {name: value for name, value in what.items() if name not in {"data_address", "weights"}}
    return {
        **what,
        "pair": digest_json(told_apart),
        "device": compute.kind,
        "software": {name: version(name) for name in (*_SOFTWARE, *model.packages)},
    }


def require_fitting(label: str, model: Classifier, data: TestSet) -> None:
    """Refuse a model whose outputs are not the classes that the labels number.

    Raises:
        UserError: see above.
    """
    needed = data.source.classes.count
    if model.classes != needed:
        raise UserError(
            f"The model {label} has {model.classes} outputs, but the labels of {data.name} "
            f"({data.source.address}) number {needed} classes; give a model of these classes."
        )


@torch.no_grad()
def predict(
    models: Sequence[tuple[dict[str, Any], Classifier]], data: TestSet, compute: Compute, config: ScoringConfig
) -> list[Scored]:
    """Let every model answer every sample, reading and decoding each image once.

    Args:
        models: with the facts of each (see `pair_facts`), outputs fitting the labels.
        data: the data set.
        compute: device and precision.
        config: speed and memory.

    Raises:
        BrokenImageError: an image cannot be decoded.
        WorkError: a sample was seen twice or not at all, or an answer is not a number.
    """
    views = list(dict.fromkeys(data.view(model.view) for _, model in models))
    collectors = [_Collector(model, data, compute) for _, model in models]
    loader = DataLoader(_Views(data, views), batch_size=config.batch_size, num_workers=config.loaders)
    seen = 0
    with compute.kernels(), compute.autocast(), progress(data.name, len(data.records), "images") as advance:
        for index_N, *image_VN3HW in loader:
            _require_next(index_N, seen, data.name)
            seen += len(index_N)
            moved = [image.to(compute.device).to(compute.dtype) / 255 for image in image_VN3HW]
            for (_, model), collector in zip(models, collectors, strict=True):
                collector.add(model.module(moved[views.index(data.view(model.view))]))
            advance(len(index_N))
    if seen != len(data.records):
        raise WorkError(f"{seen} of {len(data.records)} samples of {data.name} were seen; nothing was recorded.")
    return [
        Scored(facts=_with_values(facts, collector, data), answers=collector.answers())
        for (facts, _), collector in zip(models, collectors, strict=True)
    ]


def columns_of(data: TestSet) -> DataColumns:
    """Return the samples of a data set as a predictions file keeps them."""
    facts = {**data.facts(), "class_names": list(data.source.classes.names)}
    return DataColumns(facts=facts, keys=list(data.keys), label_N=np.array(data.labels, np.int32))


def _require_next(index_N: Tensor, seen: int, name: str) -> None:
    if index_N.tolist() != list(range(seen, seen + len(index_N))):
        raise WorkError(f"Samples of {name} came twice or in another order after {seen}; nothing was recorded.")


def _with_values(facts: dict[str, Any], collector: "_Collector", data: TestSet) -> dict[str, Any]:
    label_N = np.array(data.labels, np.int32)
    answers = collector.answers()
    values: dict[str, Any] = {"n": len(label_N), **_accuracy(answers[ALL], label_N)}
    if PRESENT in answers:
        values[PRESENT] = {"classes": len(data.present), **_accuracy(answers[PRESENT], label_N)}
    return {**facts, **values}


def _accuracy(answers: Answers, label_N: Any) -> dict[str, float]:
    return {f"top{k}": float(answers.right(label_N, k).mean()) for k in (1, KEPT)}


class _Views(Dataset[tuple[Any, ...]]):
    """Index and pixels in each view of every sample."""

    def __init__(self, data: TestSet, views: Sequence[View]) -> None:
        self.data, self.views = data, views

    def __len__(self) -> int:
        return len(self.data.records)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        record = self.data.records[index]
        image = decode_rgb(self.data.source.read(record), record.name)
        return index, *(pixels_of(image, view, record.name) for view in self.views)


class _Collector:
    """One model's best answers, collected over batches."""

    def __init__(self, model: Classifier, data: TestSet, compute: Compute) -> None:
        model.module.to(compute.device, compute.dtype)
        present = data.present
        self.name = model.name
        self.present = torch.tensor(present, device=compute.device) if len(present) < model.classes else None
        self.found: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def add(self, logits_NC: Tensor) -> None:
        logits_NC = logits_NC.double() if logits_NC.device.type != "mps" else logits_NC.float()
        if not bool(logits_NC.isfinite().all()):
            raise WorkError(f"The model {self.name} gives answers that are not numbers; check its weights.")
        self._keep(ALL, logits_NC, None)
        if self.present is not None:
            self._keep(PRESENT, logits_NC[:, self.present], self.present)

    def _keep(self, space: str, logits_NC: Tensor, classes: Tensor | None) -> None:
        probability_NK, class_NK = logits_NC.softmax(1).topk(min(KEPT, logits_NC.shape[1]))
        class_NK = class_NK if classes is None else classes[class_NK]
        self.found.setdefault(space, []).append((class_NK.int().cpu(), probability_NK.float().cpu()))

    def answers(self) -> dict[str, Answers]:
        return {
            space: Answers(
                classes_NK=torch.cat([classes for classes, _ in parts]).numpy(),
                probabilities_NK=torch.cat([probabilities for _, probabilities in parts]).numpy(),
            )
            for space, parts in self.found.items()
        }
