"""Scores models on data sets, and writes to a folder what its earlier results lack."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from basics.compute import Compute, choose_compute
from basics.errors import UserError, WorkError
from basics.loading import fitting_loaders
from basics.paths import Address, address_text, as_local_path
from basics.progress import say
from downstream.predictions import SAME_SAMPLES, PredictionFile, ScoredData
from downstream.result_store import CONTENT, PREDICTIONS, Key, Layout, Row, Wanted, opened_store, without_content
from downstream.scoring import ScoringConfig, image_bytes, predict, require_fitting, views_of, wanted_score
from downstream.testset import TestSet, open_test_set
from networks.classifiers import Classifier
from networks.own import OwnModel, own_classifier
from networks.specs import label_of_spec, load_model
from sources.decode import View

Spec = str | os.PathLike[str]
"""A model by its SPEC (see `networks.specs.load_model`), such as the path of a run folder."""
Models = Spec | Sequence[Spec] | Mapping[str, Spec | OwnModel]
"""A model, several, or name in tables -> model."""


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """Request of `score`: models by their SPECs, data sets, and the folder of the results."""

    models: Mapping[str, str | OwnModel]
    """Name in tables -> SPEC (see `networks.specs.load_model`), or a network of the user's own."""
    data: Sequence[TestSet]
    """Data sets."""
    out: Path
    """Folder of `results.jsonl` and `predictions.h5`."""
    device: str = "auto"
    """Device, see `basics.compute`."""
    precision: str = "auto"
    """Precision, see `basics.compute`."""
    config: ScoringConfig = field(default_factory=ScoringConfig)
    """Batch size and decoding processes."""
    overwrite: bool = False
    """Replace results of the same names, also those of other models or data sets."""


@dataclass(frozen=True, kw_only=True)
class NamedModel:
    """A loaded model under the name that results call it by."""

    name: str
    """Name in tables."""
    classifier: Classifier
    """The model."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Other fields of its results, such as which of its batch-norm sets this is."""


def _nothing(rows: Sequence[Row]) -> None:
    """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class ScoringRun:
    """A scoring run that is ready to begin: models are loaded, the layout and the device are chosen.

    `ScoreRequest` and `downstream.evaluation.EvaluationRequest` are what a user wants. Both are turned into a run.
    """

    models: Sequence[NamedModel]
    """The models."""
    data: Mapping[str, Callable[[], TestSet]]
    """Name -> function that opens the data set. It is opened to be checked and again to be scored, and not kept in
    between: the names of millions of images would fill the memory."""
    layout: Layout[ScoredData]
    """Layout of the predictions, with the path of their file or folder."""
    compute: Compute
    """Device and precision."""
    config: ScoringConfig
    """Batch size and decoding processes."""
    overwrite: bool
    """Replace results of the same names."""
    lines: Callable[[Iterable[Row]], Iterable[Row]] = iter
    """Rows of all results -> lines of `results.jsonl`."""
    listed: Callable[[Sequence[Row]], None] = _nothing
    """Called with the rows of the run, before they have values and before any work."""


def score(request: ScoreRequest) -> list[Row]:
    """Score every model on every data set, one pass over a data set for all models that are missing there.

    Returns:
        The rows of the request's models, data set by data set.

    Raises:
        UserError: a model or a data set cannot be used, another model or data set has the same name, or nothing can
            be written.
        WorkError: an image is broken, or a model's outputs are not finite.
    """
    models = [NamedModel(name=label, classifier=_loaded(label, model)) for label, model in request.models.items()]
    refuse_repeated([data.name for data in request.data], "data sets")
    run = ScoringRun(
        models=models,
        data={data.name: partial(_same, data) for data in request.data},
        layout=PredictionFile(request.out / PREDICTIONS),
        compute=choose_compute(request.device, request.precision),
        config=request.config,
        overwrite=request.overwrite,
    )
    rows = score_all(run)
    return [rows[data.name, label] for data in request.data for label in request.models]


def _loaded(label: str, model: str | OwnModel) -> Classifier:
    return load_model(model) if isinstance(model, str) else own_classifier(model, label)


def score_models(  # noqa: PLR0913 (what is scored, on what, where to, and how)
    models: Models,
    data: Mapping[str, Address],
    out: str | os.PathLike[str],
    *,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 64,
    overwrite: bool = False,
) -> list[Row]:
    """Score models on data sets, as `advbn-gen score` does; what is scored already in the folder is not scored again.

    The images are prepared as each model was published (paper 1, section 5.1 and Table 8, scores ImageNet-AdvBN so).

    Args:
        models: a SPEC such as `resnet50`, `timm:convnext_tiny`, `resnet50=mine.pth` or a run folder; several; or
            name -> SPEC, or `OwnModel` with a network of your own.
        data: name -> address of anything that `--source` takes, such as a folder of shards.
        out: folder of `results.jsonl` and of the predictions of every sample, on this machine.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32, tf32, bf16 or fp64.
        batch_size: images a step, 1 or more.
        overwrite: replace results of the same names.

    Returns:
        A row for each model on each data set: `model`, `data`, `n`, `top1` and `top5` (0..1), and more.

    Raises:
        UserError: a model or a data set cannot be used, or another one has the same name in the folder.
        WorkError: an image is broken, or a model's outputs are not finite.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from advbn_gen import score_models
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "images/n01440764").mkdir(parents=True)  # a class of ImageNet
        >>> Image.new("RGB", (64, 64), "teal").save(root / "images/n01440764/1.png")
        >>> model = "resnet18=seed:0"  # random weights; `resnet18` are the published ones
        >>> rows = score_models(model, {"mine": root / "images"}, root / "scores")
        >>> [(row["model"], row["data"], row["n"], 0 <= row["top1"] <= 1) for row in rows]
        [('resnet18=seed:0', 'mine', 1, True)]
    """
    if not data:
        raise UserError("No data set was given; give name -> address of one or more.")
    return score(
        ScoreRequest(
            models=models_by_name(models),
            data=[open_test_set(name, address_text(address)) for name, address in data.items()],
            out=as_local_path(out, "The folder of the results"),
            device=device,
            precision=precision,
            config=ScoringConfig(batch_size=batch_size),
            overwrite=overwrite,
        )
    )


def _same(data: TestSet) -> TestSet:
    return data


def score_all(run: ScoringRun) -> dict[Key, Row]:
    """Score what is missing of a run, data set by data set; return the rows of all results in its folder.

    Raises:
        UserError: before anything is written: a model does not fit, another model or data set has the same name, or
            nothing can be written, or there is no room for the loader processes.
        WorkError: an image is broken, a model's outputs are not finite, a data set has changed meanwhile, or a loader
            process failed.
    """
    notices: dict[str, str] = {}
    wanted, views = {}, {}
    for name, opened in run.data.items():
        data = opened()
        wanted[name] = _wanted(run, data, notices)
        views[name] = views_of([model.classifier for model in run.models], data)
    for notice in notices.values():
        say(notice)
    run = _with_loaders(run, views.values())
    everything = [each for of_data in wanted.values() for each in of_data]
    run.listed([each.row for each in everything])
    with opened_store(run.layout, SAME_SAMPLES, run.lines) as store:
        missing = {each.key for each in store.missing(everything, overwrite=run.overwrite)}
        for name, opened in run.data.items():
            pairs = zip(wanted[name], run.models, strict=True)
            todo = [(each.row, model.classifier) for each, model in pairs if each.key in missing]
            if todo:
                store.add(_scored(run, opened(), todo))
        # Also if nothing was missing: the file may have been lost.
        store.write_rows()
        return {key: without_content(row) for key, row in store.rows.items()}


def _with_loaders(run: ScoringRun, views: Iterable[Sequence[View]]) -> ScoringRun:
    """Return a run with a number of loader processes that fit the machine, whatever data set they load."""
    config = run.config
    largest = max(views, key=image_bytes)
    loaders = fitting_loaders(
        config.loaders, run.compute, batch_bytes=config.batch_size * image_bytes(largest), tensors=1 + len(largest)
    )
    return replace(run, config=replace(config, loaders=loaders))


def _wanted(run: ScoringRun, data: TestSet, notices: dict[str, str]) -> list[Wanted]:
    """Return the result of each model on a data set, before it is scored, and add what the user has to know."""
    for model in run.models:
        unnamed = require_fitting(model.name, model.classifier, data)
        if unnamed is not None:
            # One for each model or data set that has no names, not one for each pair.
            notices.setdefault(unnamed.what, unnamed.notice)
    restrict = run.config.restrict_classes
    return [
        wanted_score(model.name, model.classifier, data, run.compute, model.more, restrict_classes=restrict)
        for model in run.models
    ]


def _scored(run: ScoringRun, data: TestSet, todo: Sequence[tuple[Row, Classifier]]) -> ScoredData:
    row = todo[0][0]
    if any(row[name] != value for name, value in {**data.metadata(), CONTENT: data.content}.items()):
        raise WorkError(
            f"The data set {data.name} ({data.source.address}) has changed since this run began; start it again."
        )
    return predict(todo, data, run.compute, run.config)


def models_by_name(models: Models) -> Mapping[str, str | OwnModel]:
    """Return the SPEC of each model, or the user's own, by the name that tables call it by.

    Raises:
        UserError: two would have the same name, no model was given, or one is no model.
    """
    if isinstance(models, str | os.PathLike | OwnModel | nn.Module):
        models = [models]
    if models and isinstance(models, Mapping):
        return {name: _spec_or_own(name, model) for name, model in models.items()}
    for model in models:
        if isinstance(model, OwnModel | nn.Module):
            raise UserError(
                f"A model of your own ({_class_of(model)}) was given without a name; give {{'mine': OwnModel(...)}}."
            )
    return named_models([os.fspath(spec) for spec in models])


def _spec_or_own(name: str, model: Spec | OwnModel) -> str | OwnModel:
    if isinstance(model, nn.Module):
        raise UserError(
            f"The model {name} is a module ({_class_of(model)}) that does not say its classes and how images are "
            "prepared for it; give OwnModel(module, classes=[...], image_size=...)."
        )
    return model if isinstance(model, OwnModel) else os.fspath(model)


def _class_of(model: OwnModel | nn.Module) -> str:
    return type(model.module if isinstance(model, OwnModel) else model).__name__


def named_models(specs: Sequence[str]) -> dict[str, str]:
    """Return SPECs under the names that tables call them by; where short names clash, under the whole SPEC.

    Raises:
        UserError: two would have the same name, or no model was given.
    """
    if not specs:
        raise UserError("No model was given; name one with --model.")
    short = [label_of_spec(spec) for spec in specs]
    labels = [spec if short.count(label) > 1 else label for label, spec in zip(short, specs, strict=True)]
    refuse_repeated(labels, "models")
    return dict(zip(labels, specs, strict=True))


def refuse_repeated(names: Sequence[str], what: str) -> None:
    """Refuse names of which two are equal.

    Raises:
        UserError: two are.
    """
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise UserError(f"Two {what} are called {repeated[0]}; give each a name of its own.")
