"""Models on test sets of the AdvBN paper and others: load the models, find and check the test sets, score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from basics.compute import choose_compute
from basics.errors import UserError
from basics.ownership import occupied_folder_error
from basics.progress import counted, say
from downstream.auxiliary import AUXILIARY, SETS
from downstream.exports import FILES
from downstream.methods import METHODS
from downstream.prediction_folder import PredictionFolder
from downstream.result_store import PREDICTION_FOLDER, Row
from downstream.scoring import ScoringConfig
from downstream.scoring_run import NamedModel, ScoringRun, refuse_repeated, score_all
from downstream.suites import FILTERS, IMAGENET_C, INSTAGRAM, Subset, TestSetPaths, find_subsets
from downstream.summaries import differing_parts, result_rows
from downstream.testset import TestSet
from networks.checkpoints import read_metadata
from networks.classifiers import classifier_metadata
from networks.specs import load_model
from sources.base import ClassMap


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """Request of `evaluate`: models, the paths of the test sets of the AdvBN paper, and the folder of the results."""

    models: Mapping[str, str]
    """Name in tables -> SPEC; a run folder of AdvBN fine-tuning is scored with both of its batch-norm sets."""
    paths: TestSetPaths
    """Where the test sets are."""
    out: Path
    """Folder of `results.jsonl` and `predictions/`."""
    device: str = "auto"
    """Device, see `basics.compute`."""
    precision: str = "auto"
    """Precision, see `basics.compute`."""
    config: ScoringConfig = field(default_factory=ScoringConfig)
    """Batch size and decoding processes."""
    overwrite: bool = False
    """Replace results of the same names, also those of other models or test sets."""


def evaluate(request: EvaluationRequest) -> list[Row]:
    """Score every model on every subset, one pass over a subset's images for all models that are missing there.

    Returns:
        The lines of `results.jsonl` on the request's models, model by model: results and summaries (see
        `downstream.summaries`).

    Raises:
        UserError: before any work: a model or a test set cannot be used, or another model or test set has the same
            name.
        WorkError: an image is broken, or a model's outputs are not finite.
    """
    subsets, ignored = find_subsets(request.paths)
    refuse_repeated([subset.name for subset in subsets], "test sets")
    models = [model for label, spec in request.models.items() for model in models_of(label, spec)]
    layout = PredictionFolder(request.out / PREDICTION_FOLDER)
    _refuse_more_filters(layout, [subset.name for subset in subsets])
    for path in ignored:
        say(f"Ignored: {path}, which is none of the paper's 15 corruptions at severities 1 to 5.")
    say(f"Listing {counted(len(subsets), 'subset')} ...")
    classes = _SameClasses()
    found = score_all(
        ScoringRun(
            models=models,
            data={subset.name: partial(_opened, subset, classes) for subset in subsets},
            layout=layout,
            compute=choose_compute(request.device, request.precision),
            config=request.config,
            overwrite=request.overwrite,
            lines=result_rows,
            listed=_warn_of_differing_parts,
        )
    )
    rows = result_rows(found[key] for key in sorted(found))
    return [row for model in request.models for row in rows if row["model"] == model]


def _warn_of_differing_parts(rows: Sequence[Row]) -> None:
    """Warn that parts of a test set have other images, before hours are spent on a mean that cannot be given."""
    for suite in (IMAGENET_C, INSTAGRAM):
        parts = {row["data"]: row for row in rows if row["suite"] == suite}
        for difference in differing_parts(list(parts.values())).values() if parts else ():
            say(f"{suite} has {difference}: there will be no mean over the set.")


def _refuse_more_filters(layout: PredictionFolder, names: Sequence[str]) -> None:
    """Refuse a folder with results on other filters: the mean over both would be that of no published set.

    Raises:
        UserError: see above.
    """
    known = {*(row["data"] for row in layout.rows()), *names}
    filters = sorted(name for name in known if name.startswith(f"{INSTAGRAM}/"))
    other = [name for name in filters if name not in names]
    if len(filters) > FILTERS:
        raise occupied_folder_error(layout.path.parent, f"results on another set of filters (such as {other[0]})")


def models_of(label: str, spec: str) -> list[NamedModel]:
    """Load a model; a run folder of AdvBN fine-tuning twice, with main and with auxiliary batch norm.

    Args:
        label: its name in tables.
        spec: see `networks.specs.load_model`.

    Raises:
        UserError: it cannot be loaded.
    """
    folder = Path(spec)
    if not _has_two_sets(folder):
        return [NamedModel(name=label, classifier=load_model(spec), more={"batch_norm": None})]
    return [
        NamedModel(name=label, classifier=load_model(str(folder / FILES[which])), more={"batch_norm": which})
        for which in SETS
    ]


def _has_two_sets(folder: Path) -> bool:
    """Whether a folder holds two trained sets of batch norm; some methods leave the auxiliary one untrained."""
    if not all((folder / name).is_file() for name in FILES.values()):
        return False
    run = classifier_metadata(read_metadata(folder / FILES[AUXILIARY])).get("facts", {})
    method = METHODS.get(run.get("method", ""))
    return method is None or method.uses_auxiliary


class _SameClasses:
    """Refuses a test set whose classes are not those of the first: a label would mean another class."""

    def __init__(self) -> None:
        self.first: tuple[str, ClassMap] | None = None

    def require(self, data: TestSet) -> None:
        """Refuse other classes.

        Raises:
            UserError: see above.
        """
        if data.sixteen:
            # Networks of ImageNet decide among these by groups of its classes.
            return
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
