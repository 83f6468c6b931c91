"""The test sets of the AdvBN paper, and others of the field: their folders, how images are prepared, and more.

Layouts are those of the sets' own downloads. ImageNet, ImageNet-Instagram and ImageNet-Sketch are resized before the
crop; ImageNet-C, Stylized ImageNet and our shards are stored ready to be cropped.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from basics.errors import UserError
from basics.paths import AnyPath, as_path
from basics.remote import os_errors_only
from downstream.auxiliary import AUXILIARY, MAIN
from downstream.mce import CATEGORIES, CORRUPTIONS, SEVERITIES
from downstream.testset import TestSet, open_named
from pipeline.dataset.manifest import is_data_set, read_manifest
from sources.base import Source, numbered_classes
from sources.classes import imagenet_map
from sources.decode import BrokenImageError, decode_rgb
from sources.names import is_image

IMAGENET, IMAGENET_C = "imagenet", "imagenet-c"
INSTAGRAM, SKETCH, STYLE = "imagenet-instagram", "imagenet-sketch", "imagenet-style"
IMAGENET_V2, IMAGENET_R, IMAGENET_A = "imagenet-v2", "imagenet-r", "imagenet-a"
CUE_CONFLICT, SILHOUETTES, EDGES = "cue-conflict", "silhouettes", "edges"
SOME_CLASSES = (IMAGENET_R, IMAGENET_A)
"""Sets of 200 of ImageNet's classes, among which alone a model decides (published); the restricted accuracy counts."""
OF_SIXTEEN_CLASSES = (CUE_CONFLICT, SILHOUETTES, EDGES)
"""Sets of the 16 classes of `sources.sixteen`, whose images are stored ready to be cropped."""
OTHERS = (IMAGENET_V2, *SOME_CLASSES, *OF_SIXTEEN_CLASSES)
"""Test sets that the paper does not have."""
ADVBN, RECONSTRUCTED = "advbn", "reconstructed"
FILTERS = 20
"""Filters of ImageNet-Instagram."""

PUBLISHED_BATCH_NORM = {IMAGENET: MAIN, IMAGENET_C: MAIN, INSTAGRAM: MAIN, SKETCH: AUXILIARY, STYLE: AUXILIARY}
"""Which of two batch-norm sets the paper uses (appendix A.3). On our shards both are reported."""

NAMES_SHOWN = 4
"""How many folders a message names."""


@dataclass(frozen=True, kw_only=True)
class TestSetPaths:
    """Paths or addresses of the test sets; each may be left out."""

    __test__ = False  # not a test of pytest's

    imagenet: str | None = None
    """Any source of the main job."""
    imagenet_c: str | None = None
    """`<root>/<category>/<corruption>/<1-5>/<class>/`, also without the category's level."""
    imagenet_instagram: str | None = None
    """`<root>/<filter>/<class>/`."""
    imagenet_sketch: str | None = None
    """`<root>/<class>/`."""
    imagenet_style: str | None = None
    """`<root>/val/<class>/`, also without `val`."""
    imagenet_v2: str | None = None
    """`<root>/<0-999>/`."""
    imagenet_r: str | None = None
    """`<root>/<class>/`."""
    imagenet_a: str | None = None
    """`<root>/<class>/`."""
    cue_conflict: str | None = None
    """`<root>/<shape>/<shape><n>-<texture><m>.png`."""
    silhouettes: str | None = None
    """`<root>/<class>/`."""
    edges: str | None = None
    """`<root>/<class>/`."""
    advbn: Sequence[str] = ()
    """Folders of data sets that the main job wrote, perturbed or reconstructed."""
    labels: Path | None = None
    """Label list or devkit of `imagenet` in a flat ILSVRC2012 folder."""
    limit: int | None = None
    """Only this many images of each subset, from the first on; None takes all."""


@dataclass(frozen=True, kw_only=True)
class Subset:
    """A part of a test set that is scored separately; its images are listed only when it is opened."""

    name: str
    """Name in results, such as `imagenet-c/fog/3`."""
    suite: str
    """The test set that it belongs to."""
    address: str
    """Address of its images."""
    labels: Path | None = None
    """Label list or devkit of a flat ILSVRC2012 folder."""
    limit: int | None = None
    """Only this many images, from the first on; None takes all."""
    cropped_side: int | None = None
    """Short side of images that are stored ready to be cropped, where the set's are."""

    def open(self) -> TestSet:
        """List its images.

        Raises:
            UserError: they cannot be listed, or do not lie in class folders.
        """
        data = open_named(self.name, self.address, labels=self.labels, limit=self.limit)
        deep = next((each.name for each in data.source.records if each.name.count("/") > 1), None)
        if deep and self.suite in {IMAGENET_C, INSTAGRAM, SKETCH, STYLE, *OTHERS}:
            raise UserError(
                f"{self.address} should hold the class folders of {self.name}, but its images lie deeper (such as "
                f"{deep}); give the folder in its published layout (docs/shift.md)."
            )
        data = replace(data, suite=self.suite, stored_side=self.cropped_side or data.stored_side)
        if self.suite in SOME_CLASSES:
            return replace(data, whole_classes=True)
        if self.suite in OF_SIXTEEN_CLASSES and data.source.classes.imagenet:
            raise UserError(
                f"--{self.suite} {self.address} has class folders of ImageNet, not the set's own (airplane, bear, "
                "...); give the folder in its published layout (docs/shift.md)."
            )
        if self.suite == IMAGENET_V2:
            return replace(data, source=_with_numbered_classes(data.source))
        if self.suite == CUE_CONFLICT and data.texture_N is None:
            raise UserError(
                f"The images of --{CUE_CONFLICT} {self.address} are not called <shape><n>-<texture><m> after their "
                "class folders; give the folder in its published layout (docs/shift.md)."
            )
        return data


def _with_numbered_classes(source: Source) -> Source:
    """Return ImageNet-V2 with its classes: its folders are called by ImageNet-1k's indices.

    Raises:
        UserError: it has other folders.
    """
    if source.classes != numbered_classes(imagenet_map().count):
        raise UserError(
            f"--{IMAGENET_V2} {source.address} has not the class folders 0 to {imagenet_map().count - 1}; give a "
            "folder in its published layout (docs/shift.md)."
        )
    named = copy.copy(source)
    named.classes = imagenet_map()
    return named


def is_published_choice(suite: str, batch_norm: str | None) -> bool:
    """Whether the paper evaluates a test set with this set of batch norm; None is a network with only one."""
    return batch_norm is None or PUBLISHED_BATCH_NORM.get(suite, batch_norm) == batch_norm


def find_subsets(paths: TestSetPaths) -> tuple[list[Subset], list[str]]:
    """Return the subsets of all test sets that were given, and the paths below them that belong to none.

    Raises:
        UserError: none was given, one does not exist, or a folder has another layout than its set's.
    """
    ignored: list[str] = []
    found: list[Subset] = []
    if paths.imagenet is not None:
        found.append(Subset(name=IMAGENET, suite=IMAGENET, address=paths.imagenet, labels=paths.labels))
    elif paths.labels is not None:
        raise UserError("--labels belongs to --imagenet, which was not given; leave it out.")
    if paths.imagenet_c is not None:
        found += _with_stored_side(_corrupted(_root(IMAGENET_C, paths.imagenet_c), ignored))
    if paths.imagenet_instagram is not None:
        found += _filtered(_root(INSTAGRAM, paths.imagenet_instagram))
    if paths.imagenet_sketch is not None:
        found.append(Subset(name=SKETCH, suite=SKETCH, address=paths.imagenet_sketch))
    if paths.imagenet_style is not None:
        found += _with_stored_side([Subset(name=STYLE, suite=STYLE, address=paths.imagenet_style)])
    found += _others(paths)
    found += [_own_data_set(address) for address in paths.advbn]
    if not found:
        raise UserError("No test set was given; name one, such as --imagenet ILSVRC2012_val or --imagenet-c DIR.")
    return [replace(subset, limit=paths.limit) for subset in found], ignored


def _others(paths: TestSetPaths) -> list[Subset]:
    """Find the test sets that the paper does not have."""
    given = {name: getattr(paths, name.replace("-", "_")) for name in OTHERS}
    found = [Subset(name=name, suite=name, address=address) for name, address in given.items() if address is not None]
    return [
        each for subset in found
        for each in (_with_stored_side([subset]) if subset.suite in OF_SIXTEEN_CLASSES else [subset])
    ]  # fmt: skip


def _own_data_set(address: str) -> Subset:
    folder = as_path(address)
    if not is_data_set(folder):
        raise UserError(
            f"--advbn {address} is no data set of this program; give a folder that `advbn-gen imagenet-advbn` made."
        )
    name = folder.resolve().name
    if name in PUBLISHED_BATCH_NORM:
        raise UserError(f"The folder {address} is called like another test set; rename it.")
    suite = ADVBN if read_manifest(folder).values["perturbed"] else RECONSTRUCTED
    return Subset(name=name, suite=suite, address=address)


def _root(suite: str, address: str) -> AnyPath:
    root = as_path(address)
    try:
        with os_errors_only(root):
            exists = root.is_dir()
    except OSError as error:
        raise UserError(f"--{suite} {address} cannot be reached ({error.strerror or error}); check it.") from error
    if not exists:
        raise UserError(f"--{suite} {address} is not an existing folder; check the path.")
    return root


def _folders(folder: AnyPath) -> list[AnyPath]:
    try:
        with os_errors_only(folder):
            found = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
            return sorted(found, key=lambda path: path.name)
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror or error}); check its permissions.") from error


def _corrupted(root: AnyPath, ignored: list[str]) -> list[Subset]:
    """Find the subsets of ImageNet-C, in the order of the paper's Table 4, with or without categories."""
    folders: dict[str, AnyPath] = {}
    for path in _corruption_folders(root):
        if path.name not in CORRUPTIONS:
            ignored.append(str(path))
        elif path.name in folders:
            raise UserError(f"{root} holds {path.name} twice, in {folders[path.name]} and {path}; move one out.")
        else:
            folders[path.name] = path
    if not folders:
        raise UserError(
            f"--{IMAGENET_C} {root} holds none of ImageNet-C's corruptions, but {_folder_names(_folders(root))}; "
            "give a folder of <corruption>/<1-5>/<class>/."
        )
    return [subset for name in CORRUPTIONS if name in folders for subset in _severities(folders[name], ignored)]


def _corruption_folders(root: AnyPath) -> Iterator[AnyPath]:
    for path in _folders(root):
        if path.name in CATEGORIES:
            yield from _folders(path)
        else:
            yield path


def _severities(corruption: AnyPath, ignored: list[str]) -> list[Subset]:
    levels = {str(level) for level in SEVERITIES}
    folders = _folders(corruption)
    ignored += [str(path) for path in folders if path.name not in levels]
    found = [path for path in folders if path.name in levels]
    if not found:
        raise UserError(
            f"{corruption} holds no folder of a severity, 1 to {SEVERITIES[-1]}, but {_folder_names(folders)}; give "
            f"--{IMAGENET_C} a folder of <corruption>/<1-5>/<class>/."
        )
    return [
        Subset(name=f"{IMAGENET_C}/{corruption.name}/{path.name}", suite=IMAGENET_C, address=str(path))
        for path in found
    ]


def _filtered(root: AnyPath) -> list[Subset]:
    folders = _folders(root)
    classes = next((path for path in folders if _holds_images(path)), None)
    if classes or not folders:
        held = f"images directly in the folder {classes.name}" if classes else "no folder"
        raise UserError(f"--{INSTAGRAM} {root} holds {held}; give a folder of <filter>/<class>/.")
    if len(folders) > FILTERS:
        raise UserError(
            f"--{INSTAGRAM} {root} holds {len(folders)} folders ({_folder_names(folders)}), but the set has {FILTERS} "
            "filters; move the others out."
        )
    return [Subset(name=f"{INSTAGRAM}/{path.name}", suite=INSTAGRAM, address=str(path)) for path in folders]


def _holds_images(folder: AnyPath) -> bool:
    return any(is_image(path.name) and not path.name.startswith(".") for path in folder.iterdir())


def _folder_names(folders: Sequence[AnyPath]) -> str:
    names = [path.name for path in folders]
    if not names:
        return "no folder at all"
    return ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")


def _with_stored_side(subsets: list[Subset]) -> list[Subset]:
    """Return the subsets of a set with the short side of its first image, which decides whether images are resized.

    One image decides for all, so that every part of a set is prepared in the same way.
    """
    first = subsets[0].open()
    record = first.records[0]
    try:
        side = min(decode_rgb(first.source.read(record), record.name).size)
    except BrokenImageError as error:
        raise UserError(f"{error} It is the first of {first.source.address}; repair or replace it.") from error
    return [replace(subset, cropped_side=side) for subset in subsets]
