"""Labels from paths: which part of an image's path is its class folder."""

from collections.abc import Collection, Sequence

from basics.errors import UserError
from sources.base import ClassMap
from sources.classes import imagenet_index, label_of, map_folders
from sources.names import VALIDATION_FILE, canonical_split, of_split


def label_folders(names: Collection[str], where: str) -> tuple[dict[str, int], ClassMap]:
    """Label images by the first folder of their paths.

    Folders without images are no classes, on a disk as in a tar.

    Args:
        names: `<class folder>/<any folders/><file>` of each image.
        where: Name of the source, for messages.

    Raises:
        UserError: the folders are no consistent set of classes, or lie one level further down.
    """
    folders = {name.partition("/")[0] for name in names}
    classes = map_folders(folders, where)
    if not classes.imagenet:
        _refuse_too_high(names, folders, where)
    label = label_of(classes)
    return {name: label[name.partition("/")[0]] for name in names}, classes


def _refuse_too_high(names: Collection[str], folders: set[str], where: str) -> None:
    below = {name.split("/", 2)[1] for name in names if name.count("/") > 1}
    if below and below <= imagenet_index().keys():
        raise UserError(
            f"{where} has the ImageNet-1k class folders (such as {min(below)}) one level further down, "
            f"in {min(folders)}; give that folder."
        )
    if any(VALIDATION_FILE.fullmatch(name.rpartition("/")[2]) for name in names):
        raise UserError(
            f"{where} holds ILSVRC2012 validation images in the folder {min(folders)}, which is no class; "
            f"give that folder itself, with --labels."
        )


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
    if not tops or not all(canonical_split(top) or top == split for top in tops):
        return paths
    chosen = of_split(tops, split)
    if not chosen:
        raise UserError(f"{where} has no folder named {split}, but {', '.join(sorted(tops))}; give another --split.")
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
