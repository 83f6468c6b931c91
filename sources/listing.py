"""Listing folders: a local one when its content is needed, a remote one once, with all folders below it."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

from upath import UPath

from basics.paths import AnyPath
from basics.remote import file_system, plain_faults
from sources.names import is_hidden, is_image


class Folder(ABC):
    """A folder that is searched for images. Hidden files and folders are left out."""

    path: AnyPath
    """Path of the folder."""

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
    def images(self) -> Iterator[str]:
        """Yield the paths of all images below it, relative to it, in no particular order.

        No file is opened and no size is read, so that a million files take seconds.

        Raises:
            OSError: a folder cannot be listed.
        """

    @abstractmethod
    def into(self, name: str) -> "Folder":
        """Return a folder that is in it."""


def list_folder(path: AnyPath) -> Folder:
    """Return a folder. If it is remote, one recursive request lists all that is below it.

    Raises:
        OSError: it cannot be listed.
    """
    if isinstance(path, Path):
        return LocalFolder(path)
    with plain_faults(path):
        system = file_system(path)
        found = system.find(path.path, detail=True)
    # With a slash, so that only whole parts of a name are removed.
    root = system._strip_protocol(path.path).rstrip("/") + "/"
    files = (name for name, about in found.items() if about["type"] == "file")
    return RemoteFolder(path, [name.removeprefix(root) for name in files if name.startswith(root)])


class LocalFolder(Folder):
    """A folder on a disk. Links are followed, as torchvision does."""

    def __init__(self, path: Path) -> None:
        self.path: Path = path

    def folders(self) -> list[str]:
        """Return the names of the folders in it."""
        with os.scandir(self.path) as entries:
            return [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]

    def files(self) -> list[str]:
        """Return the names of all entries in it that are not folders."""
        with os.scandir(self.path) as entries:
            return [entry.name for entry in entries if not entry.name.startswith(".") and not entry.is_dir()]

    def images(self) -> Iterator[str]:
        """Yield the paths of all images below it, relative to it, in no particular order."""
        return list_images(os.fspath(self.path))

    def into(self, name: str) -> Folder:
        """Return a folder that is in it."""
        return LocalFolder(self.path / name)


def list_images(folder: str, prefix: str = "") -> Iterator[str]:
    """Yield the paths of all images below a local folder, relative to it, in no particular order.

    Raises:
        OSError: a folder cannot be listed.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from list_images(entry.path, f"{prefix}{entry.name}/")
            elif is_image(entry.name):
                yield prefix + entry.name


class RemoteFolder(Folder):
    """A folder on another file system, as it was when it was listed.

    Args:
        path: Path of the folder.
        names: Every file below it, relative to it.
    """

    def __init__(self, path: UPath, names: Iterable[str]) -> None:
        self.path: UPath = path
        self._names = [name for name in names if not is_hidden(name)]

    def folders(self) -> list[str]:
        """Return the names of the folders in it."""
        return list(dict.fromkeys(name.partition("/")[0] for name in self._names if "/" in name))

    def files(self) -> list[str]:
        """Return the names of the files in it."""
        return [name for name in self._names if "/" not in name]

    def images(self) -> Iterator[str]:
        """Yield the paths of all images below it, relative to it."""
        return filter(is_image, self._names)

    def into(self, name: str) -> Folder:
        """Return a folder that is in it."""
        prefix = name + "/"
        below = (known.removeprefix(prefix) for known in self._names if known.startswith(prefix))
        return RemoteFolder(self.path / name, below)
