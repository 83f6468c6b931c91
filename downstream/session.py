"""Scoring models on data sets into a folder, going on from what is already scored there."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from basics.compute import Compute, choose_compute
from basics.differences import differences
from basics.errors import UserError
from basics.files import locked, require_writable_folder, write_text
from basics.progress import say
from downstream.predictions import IDENTIFYING, PREDICTIONS, PredictionFile
from downstream.scoring import ScoringConfig, columns_of, pair_facts, predict, require_fitting
from downstream.testset import TestSet
from networks.classifiers import Classifier
from networks.specs import label_of_spec, load_model

RESULTS = "results.jsonl"
_TELLING = ("weights_sha256", "arch", "data_fingerprint", "samples", "samples_sha256", "transform", "precision")
"""What is told of a pair that is not the one that was scored before."""


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """Which models to score on which data sets, and where the results go."""

    models: Mapping[str, str]
    """Name in tables -> SPEC (see `networks.specs.load_model`)."""
    data: Sequence[TestSet]
    """Data sets."""
    out: Path
    """Folder of `results.jsonl` and `predictions.h5`."""
    device: str = "auto"
    """Device, see `basics.compute`."""
    precision: str = "auto"
    """Precision, see `basics.compute`."""
    config: ScoringConfig = field(default_factory=ScoringConfig)
    """Speed and memory."""
    again: bool = False
    """Score pairs anew that are scored already, also where the names stand for something else now."""


def score(request: ScoreRequest) -> list[dict[str, Any]]:
    """Score every model on every data set, one pass over a data set for all models that are missing there.

    Returns:
        The results of the request's pairs, data set by data set.

    Raises:
        UserError: a model or a data set cannot be used, a name stands for something else than before, or nothing can
            be written.
        WorkError: an image is broken, or an answer is not a number.
    """
    models = {label: load_model(spec) for label, spec in request.models.items()}
    _refuse_twice([data.name for data in request.data], "data sets")
    for data in request.data:
        for label, model in models.items():
            require_fitting(label, model, data)
    compute = choose_compute(request.device, request.precision)
    wanted = {
        data.name: {label: pair_facts(label, model, data, compute) for label, model in models.items()}
        for data in request.data
    }
    require_writable_folder(request.out)
    with locked(request.out):
        return _score(request, models, wanted, compute)


def _score(
    request: ScoreRequest, models: Mapping[str, Classifier], wanted: Mapping[str, Mapping[str, Any]], compute: Compute
) -> list[dict[str, Any]]:
    store = PredictionFile(request.out / PREDICTIONS)
    missing = _missing(store, wanted, again=request.again)
    for data in request.data:
        todo = [(wanted[data.name][label], models[label]) for label in models if (data.name, label) in missing]
        if todo:
            store.add(columns_of(data), predict(todo, data, compute, request.config))
            _write_results(request.out, store)
    known = len(models) * len(request.data) - len(missing)
    if known:
        say(f"{known} of {len(models) * len(request.data)} pairs were scored before; --again scores them anew.")
    _write_results(request.out, store)
    found = store.pairs()
    return [found[data.name, label] for data in request.data for label in models]


def named_models(specs: Sequence[str]) -> dict[str, str]:
    """Return SPECs under the names that tables call them by; where short names clash, under the whole SPEC.

    Raises:
        UserError: two would have the same name, or there is none.
    """
    if not specs:
        raise UserError("No model was given; name one with --model.")
    short = [label_of_spec(spec) for spec in specs]
    labels = [spec if short.count(label) > 1 else label for label, spec in zip(short, specs, strict=True)]
    _refuse_twice(labels, "models")
    return dict(zip(labels, specs, strict=True))


def _refuse_twice(names: Sequence[str], what: str) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"Two {what} are called {twice[0]}; give each a name of its own.")


def _missing(
    store: PredictionFile, wanted: Mapping[str, Mapping[str, dict[str, Any]]], *, again: bool
) -> set[tuple[str, str]]:
    """Return the (data, model) to score; refuse names that stood for something else when they were scored.

    Raises:
        UserError: see above.
    """
    pairs = store.pairs()
    missing = set()
    for data, models in wanted.items():
        for label, facts in models.items():
            before = pairs.get((data, label))
            if before is None or again:
                missing.add((data, label))
            elif before["pair"] != facts["pair"]:
                told = [{name: each[name] for name in _TELLING} for each in (before, facts)]
                changed = "; ".join(differences(*told)) or "another list of images"
                raise UserError(
                    f"{store.path} holds scores of another {label} on {data} ({changed}); "
                    "give another --out, or --again to replace them."
                )
        _refuse_other_data(store, data, next(iter(models.values())), again=again)
    return missing


def _refuse_other_data(store: PredictionFile, data: str, facts: Mapping[str, Any], *, again: bool) -> None:
    if data not in store.names() or again:
        return
    before = store.data(data).facts
    if any(before[name] != facts[name] for name in IDENTIFYING):
        raise UserError(f"{store.path} holds scores on another data set called {data}; give another --out, or --again.")


def _write_results(out: Path, store: PredictionFile) -> None:
    lines = [json.dumps(facts, sort_keys=True) for facts in store.pairs().values()]
    write_text(out / RESULTS, "".join(f"{line}\n" for line in lines))
