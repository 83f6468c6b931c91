"""Models on every test set of the AdvBN paper: what was asked for, loaded, checked and scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from basics.compute import choose_compute
from basics.errors import UserError
from basics.progress import counted, say
from downstream.auxiliary import AUXILIARY, SETS
from downstream.exports import FILES
from downstream.methods import METHODS
from downstream.prediction_folder import FOLDER, PredictionFolder
from downstream.scoring import ScoringConfig
from downstream.session import Entrant, Session, refuse_twice, score_all
from downstream.suites import FILTERS, INSTAGRAM, Places, Subset, find_subsets
from downstream.summaries import Row, result_rows
from downstream.testset import TestSet
from networks.checkpoints import read_metadata
from networks.classifiers import facts_of
from networks.specs import load_model
from sources.base import ClassMap


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """Which models to score on which test sets, and where the results go."""

    models: Mapping[str, str]
    """Name in tables -> SPEC; a run folder of AdvBN fine-tuning is scored with both of its batch-norm sets."""
    places: Places
    """The test sets."""
    out: Path
    """Folder of `results.jsonl` and `predictions/`."""
    device: str = "auto"
    precision: str = "auto"
    config: ScoringConfig = field(default_factory=ScoringConfig)
    again: bool = False
    """Score pairs anew that are scored already."""


def evaluate(request: EvaluationRequest) -> list[Row]:
    """Score every model on every subset, one pass over a subset's images for all models that are missing there.

    Returns:
        The lines of `results.jsonl` on the request's models, model by model: pairs and summaries (see
        `downstream.summaries`).

    Raises:
        UserError: before any work: a model or a test set cannot be used, or a name stands for something else than
            before.
        WorkError: an image is broken, or an answer is not a number.
    """
    subsets, ignored = find_subsets(request.places)
    refuse_twice([subset.name for subset in subsets], "test sets")
    entrants = [entrant for label, spec in request.models.items() for entrant in entrants_of(label, spec)]
    _refuse_more_filters(request.out, [subset.name for subset in subsets])
    for path in ignored:
        say(f"Ignored: {path}, which is none of the paper's 15 corruptions at severities 1 to 5.")
    say(f"Listing {counted(len(subsets), 'subset')} ...")
    classes = _SameClasses()
    pairs = score_all(
        Session(
            entrants=entrants,
            data={subset.name: partial(_opened, subset, classes) for subset in subsets},
            out=request.out,
            store=PredictionFolder(request.out / FOLDER),
            compute=choose_compute(request.device, request.precision),
            config=request.config,
            again=request.again,
            lines=result_rows,
        )
    )
    rows = result_rows(pairs[pair] for pair in sorted(pairs))
    return [row for model in request.models for row in rows if row["model"] == model]


def _refuse_more_filters(out: Path, names: Sequence[str]) -> None:
    """Refuse a folder with results on other filters: together they would be no one's ImageNet-Instagram.

    Raises:
        UserError: see above.
    """
    known = {*PredictionFolder(out / FOLDER).data_facts(), *names}
    filters = sorted(name for name in known if name.startswith(f"{INSTAGRAM}/"))
    other = [name for name in filters if name not in names]
    if len(filters) > FILTERS:
        raise UserError(f"{out} holds results on another set of filters (such as {other[0]}); give another --out.")


def entrants_of(label: str, spec: str) -> list[Entrant]:
    """Load a model; a run folder of AdvBN fine-tuning twice, with main and with auxiliary batch norm.

    Args:
        label: its name in tables.
        spec: see `networks.specs.load_model`.

    Raises:
        UserError: it cannot be loaded.
    """
    folder = Path(spec)
    if not _has_two_sets(folder):
        return [Entrant(model=label, classifier=load_model(spec), more={"batch_norm": None})]
    return [
        Entrant(model=label, classifier=load_model(str(folder / FILES[which])), more={"batch_norm": which})
        for which in SETS
    ]


def _has_two_sets(folder: Path) -> bool:
    """Whether a folder holds two trained sets; methods that do not use the auxiliary one leave it as it was."""
    if not all((folder / name).is_file() for name in FILES.values()):
        return False
    told = facts_of(read_metadata(folder / FILES[AUXILIARY])).get("facts", {})
    method = METHODS.get(told.get("method", ""))
    return method is None or method.uses_auxiliary


class _SameClasses:
    """Refuses a test set whose classes are not those of the first: the same label would mean another class."""

    def __init__(self) -> None:
        self.first: tuple[str, ClassMap] | None = None

    def require(self, data: TestSet) -> None:
        """Refuse other classes.

        Raises:
            UserError: see above.
        """
        name, classes = self.first = self.first or (data.name, data.source.classes)
        own = data.source.classes
        if own == classes:
            return
        differing = sorted(set(own.names) ^ set(classes.names))
        such = f" (such as {differing[0]})" if differing else ""
        raise UserError(
            f"{data.name} ({data.source.address}) has {own.count} classes and {name} has {classes.count}, and they are "
            f"not the same{such}, so their labels would mean different things; give test sets of the same classes."
        )


def _opened(subset: Subset, classes: _SameClasses) -> TestSet:
    data = subset.open()
    classes.require(data)
    return data
