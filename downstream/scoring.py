"""Accuracy of many models on one data set, in one pass over its images.

Legend: N samples, K most probable classes, C classes, V views (distinct ways of preparing an image).
"""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from basics.compute import Compute
from basics.errors import UserError, WorkError
from basics.loading import loaded_batches
from basics.options import require_loaders
from basics.progress import progress
from basics.software import versions_of
from downstream.cue_conflict import cue_conflict
from downstream.predictions import ALL, PRESENT, DataColumns, Predictions, Scored, ScoredData
from downstream.result_store import CONTENT, Row, Wanted
from downstream.testset import TestSet
from networks.classifiers import Classifier, class_order, naming_advice
from networks.heads import among_imagenet, imagenet_outputs
from networks.normalise import IMAGENET_COLOURS
from sources.base import numbered_classes
from sources.classes import Unnamed, compare_classes, imagenet_map
from sources.decode import View, decode_rgb, pixels_of
from sources.sixteen import SIXTEEN

KEPT = 5
"""How many of the most probable classes are kept for each model and sample."""
_SOFTWARE = ("advbn-gen", "torch", "torchvision", "pillow")


@dataclass(frozen=True, kw_only=True)
class ScoringConfig:
    """How a data set is passed through models; predictions depend on batches and processes only by rounding."""

    batch_size: int = 64
    """Images a step."""
    loaders: int | None = 0
    """Decoding processes; 0 decodes in threads of this one, None starts as many as fit (`score_all` chooses)."""
    restrict_classes: bool = False
    """Whether models decide only among the classes that occur in the data set."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"The batch size is {self.batch_size}; give 1 or more.")
        require_loaders(self.loaders)


def wanted_score(  # noqa: PLR0913 (all that a result depends on)
    label: str,
    model: Classifier,
    data: TestSet,
    compute: Compute,
    more: Mapping[str, Any] | None = None,
    *,
    restrict_classes: bool = False,
) -> Wanted:
    """Return the result of one model on one data set, before it is scored.

    Args:
        label: the model's name in tables.
        model: the model.
        data: the data set.
        compute: device and precision.
        more: other fields of the result's row, such as which of two batch-norm sets this is.
        restrict_classes: whether the model decides only among the classes that occur.
    """
    metadata = data.metadata()
    decision = _decision(model, data, restrict_classes=restrict_classes)
    if decision:
        metadata["decision"] = decision
    # Addresses do not identify anything: files are moved. The checksums beside them do.
    addresses = {"data_address": metadata.pop("data_address"), CONTENT: data.content, "weights": model.weights}
    identity = {
        **metadata,
        "model": label,
        "arch": model.name,
        "weights_sha256": model.checksum,
        "transform": data.view(model.view).describe(),
        "precision": compute.precision,
        # Earlier versions knew none but the usual ones of a network, and did not record these.
        **model.colours_given(),
        **({"structure": model.structure} if model.structure else {}),
        # Other names of classes are compared with those of the data.
        **class_order(_imagenet_outputs(model, data) or (), stated=model.stated_classes),
    }
    software = versions_of((*_SOFTWARE, *model.packages))
    # Left out where they are ImageNet's: earlier versions recorded none.
    unusual = model.assumed or model.mean_std != IMAGENET_COLOURS
    colours = {"colours": model.mean_std.as_json()} if unusual else {}
    others = {**addresses, **colours, "device": compute.kind, "software": software, **(more or {})}
    return Wanted(identity=identity, more=others)


def require_fitting(label: str, model: Classifier, data: TestSet) -> Unnamed | None:
    """Refuse a model whose outputs are not the classes of the data set.

    Among the 16 classes of cue conflict, a network of ImageNet-1k decides by the mean probability of each one's. A
    network of some of ImageNet-1k's classes, called by their wnids, is scored on images of these.

    Returns:
        The one that does not say which classes it has; None if they agree.

    Raises:
        UserError: see above.
    """
    if _decides_among_sixteen(model, data):
        says = f"The model {label} does not say which classes it has; they are taken to be those of ImageNet-1k."
        return None if model.outputs.imagenet else Unnamed(f"the model {label}", says)
    outputs = _imagenet_outputs(model, data)
    if outputs is not None:
        _require_known_classes(label, outputs, data)
        return None
    return compare_classes(
        f"the model {label}", model.outputs, f"the data set {data.name} ({data.source.address})", data.source.classes,
        f"give a model of these classes{naming_advice(model.outputs, data.source.classes)}",
    )  # fmt: skip


def _require_known_classes(label: str, known: Collection[int], data: TestSet) -> None:
    """Refuse images of ImageNet-1k's classes that a model of some of them does not have.

    Raises:
        UserError: see above.
    """
    unknown = [each for each in data.present if each not in known]
    if unknown:
        name = data.source.classes.names[unknown[0]]
        raise UserError(
            f"The data set {data.name} ({data.source.address}) has images of classes that the model {label} of "
            f"{len(known)} classes does not have ({len(unknown)}, such as {name}); give images of its classes alone."
        )


def _imagenet_outputs(model: Classifier, data: TestSet) -> list[int] | None:
    """Return the ImageNet-1k index of each output of a model of some of its classes, for images of ImageNet-1k."""
    return imagenet_outputs(model.outputs) if data.source.classes.imagenet else None


def _choices(model: Classifier, data: TestSet) -> int:
    """Return the number of classes among which a model decides."""
    if _decides_among_sixteen(model, data) or _imagenet_outputs(model, data) is not None:
        return data.source.classes.count
    return model.classes


def _decision(model: Classifier, data: TestSet, *, restrict_classes: bool) -> str:
    """Return how a model decides, if it is not by all of its outputs as they are; else an empty text."""
    outputs = _imagenet_outputs(model, data)
    parts = []
    if _decides_among_sixteen(model, data):
        parts.append("mean probability of each of 16 classes")
    elif outputs is not None:
        parts.append(f"{len(outputs)} of ImageNet's classes, by their wnids")
    if restrict_classes and len(data.present) < _choices(model, data):
        parts.append(f"among the {len(data.present)} classes that occur")
    return ", ".join(parts)


def _decides_among_sixteen(model: Classifier, data: TestSet) -> bool:
    return data.sixteen and model.outputs in {imagenet_map(), numbered_classes(imagenet_map().count)}


@torch.no_grad()
def predict(
    models: Sequence[tuple[Row, Classifier]], data: TestSet, compute: Compute, config: ScoringConfig
) -> ScoredData:
    """Return every model's predictions for every sample; each image is read and decoded once.

    Args:
        models: each with the row of its result (see `wanted_score`), outputs fitting the labels.
        data: the data set.
        compute: device and precision.
        config: batch size and decoding processes.

    Raises:
        BrokenImageError: an image cannot be decoded.
        WorkError: a sample was seen twice or not at all, a model's outputs are not finite, or a loader process failed.
    """
    views = views_of([model for _, model in models], data)
    restrict = config.restrict_classes
    collectors = [_Collector(model, data, compute, restrict_classes=restrict) for _, model in models]
    seen = 0
    with (
        ThreadPoolExecutor(torch.get_num_threads()) as threads,
        loaded_batches(
            _Views(data, views, None if config.loaders else threads), config.loaders or 0, batch_size=config.batch_size
        ) as batches,
        compute.kernels(),
        compute.autocast(),
        progress(data.name, len(data.records), "images") as advance,
    ):
        for index_N, *image_VN3HW in batches:
            _require_next(index_N, seen, data.name)
            seen += len(index_N)
            moved = [image.to(compute.device).to(compute.dtype).div_(255) for image in image_VN3HW]
            for (_, model), collector in zip(models, collectors, strict=True):
                collector.add(model.module(moved[views.index(data.view(model.view))]))
            advance(len(index_N))
    if seen != len(data.records):
        raise WorkError(f"{seen} of {len(data.records)} samples of {data.name} were seen; nothing was recorded.")
    scored = [
        _scored(row, collector.predictions(), data) for (row, _), collector in zip(models, collectors, strict=True)
    ]
    return ScoredData(data=columns_of(data), scored=scored)


def views_of(models: Sequence[Classifier], data: TestSet) -> list[View]:
    """Return the ways in which images of a data set are prepared for models, each once."""
    return list(dict.fromkeys(data.view(model.view) for model in models))


def image_bytes(views: Sequence[View]) -> int:
    """Return the bytes of an image's pixels in all views."""
    return sum(3 * view.crop**2 for view in views)


def columns_of(data: TestSet) -> DataColumns:
    """Return the samples of a data set as a predictions file keeps them."""
    metadata = {**data.metadata(), "class_names": list(data.source.classes.names)}
    return DataColumns(metadata=metadata, keys=list(data.keys), label_N=np.array(data.labels, np.int32))


def _require_next(index_N: Tensor, seen: int, name: str) -> None:
    if index_N.tolist() != list(range(seen, seen + len(index_N))):
        raise WorkError(f"Samples of {name} came twice or in another order after {seen}; nothing was recorded.")


def _scored(row: Row, predictions: dict[str, Predictions], data: TestSet) -> Scored:
    """Return a model's predictions with its accuracies added to its row."""
    label_N = np.array(data.labels, np.int32)
    values: Row = {"n": len(label_N), **_accuracy(predictions[ALL], label_N)}
    if PRESENT in predictions:
        values[PRESENT] = {"classes": len(data.present), **_accuracy(predictions[PRESENT], label_N)}
    if data.texture_N is not None:
        values["cue_conflict"] = cue_conflict(predictions[ALL].classes_NK[:, 0], label_N, data.texture_N).to_json()
    return Scored(row={**row, **values}, predictions=predictions)


def _accuracy(predictions: Predictions, label_N: NDArray[np.int32]) -> dict[str, float]:
    return {f"top{k}": float(predictions.correct(label_N, k).mean()) for k in (1, KEPT)}


class _Views(Dataset[tuple[Any, ...]]):
    """Index and pixels in each view of every sample; threads share the images of a batch, if there are any."""

    def __init__(self, data: TestSet, views: Sequence[View], threads: ThreadPoolExecutor | None) -> None:
        self.data, self.views, self.threads = data, views, threads

    def __len__(self) -> int:
        return len(self.data.records)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        record = self.data.records[index]
        image = decode_rgb(self.data.source.read(record), record.name)
        return index, *(pixels_of(image, view, record.name) for view in self.views)

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, ...]]:
        # While images are decoded, the network's cores have nothing else to do; Pillow lets several threads run.
        return list((self.threads.map if self.threads else map)(self.__getitem__, indices))


class _Collector:
    """One model's most probable classes, collected over batches."""

    def __init__(self, model: Classifier, data: TestSet, compute: Compute, *, restrict_classes: bool) -> None:
        model.module.to(compute.device, compute.dtype)
        present = data.present
        self.name = model.name
        self.groups = SIXTEEN.values() if _decides_among_sixteen(model, data) else None
        outputs = _imagenet_outputs(model, data)
        self.outputs = None if outputs is None else torch.tensor(outputs, device=compute.device)
        self.restrict_classes = restrict_classes
        some = len(present) < _choices(model, data)
        self.present = torch.tensor(present, device=compute.device) if some else None
        self.found: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def add(self, logits_NC: Tensor) -> None:
        logits_NC = logits_NC.double() if logits_NC.device.type != "mps" else logits_NC.float()
        if not bool(logits_NC.isfinite().all()):
            raise WorkError(f"The model {self.name} gives outputs that are not numbers; check its weights.")
        if self.groups is not None:
            probability_NC = logits_NC.softmax(1)
            # Their logarithms, so that a softmax over some of the classes is their shares of the probability.
            logits_NC = torch.stack([probability_NC[:, group].mean(1) for group in self.groups], dim=1).log()
        if self.outputs is not None:
            logits_NC = among_imagenet(logits_NC, self.outputs)
        among = None if self.present is None else logits_NC[:, self.present]
        if among is None or not self.restrict_classes:
            self._keep(ALL, logits_NC, None)
        if among is not None:
            self._keep(ALL if self.restrict_classes else PRESENT, among, self.present)

    def _keep(self, space: str, logits_NC: Tensor, classes: Tensor | None) -> None:
        probability_NK, class_NK = logits_NC.softmax(1).topk(min(KEPT, logits_NC.shape[1]))
        class_NK = class_NK if classes is None else classes[class_NK]
        self.found.setdefault(space, []).append((class_NK.int().cpu(), probability_NK.float().cpu()))

    def predictions(self) -> dict[str, Predictions]:
        return {
            space: Predictions(
                classes_NK=torch.cat([classes for classes, _ in parts]).numpy(),
                probabilities_NK=torch.cat([probabilities for _, probabilities in parts]).numpy(),
            )
            for space, parts in self.found.items()
        }
