"""Labels from paths: which part of an image's path is its class folder."""

import re
from collections import Counter
from collections.abc import Collection, Sequence

from basics.errors import UserError
from basics.progress import say
from sources.base import ClassMap
from sources.classes import imagenet_index, label_of, map_folders
from sources.left_out import LeftOut
from sources.names import VALIDATION_FILE, Media, canonical_split, is_label, of_split, splits_among

_NO_CLASS = re.compile(r"(jpe?g)?_?images?|imgs?|annotations?|segmentations?|labels?", re.IGNORECASE)
"""Names of folders that hold a data set's images, or their annotations, beside each other."""
_FOLD = re.compile(r"(fold|split|part|subset|batch)[ _-]*\d+", re.IGNORECASE)
"""Names of parts of a data set, each of which has all classes."""
_NEARLY_ALL = 0.9
"""Share of all images above which the validation images in one folder are not a class beside others."""
_SHOWN = 4
"""How many folders a message names."""


def label_folders(
    names: Collection[str], where: str, left_out: LeftOut | None = None, *, archive: bool = False
) -> tuple[dict[str, int], ClassMap]:
    """Label images or clips by the first folder of their paths.

    Folders without images are no classes, on a disk as in a tar.

    Args:
        names: `<class folder>/<any folders/><file>` of each image.
        where: Name of the source, for messages.
        left_out: What lies beside the images, by its path as in `names`; it says whether they are clips.
        archive: Whether the folders are those of a tar.

    Raises:
        UserError: the folders are no consistent set of classes, lie one level further down, or one of them holds
            files, but no image of a known kind.
    """
    left_out = left_out or LeftOut()
    # Of a million images there are few folders, so each look at the paths but this one is quick.
    parents = {name.rpartition("/")[0] for name in names}
    folders = {parent.partition("/")[0] for parent in parents}
    if not folders <= imagenet_index().keys():
        _refuse_too_high(parents, where, left_out.media, archive=archive)
        _refuse_published(names, where, archive=archive)
    _refuse_unknown(folders, left_out, where, archive=archive)
    left_out.folders = sorted(left_out.class_folders(folders))
    # Only numbers count the classes that have no images as well; another folder beside them is none.
    classes = map_folders(folders, where, [name for name in left_out.folders if name.isdecimal()])
    left_out.say(where)
    label = label_of(classes)
    return {name: label[name.partition("/")[0]] for name in names}, classes


def _refuse_unknown(folders: set[str], left_out: LeftOut, where: str, *, archive: bool) -> None:
    """Refuse folders of files that are no images by their names: they may be classes, and shift the other labels.

    The labels of ImageNet's class folders are fixed, so there the notice of what is left out is enough.
    """
    for name in () if folders <= imagenet_index().keys() else left_out.unknown:
        top, slash, _ = name.partition("/")
        if slash and top not in folders:
            out = "pack the tar again without it" if archive else "move the folder out"
            form = "PNG" if left_out.media == "image" else "MP4"
            raise UserError(
                f"The folder {top} of {where} has files, but no {left_out.media} of a known kind (such as {name}); if "
                f"it is a class, convert its files, e.g. to {form}; if not, {out}."
            )
    label = next(filter(is_label, left_out.documents), None)
    if label is not None:
        raise UserError(f"{where} holds unpacked samples with labels (such as {label}); give their shards.")


def refuse_backslashes(names: Collection[str], where: str, media: Media = "image", *, archive: bool = False) -> None:
    """Refuse images whose names all hold backslashes where folders are meant, as some programs on Windows write them.

    Raises:
        UserError: the names of all images that do not lie beside the class folders hold one.
    """
    inside = [name for name in names if "/" in name or "\\" in name]
    if inside and all("\\" in name.rpartition("/")[2] for name in inside):
        advice = "pack them again with /" if archive else f"move each {media} into the folders that its name says"
        raise UserError(
            f"The names of the {media}s of {where} have backslashes and not / between folders (such as {min(inside)}); "
            f"{advice}."
        )


def _refuse_published(names: Collection[str], where: str, *, archive: bool) -> None:
    """Refuse a folder around the flat folder of ILSVRC2012's validation images, which is no class.

    Several folders with some of these images are classes that were sorted out of them, and named in a notice.
    """
    found = [name.rpartition("/") for name in names if "/ILSVRC2012_val" in name]
    files = Counter(parent for parent, _, file in found if VALIDATION_FILE.fullmatch(file))
    parent = next(iter(files), "")
    if len(files) == 1 and parent not in imagenet_index() and files[parent] >= _NEARLY_ALL * len(names):
        raise UserError(
            f"{where} holds ILSVRC2012 validation images in the folder {parent}, which is no class; "
            f"give that folder itself, {_folder(where, parent, archive)}, with --labels."
        )
    taken = sorted(files.keys() - imagenet_index().keys())
    if taken:
        more = " and others" if len(taken) > _SHOWN else ""
        say(
            f"{where} holds ILSVRC2012 validation images in {', '.join(taken[:_SHOWN])}{more}, which are taken for "
            "classes; if they are none, put all images into one folder and give it with --labels."
        )


def _refuse_too_high(parents: set[str], where: str, media: Media, *, archive: bool) -> None:
    """Refuse folders above the class folders, or splits; print a notice where folders may be something else.

    Args:
        parents: Path of each folder that holds images.
        where: Name of the source, for messages.
        media: What the images are, for messages.
        archive: Whether the folders are those of a tar.
    """
    flat = {parent for parent in parents if "/" not in parent}
    nested = {tuple(parent.split("/", 2)[:2]) for parent in parents - flat}
    folders = flat | {top for top, _ in nested}
    below = {name for _, name in nested}
    _refuse_stray(folders - flat, flat, where, media, archive=archive)
    if below and below <= imagenet_index().keys():
        parent, name = min(nested)
        raise UserError(
            f"{where} has the ImageNet-1k class folders (such as {name}) one level further down, in {parent}; "
            f"give that folder, {_folder(where, parent, archive)}."
        )
    splits = splits_among(folders)
    if splits:
        chosen = next((name for name in sorted(splits) if "train" in name.lower()), min(splits))
        others = folders - splits
        beside = f"beside other folders of {media}s ({_shown(others)})" if others else "and no classes"
        raise UserError(
            f"{where} holds the splits {_shown(splits)} {beside}; give one of the splits, such as "
            f"{_folder(where, chosen, archive)}."
        )
    _refuse_second_tree(nested, flat, where, archive=archive)
    if len(folders) == 1 and not flat:
        _refuse_single(parents, where, media, archive=archive)
    if len(folders) == 1:
        _notice_one_class(min(folders), below, where, media, archive=archive)


def _refuse_second_tree(nested: set[tuple[str, ...]], flat: set[str], where: str, *, archive: bool) -> None:
    """Refuse folders one level too high that hold the classes twice; where they may be classes, name them.

    Args:
        nested: Folder and sub-folder of each image that lies in a sub-folder.
        flat: Folders that hold images themselves.
        where: Name of the source, for messages.
        archive: Whether the folders are those of a tar.
    """
    below: dict[str, set[str]] = {}
    for top, name in nested:
        below.setdefault(top, set()).add(name)
    folders, deep = flat | below.keys(), sorted(below.keys() - flat)
    if len(folders) == 1 or not deep:
        return
    inner = set[str]().union(*below.values())
    for top in deep:
        if below[top] <= folders and top not in inner:
            out = "pack the tar again without it" if archive else "move it out"
            raise UserError(
                f"{where} has folders of the same names ({_shown(below[top])}) beside its folder {top} and in it, so "
                f"it is not clear what its classes are; give {_folder(where, top, archive)}, or {out}."
            )
    counts = Counter(name for top in deep for name in below[top])
    shared = {name for name, count in counts.items() if count > 1}
    if shared and (any(map(_NO_CLASS.fullmatch, deep)) or all(map(_FOLD.fullmatch, deep))):
        chosen = next((top for top in deep if "image" in top.lower()), deep[0])
        raise UserError(
            f"The folders {_shown(deep)} of {where} are no classes, and have folders of the same names in them "
            f"({_shown(shared)}); give one of them, such as {_folder(where, chosen, archive)}."
        )
    say(
        f"The folders {_shown(folders)} of {where} are taken for its classes, and folders in them (such as "
        f"{deep[0]}/{min(below[deep[0]])}) for parts of them; if those are the classes, give the folder above them."
    )


def _notice_one_class(name: str, below: set[str], where: str, media: Media, *, archive: bool) -> None:
    """Refuse a split as the only class, and name any other."""
    if canonical_split(name):
        raise UserError(
            f"{where} holds {media}s in the folder {name}, which is a split and no class; give "
            f"{_folder(where, name, archive)}{'' if below or media == 'clip' else ', with --labels'}."
        )
    parts = f"; its folders (such as {min(below)}) are taken for parts of it" if below else ""
    say(f"{where} has one class, {name}{parts}.")


def _refuse_single(parents: set[str], where: str, media: Media, *, archive: bool) -> None:
    """Refuse one folder around the class folders, and name the lowest folder that holds all images."""
    paths, meant = [f"{parent}/" for parent in parents], ""
    while (shared := _shared_parent(paths)) is not None:
        paths, meant = [path.removeprefix(shared) for path in paths], meant + shared
    if meant:
        meant = meant.rstrip("/")
        raise UserError(
            f"All {media}s of {where} lie in its one folder {meant}, and there in the folders "
            f"{_shown({path.partition('/')[0] for path in paths})}; give {_folder(where, meant, archive)}."
        )


def _refuse_stray(deep: set[str], flat: set[str], where: str, media: Media, *, archive: bool) -> None:
    """Refuse splits of class folders beside a folder of images.

    Args:
        deep: Folders that hold images only in folders of their own.
        flat: The other folders.
        where: Name of the source, for messages.
        media: What the images are, for messages.
        archive: Whether the folders are those of a tar.
    """
    splits = sorted(name for name in deep if canonical_split(name))
    if not splits or not flat:
        return
    inside = _folder(where, splits[0], archive)
    if splits == ["train"] and not archive:
        # Unlike the other names of splits, `train` may be a class: pictures of trains.
        say(f"train of {where} is taken for a class, like {_shown(flat)}; if it holds classes, give {inside}.")
        return
    raise UserError(
        f"{where} holds the splits {_shown(splits)} beside other folders of {media}s ({_shown(flat)}), so it is not "
        f"clear what its classes are; give one of the splits, such as {inside}."
    )


def _folder(where: str, folder: str, archive: bool) -> str:
    """Return how to name a folder that is to be given instead of `where`."""
    return f"{folder} unpacked" if archive else f"{where.rstrip('/')}/{folder}"


def _shown(folders: Collection[str]) -> str:
    rest = len(folders) - _SHOWN
    return ", ".join(sorted(folders)[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def strip_parents(names: Sequence[str], split: str, where: str) -> dict[str, str]:
    """Remove the folders before the class folders from the paths in a tar.

    These are the folders that all images share, as long as a class folder remains, and then the folder of the
    split.

    Returns:
        The path in the tar of each shortened path.

    Raises:
        UserError: the tar holds splits, but not this one.
    """
    paths = {name: name for name in names}
    while (shared := _shared_parent(paths)) is not None:
        paths = {short.removeprefix(shared): name for short, name in paths.items()}
    tops = {short.partition("/")[0] for short in paths if short.count("/") > 1}
    stray = {short.partition("/")[0] for short in paths if short.count("/") == 1} - tops
    splits = all(canonical_split(top) or top == split for top in tops | stray)
    if not tops or not (splits or (not stray and splits_among(tops) == tops)):
        return paths
    chosen = of_split(tops, split)
    if not chosen:
        found = ", ".join(sorted(tops))
        raise UserError(
            f"{where} has no folder named {split}, but {found}; give another --split, or one of them, unpacked."
        )
    prefix = (split if split in chosen else min(chosen)) + "/"
    return {short.removeprefix(prefix): name for short, name in paths.items() if short.startswith(prefix)}


def _shared_parent(paths: Collection[str]) -> str | None:
    """Return `<folder>/` if all paths start with it and go on below it, and it is no class or split."""
    first = next(iter(paths), "")
    top = first.partition("/")[0]
    if top in imagenet_index() or canonical_split(top):
        return None
    prefix = top + "/"
    return prefix if paths and all(path.startswith(prefix) and path.count("/") > 1 for path in paths) else None
