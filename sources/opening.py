"""Opens the source at an address, whatever form it is stored in."""

import itertools
import re
from concurrent.futures import ThreadPoolExecutor

from basics.allocation import without_collector
from basics.errors import UserError
from basics.paths import Address, AnyPath, address_text, as_path, is_remote
from basics.reading import exists, is_folder
from sources.base import Source
from sources.cifar import find_in_archive, find_in_folder, open_cifar
from sources.folder import find_split, open_images
from sources.left_out import LeftOut
from sources.listing import Folder, list_folder
from sources.names import Media, choose_split, mentioned_splits
from sources.order import file_order
from sources.shards import MANIFEST, are_shards, open_shards
from sources.tar.scanning import first_members
from sources.tar.source import open_tars

_AT_ONCE = 16
"""Files whose existence is checked at the same time."""
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
_TARS = (".tar", ".tar.gz", ".tgz")
_OTHER_ARCHIVES = (".tar.zst", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.lz4", ".zip", ".7z", ".rar")
"""Extensions of archives that are not read."""


def open_source(
    address: Address,
    *,
    labels: Address | None = None,
    split: str = "val",
    order: Address | None = None,
    media: Media = "image",
) -> Source:
    """Open a source of labelled images or clips, whatever it is stored in.

    Args:
        address: A path, or an address of any file system of fsspec (`s3://`, `gs://`, `hf://`...), of a folder of
            class folders, a flat ILSVRC2012 folder, a tar of either, WebDataset shards (one,
            a folder of them, or a brace pattern such as `x-{000000..000031}.tar`), the published files of
            CIFAR-10 or CIFAR-100 (their folder or archive, binary or Python version), or a folder that holds one
            of these in a sub-folder named as `split`.
        labels: Label list or devkit for a flat ILSVRC2012 folder or tar; a devkit in or beside it is found
            without.
        split: Which split to take where there are several; `val` means `test` where that is what there is.
        order: Text file that names the records in another order than ImageFolder's, one a line.
        media: What its samples are. Clips are read from class folders and tars of such.

    Returns:
        The source. Its images have not been opened.

    Raises:
        UserError: there is nothing of that kind, or it is damaged, unlabelled or inconsistent.
    """
    text = address_text(address)
    path = as_path(text)
    label_path = None if labels is None else as_path(labels)
    try:
        with without_collector():
            source = _open_path(text, path, label_path, split, media)
    except OSError as error:
        raise UserError(_unreadable(error, path)) from error
    if order is not None:
        source.records, source.order = file_order(source.records, as_path(order))
    return source


def _unreadable(error: OSError, path: AnyPath) -> str:
    where, reason = error.filename or path, error.strerror or error
    if is_remote(path):
        return f"{where} cannot be read: {reason}."
    return f"{where} cannot be read ({reason}); check its permissions."


def expand_braces(pattern: str) -> list[str]:
    """Return the names that a brace pattern stands for: `{00..12}`, zero-padded as written, and `{a,b}`."""
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    first, last, words = found.groups()
    if words is None:
        step = 1 if int(first) <= int(last) else -1
        padded = max((len(end) for end in (first, last) if end.startswith("0")), default=0)
        choices = [str(number).zfill(padded) for number in range(int(first), int(last) + step, step)]
    else:
        choices = words.split(",")
    rests = expand_braces(pattern[found.end() :])
    return [pattern[: found.start()] + choice + rest for choice, rest in itertools.product(choices, rests)]


def _open_path(address: str, path: AnyPath, labels: AnyPath | None, split: str, media: Media) -> Source:
    if is_folder(path):
        return _open_folder(address, list_folder(path, media), labels, split)
    if exists(path):
        return _open_archives(address, [path], labels, split, media)
    tars = [as_path(name) for name in expand_braces(str(path))]
    if tars == [path]:
        raise UserError(f"{path} does not exist; check the {'address' if is_remote(path) else 'path'}.")
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        there = list(pool.map(exists, tars))
    missing = [tar for tar, known in zip(tars, there, strict=True) if not known]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(tars)} files of {path} do not exist (such as {missing[0]}); check the pattern."
        )
    return _open_archives(address, tars, labels, split, media)


def open_held_out(address: str, *, media: Media = "image") -> Source:
    """Open the held-out split of a data set, whether it is called `test` or `val`.

    Args:
        address: see `open_source`.
        media: what its samples are.

    Raises:
        UserError: the data set has neither, or cannot be read.
    """
    try:
        return open_source(address, split="test", media=media)
    except UserError as error:
        try:
            return open_source(address, split="val", media=media)
        except UserError:
            raise error from None


def _open_folder(address: str, given: Folder, labels: AnyPath | None, split: str) -> Source:
    tars = _list_tars(given)
    if tars and MANIFEST in given.files():
        # A data set of this program: images in folders beside its shards are not part of it.
        LeftOut(unknown=_other_archives(given)).say(str(given.path))
        return _open_archives(address, _tars_of_split(tars, split, given), labels, split, given.media)
    folder = find_split(given, split)
    found = folder.listing()
    if found.images:
        _refuse_shards_beside(folder, min(found.images))
        beside = dict.fromkeys([folder.path, given.path, folder.path.absolute().parent])
        images = open_images(address, folder.path, found, labels, tuple(beside))
        images.is_split = folder is not given
        return images
    published = find_in_folder(given) if given.media == "image" else None
    if published is not None:
        return open_cifar(address, published, split, labels)
    tars = _list_tars(folder) or tars
    if not tars:
        files = f" of a known kind, but such as {found.left_out.unknown[0]}" if found.left_out.unknown else ""
        others = ", a tar or WebDataset shards" if given.media == "image" else " or a tar of such"
        raise UserError(f"{folder.path} holds no {given.media}s{files}; give a folder of class folders{others}.")
    LeftOut(unknown=[name for name in found.left_out.unknown if "/" in name or not _is_tar(name)]).say(str(folder.path))
    source = _open_archives(address, _tars_of_split(tars, split, folder), labels, split, given.media)
    source.is_split |= folder is not given or bool(mentioned_splits(tar.name for tar in tars))
    return source


def _open_archives(address: str, tars: list[AnyPath], labels: AnyPath | None, split: str, media: Media) -> Source:
    if media == "clip":
        return _open_clip_tars(address, tars, labels, split)
    members = first_members(tars)
    published = find_in_archive(tars[0], members) if len(tars) == 1 else None
    if published is not None:
        return open_cifar(address, published, split, labels)
    source = None if are_shards(members) else open_tars(address, tars, split, labels)
    if source is not None:
        return source
    if labels is not None:
        raise UserError(f"{address} holds shards, which say the labels; leave out the label list {labels}.")
    return open_shards(address, tars)


def _open_clip_tars(address: str, tars: list[AnyPath], labels: AnyPath | None, split: str) -> Source:
    source = open_tars(address, tars, split, labels, "clip")
    if source is None:
        raise UserError(f"{address} holds shards; clips are read from class folders and tars of such, so unpack them.")
    return source


def _list_tars(folder: Folder) -> list[AnyPath]:
    names = sorted(name for name in folder.files() if _is_tar(name) and "devkit" not in name)
    return [folder.path / name for name in names]


def _is_tar(name: str) -> bool:
    return name.lower().endswith(_TARS)


def _other_archives(folder: Folder) -> list[str]:
    """Return the archives of other kinds below a folder, and the tars in its folders."""
    names = folder.listing().left_out.unknown
    return [name for name in names if name.lower().endswith(_OTHER_ARCHIVES) or ("/" in name and _is_tar(name))]


def _refuse_shards_beside(folder: Folder, image: str) -> None:
    """Refuse a folder of images that also holds shards: either may be meant. Gzipped ones are not unpacked for that."""
    plain = [tar for tar in _list_tars(folder) if tar.name.lower().endswith(".tar")]
    if not plain:
        return
    try:
        shards = are_shards(first_members(plain))
    except UserError:
        return  # no tar, or half of one: the images do not need it
    if shards:
        raise UserError(
            f"{folder.path} holds shards (such as {plain[0].name}) and images (such as {image}), so it is not clear "
            f"which are meant; give the shards as one file or a pattern such as {folder.path}/NAME-{{0..9}}.tar, or a "
            f"folder without the shards."
        )


def _tars_of_split(tars: list[AnyPath], split: str, folder: Folder) -> list[AnyPath]:
    by_name = {tar.name: tar for tar in tars}
    return [by_name[name] for name in choose_split(by_name, split, str(folder.path))]
