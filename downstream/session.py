"""Scoring models on data sets into a folder, going on from what is already scored there."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from basics.compute import Compute, choose_compute
from basics.differences import differences
from basics.errors import UserError, WorkError
from basics.files import write_text
from basics.ownership import hold
from basics.progress import say
from downstream.prediction_folder import FOLDER
from downstream.predictions import (
    IDENTIFYING,
    PREDICTIONS,
    DataColumns,
    Pairs,
    PredictionFile,
    Scored,
    scored_name,
)
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


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A loaded model under the name that results call it by."""

    model: str
    """Name in tables."""
    classifier: Classifier
    more: Mapping[str, Any] = field(default_factory=dict)
    """What else results say of it, such as which of its batch-norm sets this is."""

    @property
    def name(self) -> str:
        """Name under which its answers are kept."""
        return scored_name({"model": self.model, **self.more})


class Store(Protocol):
    """Where answers are kept: one predictions file, or a folder of them."""

    path: Path

    def pairs(self) -> Pairs:
        """Return the facts of every (data, model) that was scored."""
        ...

    def data_facts(self) -> dict[str, dict[str, Any]]:
        """Return what is known of each data set, by its name."""
        ...

    def add(self, data: DataColumns, scored: Sequence[Scored]) -> None:
        """Add a data set with models' answers to it; what had the same names is replaced."""
        ...


@dataclass(frozen=True, kw_only=True)
class Session:
    """Models, data sets, and where their results go."""

    entrants: Sequence[Entrant]
    data: Mapping[str, Callable[[], TestSet]]
    """Name -> what opens the data set. It is opened to be checked and again to be scored, and not kept in between:
    the names of millions of images would fill the memory."""
    out: Path
    """Folder of `results.jsonl`."""
    store: Store
    compute: Compute
    config: ScoringConfig
    again: bool
    lines: Callable[[Iterable[dict[str, Any]]], Iterable[dict[str, Any]]] = iter
    """What `results.jsonl` holds, made from the facts of all pairs."""


def score(request: ScoreRequest) -> list[dict[str, Any]]:
    """Score every model on every data set, one pass over a data set for all models that are missing there.

    Returns:
        The results of the request's pairs, data set by data set.

    Raises:
        UserError: a model or a data set cannot be used, a name stands for something else than before, or nothing can
            be written.
        WorkError: an image is broken, or an answer is not a number.
    """
    entrants = [Entrant(model=label, classifier=load_model(spec)) for label, spec in request.models.items()]
    refuse_twice([data.name for data in request.data], "data sets")
    session = Session(
        entrants=entrants,
        data={data.name: partial(_itself, data) for data in request.data},
        out=request.out,
        store=PredictionFile(request.out / PREDICTIONS),
        compute=choose_compute(request.device, request.precision),
        config=request.config,
        again=request.again,
    )
    pairs = score_all(session)
    return [pairs[data.name, label] for data in request.data for label in request.models]


def _itself(data: TestSet) -> TestSet:
    return data


def score_all(session: Session) -> Pairs:
    """Score what is missing of a session, data set by data set; return all pairs that its folder holds then.

    Raises:
        UserError: before anything is written: a model does not fit, a name stands for something else than before, or
            nothing can be written.
        WorkError: an image is broken, an answer is not a number, or a data set has changed meanwhile.
    """
    wanted = {name: _wanted(session, opened()) for name, opened in session.data.items()}
    _refuse_other_store(session)
    with hold(session.out):
        return _score(session, wanted)


def _refuse_other_store(session: Session) -> None:
    """Refuse a folder with answers in the other form: `results.jsonl` would be written without them.

    Raises:
        UserError: see above.
    """
    other = FOLDER if session.store.path.name == PREDICTIONS else PREDICTIONS
    if (session.out / other).exists():
        raise UserError(
            f"The folder {session.out} holds {other} of another command (`score` and `report gap` keep answers in "
            f"{PREDICTIONS}, `evaluate` in {FOLDER}/); give another --out."
        )


Wanted = Mapping[str, Mapping[str, dict[str, Any]]]
"""Data -> entrant -> facts of the pair."""


def _wanted(session: Session, data: TestSet) -> dict[str, dict[str, Any]]:
    found = {}
    for entrant in session.entrants:
        require_fitting(entrant.model, entrant.classifier, data)
        facts = pair_facts(entrant.model, entrant.classifier, data, session.compute)
        found[entrant.name] = {**facts, **entrant.more}
    return found


def _score(session: Session, wanted: Wanted) -> Pairs:
    pairs = session.store.pairs()
    missing = _missing(session, pairs, wanted)
    for name, opened in session.data.items():
        todo = [
            (wanted[name][entrant.name], entrant.classifier)
            for entrant in session.entrants
            if (name, entrant.name) in missing
        ]
        if todo:
            new = _score_one(session, opened(), todo)
            pairs = {**_of_the_same_data(pairs, name, todo[0][0]), **new}
            _write_results(session, pairs)
    total = len(session.data) * len(session.entrants)
    if total > len(missing):
        say(f"{total - len(missing)} of {total} pairs were scored before; --again scores them anew.")
    _write_results(session, pairs)
    return pairs


def _of_the_same_data(pairs: Pairs, data: str, facts: Mapping[str, Any]) -> Pairs:
    """Return pairs without those on other samples under a data set's name, which its store has forgotten, too."""
    return {
        pair: before
        for pair, before in pairs.items()
        if pair[0] != data or all(before[fact] == facts[fact] for fact in IDENTIFYING)
    }


def _score_one(session: Session, data: TestSet, todo: Sequence[tuple[dict[str, Any], Classifier]]) -> Pairs:
    if any(todo[0][0][name] != value for name, value in data.facts().items()):
        raise WorkError(f"The data set {data.name} ({data.source.address}) has changed since this run began.")
    scored = predict(todo, data, session.compute, session.config)
    session.store.add(columns_of(data), scored)
    return {(data.name, scored_name(one.facts)): one.facts for one in scored}


def named_models(specs: Sequence[str]) -> dict[str, str]:
    """Return SPECs under the names that tables call them by; where short names clash, under the whole SPEC.

    Raises:
        UserError: two would have the same name, or there is none.
    """
    if not specs:
        raise UserError("No model was given; name one with --model.")
    short = [label_of_spec(spec) for spec in specs]
    labels = [spec if short.count(label) > 1 else label for label, spec in zip(short, specs, strict=True)]
    refuse_twice(labels, "models")
    return dict(zip(labels, specs, strict=True))


def refuse_twice(names: Sequence[str], what: str) -> None:
    """Refuse names that come twice.

    Raises:
        UserError: one does.
    """
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"Two {what} are called {twice[0]}; give each a name of its own.")


def _missing(session: Session, pairs: Pairs, wanted: Wanted) -> set[tuple[str, str]]:
    """Return the (data, model) to score; refuse names that stood for something else when they were scored.

    Raises:
        UserError: see above.
    """
    if session.again:
        return {(data, name) for data, entrants in wanted.items() for name in entrants}
    known = session.store.data_facts()
    missing = set()
    for data, entrants in wanted.items():
        for name, facts in entrants.items():
            before = pairs.get((data, name))
            if before is None:
                missing.add((data, name))
            elif before["pair"] != facts["pair"]:
                raise UserError(_other_pair(session.store, data, name, before, facts))
        _refuse_other_data(session.store, known.get(data), next(iter(entrants.values())))
    return missing


def _other_pair(store: Store, data: str, name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    told = [{fact: each[fact] for fact in _TELLING} for each in (before, now)]
    changed = "; ".join(differences(*told)) or "another list of images"
    return (
        f"{store.path} holds scores of another {name} on {data} ({changed}); "
        "give another --out, or --again to replace them."
    )


def _refuse_other_data(store: Store, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    if before is not None and any(before[fact] != now[fact] for fact in IDENTIFYING):
        raise UserError(
            f"{store.path} holds scores on another data set called {now['data']}; give another --out, or --again."
        )


def _write_results(session: Session, pairs: Pairs) -> None:
    lines = session.lines([pairs[pair] for pair in sorted(pairs)])
    write_text(session.out / RESULTS, "".join(f"{json.dumps(line, sort_keys=True)}\n" for line in lines))
