"""Which label a class folder has, and the 1,000 classes of ImageNet-1k."""

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from basics.errors import UserError
from basics.progress import say
from sources.base import ClassMap, numbered_classes

WNID = re.compile(r"n\d{8}")
DECLARE_IMAGENET = 'put a file manifest.json with {"classes": {"imagenet": true}} beside them'
"""What a user does whose shards do not say that their labels are ImageNet-1k's."""
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


def named_classes(names: Sequence[str], what: str) -> ClassMap:
    """Return the class map of a network's outputs, which a user names in their order.

    Args:
        names: Name of each output's class.
        what: What names them, for messages.

    Raises:
        UserError: there are none, two are equal, or they are the numbers from 0 on in another order: images in folders
            of numbers are labelled by their numbers.
    """
    repeated = next((name for name in names if list(names).count(name) > 1), None)
    if not names or repeated is not None:
        fault = "names no classes" if repeated is None else f"names the class {repeated} twice"
        raise UserError(f"{what} {fault}; give the name of each output once, in their order.")
    if tuple(names) == imagenet_map().names:
        return imagenet_map()
    numbers = numbered_classes(len(names))
    if set(names) == set(numbers.names) and tuple(names) != numbers.names:
        raise UserError(
            f"{what} names classes by the numbers from 0 on in another order ({', '.join(names[:3])}, ...), but images "
            "in folders of numbers are labelled by these; name the folders and the classes otherwise."
        )
    return ClassMap(names=tuple(names), imagenet=False)


def map_folders(folders: Collection[str], where: str, empty: Collection[str] = ()) -> ClassMap:
    """Return the class map of a set of class folders.

    If all are ImageNet-1k wnids, the labels are the ImageNet-1k indices, however few there are. If all are the whole
    numbers from 0 on, as in ImageNet-V2, the labels are these numbers. Otherwise the labels are positions in the
    sorted folder names, as in torchvision's ImageFolder.

    Args:
        folders: Names of the folders that hold images.
        empty: Names of the folders beside them that hold nothing; they count only where all are numbers.
        where: Name of the source, for messages.

    Raises:
        UserError: some are ImageNet-1k wnids and some are not, or all are numbers, but not those from 0 on. Numbering
            them would give every image a label that a classifier reads as another class, without any sign of it.
    """
    numbers = _numbered({*folders, *empty}, where)
    if numbers is not None:
        return numbers
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


def _numbered(folders: set[str], where: str) -> ClassMap | None:
    """Return the class map of folders that are all named by numbers; None if one is not, or if zeros fill them up.

    Raises:
        UserError: they are not the numbers from 0 on, so that their order does not say which label they stand for.
    """
    if not folders or not all(name.isascii() and name.isdecimal() for name in folders):
        return None
    by_number = sorted(folders, key=int)
    if by_number == list(map(str, range(len(folders)))):
        if by_number != sorted(folders):
            say(f"The class folders of {where} are numbers: the label of each is its number.")
        return numbered_classes(len(folders))
    from_0_on = [int(name) for name in by_number] == list(range(len(folders)))
    # Such as 00 to 11, or years: text and number give the same order. From 0 on with gaps, they are labels themselves.
    if by_number == sorted(folders) and by_number[0] != "1" and (from_0_on or int(by_number[0]) > 0):
        return None
    raise UserError(
        f"The class folders of {where} are numbers ({by_number[0]} to {by_number[-1]}, {len(folders)} of them), but "
        "not those from 0 on, so their labels are not known; name them by their labels, 0, 1, 2 and so on (with an "
        "empty folder for a class without images), or by the classes' names."
    )


class Unnamed(NamedTuple):
    """One of two sets of classes that has no names, so that they cannot be compared."""

    what: str
    """What has the set."""
    notice: str
    """What a user has to know."""


def compare_classes(first: str, classes: ClassMap, second: str, other: ClassMap, advice: str) -> Unnamed | None:
    """Refuse two sets of classes in which a label means two classes; they are compared by their names.

    Args:
        first: What has the first set, for messages.
        classes: The first set.
        second: What has the second set.
        other: The second set.
        advice: End of the message that refuses: what the user can do.

    Returns:
        The one that does not say which classes it has; None if they agree, or if neither does.

    Raises:
        UserError: their numbers or names differ.
    """
    if classes.count != other.count:
        raise UserError(
            f"{_capital(first)} has {classes.count} classes, but {second} has {other.count}; "
            f"{advice}{_declaration(classes, other)}."
        )
    if classes.names == other.names or not (classes.named or other.named):
        return None
    if not (classes.named and other.named):
        what, known = (second, first) if classes.named else (first, second)
        says = f"{_capital(what)} does not say which classes it has"
        return Unnamed(what, f"{says}; they are taken to be those of {known}.")
    label = next(label for label, names in enumerate(zip(classes.names, other.names, strict=True)) if len({*names}) > 1)
    order = ", the same classes in another order" if set(classes.names) == set(other.names) else ""
    raise UserError(
        f"The class {label} is {classes.names[label]} for {first} and {other.names[label]} for {second}{order}; "
        f"{advice}."
    )


def require_agreeing(first: str, classes: ClassMap, second: str, other: ClassMap, advice: str) -> None:
    """Refuse two sets of classes as `compare_classes` does, and print the notice if one of them has no names."""
    unnamed = compare_classes(first, classes, second, other, advice)
    if unnamed is not None:
        say(unnamed.notice)


def _declaration(classes: ClassMap, other: ClassMap) -> str:
    """Return what else a user can do whose labels without names may be ImageNet-1k's; empty if they cannot be."""
    maybe_imagenet = classes.imagenet or (classes.count == imagenet_map().count and not classes.named)
    if other.named or not maybe_imagenet:
        return ""
    return f", or, if it is shards with ImageNet-1k's labels, {DECLARE_IMAGENET}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:] if text.startswith("the ") else text


def label_of(classes: ClassMap) -> dict[str, int]:
    """Return the label of each class name."""
    return {name: label for label, name in enumerate(classes.names)}
