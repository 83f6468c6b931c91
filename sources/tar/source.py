"""Images in tars, read in place: by offset, with nothing unpacked to the disk."""

import functools
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from basics.errors import UserError
from basics.paths import AnyPath
from basics.progress import say
from sources.base import ClassMap, ImageRecord, Source
from sources.classes import imagenet_index, imagenet_map
from sources.content import FileState, state_of
from sources.ilsvrc import LIST_BEGINNING, LISTS, label_flat, names_images
from sources.layout import label_folders, refuse_backslashes, strip_parents
from sources.left_out import LeftOut
from sources.names import Media, canonical_split, check_printable, is_label, is_media
from sources.order import IMAGE_FOLDER, image_folder_order
from sources.storage import RandomAccessFile, open_random_access
from sources.tar.scanning import Location, MemberTable, Scanned, Tar, scan_each

_OPEN_TARS = 64
"""Tars kept open at once: a data set may have more shards than a process may have open files."""


class TarSource(Source):
    """Images in one or more tars.

    Args:
        address: Address of the source, as the user gave it.
        tars: The tars.
        labels: Label of each record name.
        locations: Location of each record name's image.
        classes: What the labels mean.
    """

    def __init__(
        self, address: str, tars: Sequence[Tar], labels: Mapping[str, int], locations: MemberTable, classes: ClassMap
    ) -> None:
        self.address = address
        self.records = image_folder_order(labels)
        self.classes = classes
        self.order = IMAGE_FOLDER
        self._tars = tuple(tars)
        self._locations = locations
        self._open = functools.lru_cache(maxsize=_OPEN_TARS)(_open_tar)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open files out: each process opens its own."""
        return {key: value for key, value in self.__dict__.items() if key != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open = functools.lru_cache(maxsize=_OPEN_TARS)(_open_tar)

    def part(self, records: Sequence[ImageRecord]) -> Self:
        """Return the same source reduced to some of its records, their locations and their tars."""
        part = super().part(records)
        part._locations, tars = self._locations.part(record.name for record in records)
        part._tars = tuple(self._tars[tar] for tar in tars)
        part._open = functools.lru_cache(maxsize=_OPEN_TARS)(_open_tar)
        return part

    def read(self, record: ImageRecord) -> bytes:
        """Return the encoded bytes of one image, exactly as stored.

        Raises:
            OSError: it cannot be read.
        """
        tar, offset, size = self._locations[record.name]
        content = self._open(self._tars[tar]).read(offset, size)
        if len(content) < size:
            raise OSError(f"{self._tars[tar].path} has become shorter since it was listed")
        return content

    def file_states(self, records: Sequence[ImageRecord]) -> list[FileState]:
        """Return the states of the tars that hold some of its records.

        Raises:
            OSError: a server does not say.
        """
        return list(self._tar_states(records).values())

    def record_states(self, records: Sequence[ImageRecord]) -> list[FileState]:
        """Return the state of the tar that holds each of some of its records.

        Raises:
            OSError: a server does not say.
        """
        states = self._tar_states(records)
        return [states[self._locations[record.name].tar] for record in records]

    def _tar_states(self, records: Sequence[ImageRecord]) -> dict[int, FileState]:
        tars = {self._locations[record.name].tar for record in records}
        return {tar: state_of(self._tars[tar].path) for tar in sorted(tars)}


def _open_tar(tar: Tar) -> RandomAccessFile:
    return open_random_access(tar.path, gzipped=tar.gzipped)


@dataclass
class _Images:
    """The images of one tar, in columns, and what else it holds."""

    names: list[str] = field(default_factory=list)
    offsets: "array[int]" = field(default_factory=lambda: array("q"))
    sizes: "array[int]" = field(default_factory=lambda: array("q"))
    left_out: LeftOut = field(default_factory=LeftOut)
    lists: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Offset and size of each text that may be a label list."""
    described: str = ""
    """A file that belongs to one image by its name, such as a text, if there is one."""


def _list_images(tar: Scanned) -> _Images:
    media = tar.scan.unused.media
    found = _Images()
    for chunk in tar.scan.chunks():
        rows = [row for row, name in enumerate(chunk.names) if is_media(name, media)]
        found.names += [chunk.names[row] for row in rows]
        found.offsets.extend(chunk.offsets[row] for row in rows)
        found.sizes.extend(chunk.sizes[row] for row in rows)
        if len(rows) < len(chunk.names):
            for name, offset, size in zip(chunk.names, chunk.offsets, chunk.sizes, strict=True):
                if not is_media(name, media):
                    found.left_out.note(name)
                    if name.endswith(LISTS):
                        found.lists[name] = offset, size
    unused = tar.scan.unused
    found.left_out.folders, found.left_out.hidden, found.left_out.links = unused.folders, unused.hidden, unused.links
    _separate(found)
    return found


def _separate(found: _Images) -> None:
    """Remove the documents that belong to one image each, of which there may be as many as there are images."""
    left_out = found.left_out
    if not left_out.documents and not left_out.unknown:
        return
    stems = {_stem(name) for name in found.names}
    found.described = next((name for name in left_out.documents + left_out.unknown if _stem(name) in stems), "")
    if found.described:
        left_out.documents = [name for name in left_out.documents if is_label(name) or _stem(name) not in stems]
        found.lists = {name: where for name, where in found.lists.items() if _stem(name) not in stems}


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _index(names: list[str], locations: MemberTable, tars: Sequence[Tar]) -> list[str]:
    """Give the rows of `locations` their names; return those that come more than once in a tar.

    Raises:
        UserError: two tars hold the same name.
    """
    # Of a name that comes twice in one tar the last counts, as when it is unpacked.
    locations.rows = dict(zip(names, range(len(names)), strict=True))
    if len(locations.rows) == len(names):
        return []
    first: dict[str, int] = {}
    repeated = []
    for name, tar in zip(names, locations.tars, strict=True):
        if name in first:
            repeated.append(name)
        if first.setdefault(name, tar) != tar:
            raise UserError(f"{tars[tar].path} holds {name}, as {tars[first[name]].path} does; take one away.")
    return repeated


def open_tars(
    address: str, tars: Sequence[AnyPath], split: str, labels: AnyPath | None, media: Media = "image"
) -> TarSource | None:
    """Make a source of tars of class folders, or of a flat ILSVRC tar with its label list.

    A notice says what else they hold.

    Args:
        address: Address of the source, as the user gave it.
        tars: The tars; together they hold one data set.
        split: The folder to take where a tar holds several splits.
        labels: The user's label list, for a flat tar.
        media: What the samples are.

    Returns:
        The source; None if there are labels of samples in the tars, which are shards then.

    Raises:
        UserError: there is no image, a name comes twice, the labels are missing or wrong, or there is a label list for
            class folders.
    """
    names: list[str] = []
    locations, scanned, left_out = MemberTable(), [], LeftOut(media=media)
    lists: dict[str, Location] = {}
    described = ""
    for number, (tar, found) in enumerate(scan_each(tars, _list_images, media)):
        scanned.append(tar)
        names += found.names
        locations.extend(number, found.offsets, found.sizes)
        left_out.extend(found.left_out)
        lists |= {name: Location(number, *where) for name, where in found.lists.items()}
        described = described or found.described
    if any(map(is_label, left_out.documents)):
        return None
    if not names:
        shards = " or WebDataset shards" if media == "image" else ""
        raise UserError(f"{address} holds no {media}{_such_as(left_out)}; give a tar of class folders{shards}.")
    left_out.repeated = _index(names, locations, scanned)
    check_printable(locations.rows, address)
    if labels is None:
        refuse_backslashes(locations.rows, address, media, archive=True)
    nested = [name for name in locations.rows if "/" in name]
    if nested and labels is None:
        left_out.beside = [name for name in locations.rows if "/" not in name]
        _notice_described(address, nested, described)
        paths = strip_parents(nested, split, address)
        _refuse_listed(address, paths, lists, scanned)
        return _open_nested(address, scanned, locations, paths, _below(left_out, paths, nested))
    if labels is None and described and media == "image":
        raise UserError(
            f"The samples of {address} have no labels: {described} lies beside its image, and no .cls; give shards "
            f"with labels, or a label list as --labels."
        )
    if media == "clip":
        raise UserError(f"{address} holds clips and no class folders; pack the clips of each class in a folder.")
    source = _open_flat(address, scanned, locations, labels)
    left_out.folders = []
    left_out.say(address)
    return source


def _such_as(left_out: LeftOut) -> str:
    if left_out.hidden:
        return f" but hidden ones (such as {left_out.hidden[0]})"
    return f" of a known kind, but such as {left_out.unknown[0]}" if left_out.unknown else ""


def _refuse_listed(address: str, paths: Mapping[str, str], lists: Mapping[str, Location], tars: Sequence[Tar]) -> None:
    """Refuse a tar whose images lie in one folder, with their label list beside it: that folder is no class."""
    if not lists:
        return
    folders = {path.rpartition("/")[0] for path in paths}
    folder = folders.pop()
    if folders or folder.partition("/")[0] in imagenet_index():
        return
    files = {path.rpartition("/")[2] for path in paths}
    parent = next(iter(paths.values())).rpartition("/")[0].rpartition("/")[0]
    for name, (tar, offset, size) in lists.items():
        beside = name.rpartition("/")[0] == parent
        if beside and names_images(_open_tar(tars[tar]).read(offset, min(size, LIST_BEGINNING)), files):
            raise UserError(
                f"{name} in {address} lists the images of the folder {folder}, which is no class; unpack it, and give "
                f"that folder with --labels {name.rpartition('/')[2]}."
            )


def _notice_described(address: str, names: Sequence[str], described: str) -> None:
    """Refuse images with a file each and no label, or say so: they may be shards whose folders are no classes."""
    if not described:
        return
    folders = {name.rpartition("/")[0] for name in names}
    if len(folders) == 1 and folders.isdisjoint(imagenet_index()):
        raise UserError(
            f"The samples of {address} have no labels: {described} lies beside its image, and no .cls, and their one "
            f"folder {folders.pop()} tells no classes apart; give shards with labels."
        )
    say(f"The folders of {address} are taken for classes; files beside the images (such as {described}) are not read.")


def _open_nested(
    address: str, tars: Sequence[Tar], locations: MemberTable, paths: Mapping[str, str], left_out: LeftOut
) -> TarSource:
    left_out.beside += [path for path in paths if "/" not in path]
    parent = _parent(paths).rstrip("/").rpartition("/")[2]
    table, classes = label_folders([path for path in paths if "/" in path], address, left_out, archive=True)
    rows = locations.rows
    locations.rows = {path: rows[paths[path]] for path in table}
    source = TarSource(address, tars, table, locations, classes)
    source.is_split = canonical_split(parent) is not None
    return source


def _below(left_out: LeftOut, paths: Mapping[str, str], images: Sequence[str]) -> LeftOut:
    """Return what lies beside the images as seen from the folder of their class folders.

    Args:
        left_out: The same by paths in the tar.
        paths: Path in the tar of each path from that folder.
        images: Paths in the tar of all images; if there are more than `paths`, it holds other splits.
    """
    prefix = _parent(paths)
    below = left_out.moved_into(prefix)
    if len(paths) < len(images):
        below.outside = []
        below.splits = [name for name in images if not name.startswith(prefix)]
    return below


def _parent(paths: Mapping[str, str]) -> str:
    """Return the folder (`<folder>/`, or empty) of the class folders, of the path in the tar of each path from it."""
    short, whole = next(iter(paths.items()))
    return whole.removesuffix(short)


def _open_flat(address: str, tars: Sequence[Tar], locations: MemberTable, labels: AnyPath | None) -> TarSource:
    if len({name.rpartition("/")[0] for name in locations.rows}) > 1:
        raise UserError(f"{address} has class folders, which say the labels; leave out the label list {labels}.")
    by_file = {name.rpartition("/")[2]: row for name, row in locations.rows.items()}
    table = label_flat(list(by_file), labels, address, [tars[0].path.parent])
    locations.rows = {name: by_file[name.rpartition("/")[2]] for name in table}
    return TarSource(address, tars, table, locations, imagenet_map())
