"""Which label a class folder has, and the 1,000 classes of ImageNet-1k."""

import re
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from basics.errors import UserError
from sources.base import ClassMap

WNID = re.compile(r"n\d{8}")
_TABLE = Path(__file__).with_name("imagenet_classes.tsv")


@cache
def _imagenet_rows() -> tuple[tuple[str, str], ...]:
    lines = _TABLE.read_text(encoding="utf-8").splitlines()[1:]
    return tuple((wnid, name) for _, wnid, name in (line.split("\t") for line in lines))


@cache
def imagenet_index() -> Mapping[str, int]:
    """Return the ImageNet-1k index (0 to 999, the order of torchvision's classifiers) of each wnid."""
    return MappingProxyType({wnid: index for index, (wnid, _) in enumerate(_imagenet_rows())})


@cache
def imagenet_names() -> tuple[str, ...]:
    """Return the English name at each ImageNet-1k index, e.g. `tench` at 0."""
    return tuple(name for _, name in _imagenet_rows())


@cache
def imagenet_map() -> ClassMap:
    """Return the class map of ImageNet-1k: 1,000 wnids, also for a source that holds only some of them."""
    return ClassMap(names=tuple(wnid for wnid, _ in _imagenet_rows()), imagenet=True)


def map_folders(folders: Collection[str], where: str) -> ClassMap:
    """Return the class map of a set of class folders.

    If all are ImageNet-1k wnids, the labels are the ImageNet-1k indices, however few there are. If none is,
    the labels are positions in the sorted folder names, as in torchvision's ImageFolder.

    Args:
        folders: Names of the folders that hold images.
        where: Name of the source, for messages.

    Raises:
        UserError: some are ImageNet-1k wnids and some are not. Numbering them would give every image a label
            that an ImageNet classifier reads as another class, without any sign of it.
    """
    known = imagenet_index().keys() & set(folders)
    strange = sorted(set(folders) - known)
    if known and strange:
        raise UserError(
            f"{where} mixes {len(known)} ImageNet-1k class folders (such as {min(known)}) with "
            f"{len(strange)} other folders of images (such as {strange[0]}), so no labels fit both; "
            f"move the others out."
        )
    if known:
        return imagenet_map()
    return ClassMap(names=tuple(strange), imagenet=False)


def label_of(classes: ClassMap) -> dict[str, int]:
    """Return the label of each class name."""
    return {name: label for label, name in enumerate(classes.names)}
