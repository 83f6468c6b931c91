"""Gathers what a report on the reconstruction gap is made from: scores, quality, ledger, pictures.

Legend: N samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basics.compute import Compute, choose_compute
from basics.errors import UserError
from basics.ownership import lock_folder
from basics.paths import Address
from downstream.gallery import GallerySample, gallery_samples
from downstream.originals import require_made_of
from downstream.predictions import PredictionFile, Scored
from downstream.quality import quality
from downstream.result_store import PREDICTIONS
from downstream.scoring import ScoringConfig
from downstream.scoring_run import ScoreRequest, score
from downstream.testset import TestSet, open_test_set
from networks.own import OwnModel
from pipeline.dataset.layout import LEDGER
from pipeline.dataset.ledger import read_ledger
from sources.classes import imagenet_names, require_agreeing

ROLES = ("original", "reconstructed", "advbn")
_CONTENTS = "contents"
"""Field of what identifies measures: state checksums of the images of each role, see `sources.content`."""
NAMES_SHOWN = 3
"""How many sample keys a message names."""


@dataclass(frozen=True, kw_only=True)
class GapInputs:
    """Recorded predictions for the same samples in three data sets, and metadata of these."""

    models: Sequence[str]
    """Names of the models, in the order of the table."""
    keys: Sequence[str]
    """Samples that are in all three data sets."""
    label_N: NDArray[np.int32]
    """Their true classes."""
    class_names: Sequence[str]
    """Name at each class index."""
    scored: Mapping[tuple[str, str], Scored]
    """(role, model) -> predictions, in the order of `keys`."""
    quality: Mapping[str, NDArray[np.float64]]
    """Measure -> value of each reconstruction against its original."""
    ledger: Mapping[str, NDArray[Any]]
    """Columns of the AdvBN data set's ledger."""
    manifests: Mapping[str, Mapping[str, Any]]
    """Role -> manifest, of the data sets that have one."""
    published: Mapping[str, str]
    """Model -> its row of Table 8, where a user named it."""
    scales: Mapping[str, float] = field(default_factory=dict)
    """Role -> scale of the perturbation, of data sets that were rendered at other scales."""
    notes: Sequence[str] = ()
    """What a reader has to know of the images, in sentences."""


@dataclass(frozen=True, kw_only=True)
class GapRequest:
    """Request of `report gap`: originals, reconstructions, AdvBN images, models, and the folder of the report."""

    original: str
    """Address of the originals."""
    reconstructed: str
    """Folder of the reconstructions."""
    advbn: str
    """Folder of the AdvBN data set."""
    scaled: Sequence[str] = ()
    """Folders of the same data set, rendered at other scales."""
    models: Mapping[str, str | OwnModel]
    """Name in tables -> SPEC, or a network of the user's own."""
    out: Path
    """Folder of the report, of the predictions and of `results.jsonl`."""
    labels: Address | None = None
    """Label list or devkit of originals in a flat ILSVRC2012 folder."""
    common: bool = False
    """Compare the samples that all three have, instead of refusing when some are missing."""
    lpips: bool = False
    """Also measure LPIPS."""
    gallery: int = 48
    """Samples to show."""
    published: Mapping[str, str] = field(default_factory=dict)
    """Model -> row of Table 8."""
    notes: Sequence[str] = ()
    """What a reader has to know of the images, in sentences."""
    device: str = "auto"
    """Device, see `basics.compute`."""
    precision: str = "auto"
    """Precision, see `basics.compute`."""
    config: ScoringConfig = field(default_factory=ScoringConfig)
    """Batch size and decoding processes of scoring."""
    overwrite: bool = False
    """Score and measure anew, in place of results of the same names."""

    def __post_init__(self) -> None:
        if self.gallery < 1:
            raise UserError(f"--gallery is {self.gallery}; give 1 or more.")
        for model in self.published:
            if model not in self.models:
                raise UserError(f"--published names the model {model}, which is none of {', '.join(self.models)}.")


def gather(request: GapRequest) -> tuple[GapInputs, list[GallerySample]]:
    """Score what is not scored yet, measure the reconstructions, read the ledger and draw samples.

    Raises:
        UserError: the data sets cannot be compared, a model cannot be used, or the folder holds other results.
        WorkError: an image is broken, or a model's outputs are not finite.
    """
    opened = _opened(request)
    keys = common_keys(opened, refuse_others=not request.common)
    compute = choose_compute(request.device, request.precision)
    # Only the compared samples are scored, in one order, so that the same classes are present in all three.
    sets = {role: data.in_order(keys) for role, data in opened.items()}
    store, ledger = PredictionFile(request.out / PREDICTIONS), read_ledger(sets["advbn"].folder / LEDGER)
    if request.overwrite or not _were_compared(store, sets):
        require_made_of(sets["original"], sets["reconstructed"], sets["advbn"], ledger)
    score(
        ScoreRequest(
            models=request.models, data=list(sets.values()), out=request.out, device=request.device,
            precision=request.precision, config=request.config, overwrite=request.overwrite,
        )
    )  # fmt: skip
    models = list(request.models)
    advbn = sets["advbn"]
    scales = {role: _scale(data) for role, data in sets.items() if role not in ROLES}
    inputs = GapInputs(
        models=models,
        keys=keys,
        label_N=np.array(advbn.labels, np.int32),
        class_names=imagenet_names() if advbn.source.classes.imagenet else advbn.source.classes.names,
        scored={(role, model): store.scored(role, model) for role in sets for model in models},
        scales=scales,
        quality=_quality(store, sets, compute, request),
        ledger=ledger.columns,
        manifests={role: data.manifest.values for role, data in sets.items() if data.manifest},
        published=request.published,
        notes=request.notes,
    )
    return inputs, gallery_samples(sets, advbn, request.gallery)


def _were_compared(store: PredictionFile, sets: Mapping[str, TestSet]) -> bool:
    """Whether an earlier report has compared these originals with the data sets, which it does before it measures."""
    known = store.quality_identity("reconstructed")
    contents = _contents(sets)
    return all(contents) and (known.get(_CONTENTS), known.get("samples")) == (contents, sets["original"].samples_sha256)


def _contents(sets: Mapping[str, TestSet]) -> list[str]:
    return [sets[role].content for role in ROLES]


def _opened(request: GapRequest) -> dict[str, TestSet]:
    """Open the three data sets and refuse what cannot be compared."""
    advbn = open_test_set("advbn", request.advbn)
    reconstructed = open_test_set("reconstructed", request.reconstructed)
    original = open_test_set("original", request.original, labels=request.labels)
    for data, perturbed in ((advbn, True), (reconstructed, False)):
        if data.manifest is None or data.manifest.values["perturbed"] != perturbed:
            what = "perturbed" if perturbed else "reconstructed"
            raise UserError(
                f"--{data.name} {data.source.address} is no {what} data set of this program; "
                "give a folder that `advbn-gen imagenet-advbn --reconstructed` made."
            )
    for data in (reconstructed, advbn):
        require_agreeing(
            f"--original {original.source.address}", original.source.classes,
            f"--{data.name} {data.source.address}", data.source.classes, "give data sets made from one source",
        )  # fmt: skip
    if _scale(advbn) != 1:
        raise UserError(
            f"--advbn {advbn.source.address} was rendered at the scale {_scale(advbn):g}; give the data set of the "
            "original run, and this one with --scaled."
        )
    for what, value_of in (("autoencoders", _autoencoder), ("image sizes", _image_size)):
        if value_of(advbn) != value_of(reconstructed):
            raise UserError(
                f"The reconstructions and the AdvBN data set have two {what}, so their difference would not be "
                "the perturbation's; give the two folders of one run."
            )
    return {"original": original, "reconstructed": reconstructed, "advbn": advbn, **_scaled(request, advbn)}


def _scaled(request: GapRequest, advbn: TestSet) -> dict[str, TestSet]:
    """Open the data sets of other scales, and refuse those of another ledger."""
    found: dict[str, TestSet] = {}
    for address in request.scaled:
        data = open_test_set("scaled", address)
        if data.manifest is None or _scale(data) == 1:
            raise UserError(f"--scaled {address} is not rendered at another scale; make it with `advbn-gen render`.")
        if _without_scale(data) != _without_scale(advbn) or data.own_manifest.values["rendered"][
            "ledger_sha256"
        ] not in _ledgers(advbn):
            raise UserError(
                f"--scaled {address} was rendered from the ledger of another run than {advbn.source.address}; "
                "give data sets of one ledger."
            )
        name = f"scale-{_scale(data):g}"
        if name in found:
            raise UserError(f"Two data sets of --scaled have the scale {_scale(data):g}; give each scale once.")
        found[name] = replace(data, name=name)
    return found


def _scale(data: TestSet) -> float:
    return float(data.own_manifest.values["identity"].get("scale", 1))


def _ledgers(data: TestSet) -> set[str]:
    """Return the checksums of a data set's own ledger and of the one that it was rendered from, if it was."""
    values = data.own_manifest.values
    return {values["ledger_sha256"], *([values["rendered"]["ledger_sha256"]] if values.get("rendered") else [])}


def _without_scale(data: TestSet) -> dict[str, Any]:
    """Return the identity of a data set without its scale, and without the machine's: that changes no pixel visibly."""
    ignored = {"scale", "arithmetic", "software"}
    return {name: value for name, value in data.own_manifest.values["identity"].items() if name not in ignored}


def _autoencoder(data: TestSet) -> Any:
    return data.own_manifest.values["identity"]["autoencoder"]


def _image_size(data: TestSet) -> int:
    return data.own_manifest.image_size


def common_keys(sets: Mapping[str, TestSet], *, refuse_others: bool) -> list[str]:
    """Return the sample keys that all data sets have, in the order of the first.

    Raises:
        UserError: some are missing somewhere and others are refused, labels differ, or no sample is common to all.
    """
    labels = {name: dict(zip(data.keys, data.labels, strict=True)) for name, data in sets.items()}
    first, *others = labels
    shared = [key for key in labels[first] if all(key in labels[name] for name in others)]
    if not shared:
        counts = ", ".join(f"{name} {len(keys)}" for name, keys in labels.items())
        raise UserError(f"The data sets have no sample in common ({counts}); give data sets made from one source.")
    missing = [complaint for name in labels if (complaint := _surplus(name, labels[name], set(shared)))]
    if missing and refuse_others:
        raise UserError(
            f"The data sets do not have the same samples ({'; '.join(missing)}; {len(shared)} in common); "
            "give data sets made from one source, or --common to compare those in common."
        )
    for name in others:
        other = next((key for key in shared if labels[name][key] != labels[first][key]), None)
        if other:
            raise UserError(
                f"The sample {other} has the label {labels[first][other]} in {first} and {labels[name][other]} in "
                f"{name}; give data sets made from one source."
            )
    return shared


def _surplus(name: str, keys: Mapping[str, int], shared: set[str]) -> str:
    own = [key for key in keys if key not in shared]
    return f"{len(own)} of {name} are not in all, such as {', '.join(own[:NAMES_SHOWN])}" if own else ""


def _quality(
    store: PredictionFile, sets: Mapping[str, TestSet], compute: Compute, request: GapRequest
) -> dict[str, NDArray[np.float64]]:
    """Return the measures of the reconstructions, taken now unless they were taken of these samples before."""
    original, reconstructed = sets["original"], sets["reconstructed"]
    identity = {
        "original": original.fingerprint,
        "reconstructed": reconstructed.fingerprint,
        _CONTENTS: _contents(sets),
        "samples": original.samples_sha256,
        "lpips": request.lpips,
    }
    # Earlier versions kept no state checksums of the images.
    known = {_CONTENTS: identity[_CONTENTS], **store.quality_identity("reconstructed")}
    if request.overwrite or known != identity:
        measured = quality(original, reconstructed, compute, lpips=request.lpips)
        with lock_folder(request.out):
            store.add_quality("reconstructed", measured, identity)
    return store.quality("reconstructed")
