"""Listing folders: a local one when its content is needed, a remote one once, with all folders below it."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from upath import UPath

from basics.errors import UserError
from basics.paths import AnyPath
from basics.remote import file_system, os_errors_only
from sources.left_out import LeftOut
from sources.names import Media, is_hidden, is_media


class Listing(NamedTuple):
    """The files below a folder, in no particular order."""

    images: list[str]
    """Path of each image (or clip, if those are listed), relative to the folder."""
    left_out: LeftOut
    """The other files, and the folders at the top."""


class Folder(ABC):
    """A folder that is searched for images or clips. Hidden files and folders are left out."""

    path: AnyPath
    """Path of the folder."""
    media: Media
    """What it is searched for."""

    @abstractmethod
    def folders(self) -> list[str]:
        """Return the names of the folders in it.

        Raises:
            OSError: it cannot be listed.
        """

    @abstractmethod
    def files(self) -> list[str]:
        """Return the names of the files in it.

        Raises:
            OSError: it cannot be listed.
        """

    @abstractmethod
    def listing(self) -> Listing:
        """Return all files below it.

        No file is opened and no size is read, so that a million files take seconds.

        Raises:
            OSError: a folder cannot be listed.
            UserError: something with the name of an image (or clip) is a pipe, a socket or a device.
        """

    @abstractmethod
    def into(self, name: str) -> "Folder":
        """Return a folder that is in it."""


def list_folder(path: AnyPath, media: Media = "image") -> Folder:
    """Return a folder. If it is remote, one recursive request lists all that is below it.

    Args:
        path: Path of the folder.
        media: What it is searched for.

    Raises:
        OSError: it cannot be listed.
    """
    if isinstance(path, Path):
        return LocalFolder(path, media)
    with os_errors_only(path):
        system = file_system(path)
        found = system.find(path.path, detail=True)
    # With a slash, so that only whole parts of a name are removed.
    root = system._strip_protocol(path.path).rstrip("/") + "/"
    names = []
    for name, about in found.items():
        # Servers that know links do not say whether one leads to a file; most do.
        if about["type"] not in {"file", "link", "directory"} and is_media(name, media):
            raise UserError(_no_file(name, media))
        if about["type"] in {"file", "link"} and name.startswith(root):
            names.append(name.removeprefix(root))
    return RemoteFolder(path, names, media)


def _no_file(path: str, media: Media) -> str:
    article = "an" if media == "image" else "a"
    return f"{path} has the name of {article} {media} and is a pipe, a socket or a device; move it away."


class LocalFolder(Folder):
    """A folder on a disk. Links are followed, as torchvision does."""

    def __init__(self, path: Path, media: Media = "image") -> None:
        self.path: Path = path
        self.media = media

    def folders(self) -> list[str]:
        """Return the names of the folders in it."""
        with os.scandir(self.path) as entries:
            return [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]

    def files(self) -> list[str]:
        """Return the names of all entries in it that are not folders."""
        with os.scandir(self.path) as entries:
            return [entry.name for entry in entries if not entry.name.startswith(".") and not entry.is_dir()]

    def listing(self) -> Listing:
        """Return all files below it."""
        found = Listing([], LeftOut(media=self.media))
        found.left_out.folders.extend(self.folders())
        _list(os.fspath(self.path), "", found)
        return found

    def into(self, name: str) -> Folder:
        """Return a folder that is in it."""
        return LocalFolder(self.path / name, self.media)


def _list(folder: str, prefix: str, found: Listing) -> None:
    """Add the files below a local folder, whose path relative to the one that is listed is `prefix`."""
    images, left_out = found
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            image = is_media(name, left_out.media)
            if name.startswith("."):
                if image:
                    left_out.hidden.append(prefix + name)
            elif image and entry.is_file():
                images.append(prefix + name)
            elif entry.is_dir():
                _list(entry.path, f"{prefix}{name}/", found)
            elif not image:
                # Only a file may be opened later, to see whether it is a label list.
                (left_out.note if entry.is_file() else left_out.links.append)(prefix + name)
            elif entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110 (a path object for each is slow)
                images.append(prefix + name)  # a link to nothing, which is said when it is read
            else:
                raise UserError(_no_file(entry.path, left_out.media))


class RemoteFolder(Folder):
    """A folder on another file system, as it was when it was listed.

    Args:
        path: Path of the folder.
        names: Every file below it, relative to it.
        media: What it is searched for.
    """

    def __init__(self, path: UPath, names: Iterable[str], media: Media = "image") -> None:
        self.path: UPath = path
        self.media = media
        self._hidden: list[str] = []
        self._names: list[str] = []
        for name in names:
            (self._hidden if is_hidden(name) else self._names).append(name)

    def folders(self) -> list[str]:
        """Return the names of the folders in it."""
        return list(dict.fromkeys(name.partition("/")[0] for name in self._names if "/" in name))

    def files(self) -> list[str]:
        """Return the names of the files in it."""
        return [name for name in self._names if "/" not in name]

    def listing(self) -> Listing:
        """Return all files below it."""
        # As on a disk, hidden folders are not looked into.
        visible = [name for name in self._hidden if not is_hidden(name.rpartition("/")[0])]
        hidden = [name for name in visible if is_media(name, self.media)]
        found = Listing([], LeftOut(hidden=hidden, folders=self.folders(), media=self.media))
        for name in self._names:
            if is_media(name, self.media):
                found.images.append(name)
            else:
                found.left_out.note(name)
        return found

    def into(self, name: str) -> Folder:
        """Return a folder that is in it."""
        prefix = name + "/"
        known = [*self._names, *self._hidden]
        below = (each.removeprefix(prefix) for each in known if each.startswith(prefix))
        return RemoteFolder(self.path / name, below, self.media)
