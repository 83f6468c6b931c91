"""Comparing a rendered data set with the run of its ledger: bytes where they are promised, else pixel means."""

from dataclasses import dataclass

import numpy as np

from basics.errors import UserError
from basics.files import digest_file
from basics.ownership import OUT_OR_OVERWRITE, occupied_folder_error
from basics.paths import AnyPath
from basics.progress import say
from basics.reading import is_file
from pipeline.dataset.layout import LEDGER, MANIFEST, ledger_part_path, map_shards
from pipeline.dataset.ledger import SAMPLES, Ledger, load_ledger, read_ledger, rows_of
from pipeline.dataset.manifest import DatasetDescription, Manifest, marked_shards, read_manifest_file
from pipeline.job import Job
from pipeline.replay import scaled

PIXEL_TOLERANCE = 0.5
"""Grey levels (of 255) by which an image's mean may differ on other hardware or software; docs/ledger.md says why."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Result of a comparison."""

    bytes_promised: bool
    """Whether arithmetic and software are those of the ledger's run, and the scale is 1."""
    bytes_equal: bool | None = None
    """Whether every shard has the checksum of the original's manifest; None if there was no manifest."""
    differing: tuple[str, ...] = ()
    """Files of the shards that have another checksum."""
    pixel_mean_difference: float | None = None
    """Largest difference of an image's mean from the original run's, in grey levels; None at other scales than 1."""
    tolerance: float = PIXEL_TOLERANCE
    """Largest difference that is accepted, in grey levels."""

    @property
    def within_tolerance(self) -> bool:
        """Whether no image's mean differs by more than the tolerance."""
        return self.pixel_mean_difference is None or self.pixel_mean_difference <= self.tolerance

    @property
    def ok(self) -> bool:
        """Whether all means are within the tolerance, and no shard differs whose bytes are promised."""
        return self.within_tolerance and not (self.bytes_promised and self.differing)


def original_manifest(path: AnyPath, ledger: Ledger, given: AnyPath | None) -> Manifest | None:
    """Return the manifest of a ledger's run: the given one, else the one beside the ledger if it is of the same run.

    Args:
        path: path of the ledger.
        ledger: content of that file.
        given: path of the manifest; None for the one beside the ledger.

    Raises:
        UserError: the given manifest is missing, damaged or of another run, or the ledger has not its checksum.
    """
    try:
        if given is None and not is_file(path.with_name(MANIFEST)):
            return None
        manifest = read_manifest_file(given or path.with_name(MANIFEST), f"There is no manifest {given}.")
        _require_of(ledger, manifest, given or path.with_name(MANIFEST))
    except OSError as error:
        raise UserError(f"The manifest beside {path} cannot be read ({error.strerror or error}); check it.") from error
    except UserError as error:
        if given is not None:
            raise
        say(f"The manifest beside the ledger is ignored. {error}")
        return None
    if manifest.values["ledger_sha256"] != digest_file(path):
        raise UserError(f"The ledger {path} is not the one of its manifest; fetch both again.")
    return manifest


def _require_of(ledger: Ledger, manifest: Manifest, path: AnyPath) -> None:
    if not manifest.complete:
        raise UserError(f"The manifest {path} is that of an unfinished run; give that of the finished one.")
    if manifest.fingerprint != ledger.attributes["fingerprint"]:
        raise UserError(f"The manifest {path} is that of another run than the ledger's; give the ledger's own.")


def require_rows_of(job: Job, ledger: Ledger) -> None:
    """Refuse to go on in a folder with shards that were made from other rows than a ledger's.

    Two runs may have the same identity although their ledgers differ: it does not hold the originals' pixels, and on
    some GPUs two ascents end at different multipliers.

    Args:
        job: the rendering.
        ledger: the ledger that it renders.

    Raises:
        UserError: there is such a shard, or the folder cannot be read.
    """
    (dataset,) = job.datasets
    folder = dataset.folder
    try:
        finished = [mark.shard for mark in marked_shards(dataset)]
        faults = map_shards(folder, lambda shard: _differing_column(dataset, ledger, shard), finished)
    except OSError as error:
        raise UserError(f"The output {folder} cannot be read ({error.strerror or error}); check it.") from error
    for shard, column in zip(finished, faults, strict=True):
        if column:
            raise occupied_folder_error(
                folder, f"images of another ledger (shard {shard} differs in {column})", OUT_OR_OVERWRITE
            )


def _differing_column(dataset: DatasetDescription, ledger: Ledger, shard: int) -> str:
    """Return the first column in which a finished shard's rows are not a ledger's; empty if there is none."""
    try:
        own = load_ledger(ledger_part_path(dataset.folder, shard)).columns
    except (FileNotFoundError, UserError):
        return ""  # Missing or damaged: the shard is not done, and is made again.
    batches = list(dataset.plan.batches_of(shard))
    shard_rows = rows_of(
        ledger.columns,
        slice(batches[0][0], batches[-1][0] + 1),
        slice(batches[0][1].start, batches[-1][1].stop),
    )
    # Pixel means differ by rounding on other hardware; `compare` compares them, with a tolerance.
    ignored = {f"{SAMPLES}/pixel_mean"}
    if dataset.scale != 1:
        # The ledger has no predictions on images with shifts of this scale.
        ignored.add(f"{SAMPLES}/adversarial_prediction")
    for name in sorted((own.keys() & shard_rows.keys()) - ignored):
        expected = shard_rows[name]
        if name in {"delta_mean", "delta_std"}:
            expected = scaled(expected, dataset.scale).numpy()
        elif name in {"loss", f"{SAMPLES}/losses"}:
            # At a scale other than 1 only the loss before the first step is known.
            expected = expected[:, : own[name].shape[1]]
        if not np.array_equal(own[name], expected):
            return name
    return ""


def compare(job: Job, ledger: Ledger, original: Manifest | None) -> Comparison:
    """Compare a finished rendering with the run of its ledger.

    At another scale than 1 there is nothing to compare with.

    Args:
        job: the rendering.
        ledger: the ledger that it rendered.
        original: manifest of the ledger's run, if there is one.
    """
    (dataset,) = job.datasets
    if dataset.scale != 1:
        return Comparison(bytes_promised=False)
    folder = dataset.folder
    own = read_ledger(folder / LEDGER)
    name = f"{SAMPLES}/pixel_mean"
    difference = np.abs(own.columns[name].astype(np.float64) - ledger.columns[name])
    differing = tuple(
        entry["file"]
        for entry in (original.shards if original else ())
        if digest_file(folder / entry["file"]) != entry["sha256"]
    )
    return Comparison(
        bytes_promised=dataset.fingerprint == ledger.attributes["fingerprint"],
        bytes_equal=None if original is None else not differing,
        differing=differing,
        pixel_mean_difference=float(difference.max()),
    )
