"""Anyone's images as a source of ImageNet-1k's classes: in class folders, by their labels or by predictions."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from basics.compute import choose_compute
from basics.errors import UserError
from basics.files import TEMPORARY_SUFFIX, digest_file, digest_json, require_apart, write_bytes, write_json
from basics.ownership import ANOTHER_OUT, lock_folder, occupied_folder_error, require_owner
from basics.progress import say
from downstream.predictions import ALL
from downstream.scoring import ScoringConfig, predict
from downstream.testset import TestSet
from networks.classifiers import Classifier
from sources.base import ImageRecord, Source
from sources.classes import imagenet_map
from sources.decode import BrokenImageError, decode_rgb
from sources.keys import sample_keys
from sources.photographs import ShippedPhotographs, open_photographs
from training.data import evenly_spread

RECORD = "images.json"
"""Record of which images a folder holds."""


@dataclass(frozen=True, kw_only=True)
class OwnImages:
    """Images in class folders, and what a reader has to know of them."""

    folder: Path
    """A source of ImageNet-1k's classes."""
    count: int
    """How many images it holds."""
    notes: tuple[str, ...]
    """Where the images come from, and what their labels are: sentences for a report."""


def collect_images(  # noqa: PLR0913 (which images, and what labels them)
    address: str | None, out: Path, most: int, classifier: Classifier, name: str, *, labels: Path | None = None
) -> OwnImages:
    """Copy images into folders of ImageNet-1k's classes, named by the classes' wnids.

    Args:
        address: a labelled source, or a folder of images without labels; None for the photographs of installed
            packages.
        out: folder of the class folders.
        most: at most so many images, evenly spread.
        classifier: network of ImageNet-1k whose most probable class is the label of an image without one.
        name: what notes call it.
        labels: label list or devkit of a flat ILSVRC2012 folder.

    Raises:
        UserError: there are no images, or `out` holds other ones.
    """
    notes = []
    source: Source
    if address is None:
        shipped = ShippedPhotographs()
        source, labelled = shipped, False
        notes.append(f"The photographs are those that come with {' and '.join(shipped.packages)}.")
        say(notes[-1])
    else:
        require_apart(address, out)
        source, labelled = open_photographs(address, labels)
    chosen = evenly_spread(source.records, most)
    if len(chosen) < len(source.records):
        notes.append(f"These are {len(chosen)} of {len(source.records):,} images, evenly spread.")
        say(notes[-1])
    records = [record for record in chosen if _can_be_decoded(source, record)]
    if len(records) < len(chosen):
        notes.append(f"{len(chosen) - len(records)} of them are left out, because they cannot be decoded.")
    if not records:
        raise UserError(f"None of the images of {source.address} can be decoded; give other images.")
    if not labelled:
        records = _predicted(source, records, classifier)
        notes.append(
            f"The images have no labels of ImageNet's classes: the class that {name} finds most probable in an "
            "original counts as its true one. So its accuracy on the originals is 100% by definition, and all other "
            "accuracies are agreements with it."
        )
        say(notes[-1])
    _write(source, records, out)
    return OwnImages(folder=out, count=len(records), notes=tuple(notes))


def _can_be_decoded(source: Source, record: ImageRecord) -> bool:
    try:
        decode_rgb(_content(source, record), record.name)
    except BrokenImageError as error:
        say(f"Left out: {error}")
        return False
    return True


def _predicted(source: Source, records: Sequence[ImageRecord], classifier: Classifier) -> list[ImageRecord]:
    """Return the records with the most probable class of each as its label."""
    data = TestSet(
        name="photographs", source=source, records=records, keys=sample_keys(records), fingerprint=source.digest(),
        manifest=None,
    )  # fmt: skip
    (scored,) = predict([({}, classifier)], data, choose_compute("auto", "auto"), ScoringConfig()).scored
    labels = scored.predictions[ALL].classes_NK[:, 0].tolist()
    return [ImageRecord(record.name, label) for record, label in zip(records, labels, strict=True)]


def _write(source: Source, labelled: Sequence[ImageRecord], out: Path) -> None:
    """Write the images that are missing.

    Raises:
        UserError: `out` holds other images.
    """
    by_name = {record.name: record for record in source.records}
    files = {_path(record): by_name[record.name] for record in labelled}
    digests = {name: hashlib.sha256(_content(source, record)).hexdigest() for name, record in files.items()}
    identity = {"images": len(files), "images_sha256": digest_json(digests)}
    with lock_folder(out):
        there = next((f"other files ({path.name})" for path in sorted(out.iterdir())), "")
        present = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
        foreign = {name for name in present - {RECORD} if digests.get(name) != digest_file(out / name)}
        foreign = {name for name in foreign if not name.endswith(TEMPORARY_SUFFIX)}
        require_owner(
            out, recorded=_recorded(out / RECORD), identity=identity, files=there, other="other images",
            advice=ANOTHER_OUT,
        )  # fmt: skip
        if foreign:
            raise occupied_folder_error(out, f"a file that is none of these images ({min(foreign)})")
        write_json(out / RECORD, identity)
        for name, record in files.items():
            path = out / name
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(path, _content(source, record))


def _path(record: ImageRecord) -> str:
    wnid = imagenet_map().names[record.label]
    return f"{wnid}/{record.name.removeprefix(f'{wnid}/')}"


def _content(source: Source, record: ImageRecord) -> bytes:
    try:
        return source.read(record)
    except OSError as error:
        raise UserError(f"The image {record.name} of {source.address} cannot be read ({error}); check it.") from error


def _recorded(path: Path) -> dict[str, object] | None:
    try:
        values = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return values if isinstance(values, dict) else None
