"""CIFAR-10 and CIFAR-100 from their published files: the binary and the Python version, unpacked or not."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from basics.errors import UserError
from basics.paths import AnyPath
from sources.base import ClassMap, ImageRecord
from sources.listing import Folder
from sources.names import is_image, of_split
from sources.pickled import PickledArray, PickleFormatError, read_table
from sources.storage import RandomAccessFile, open_random_access
from sources.tar.scanning import MemberTable, Tar, scan_tars
from sources.tar.source import TarSource

SIDE = 32
_PICTURE_BYTES = 3 * SIDE * SIDE
"""Bytes of a picture: its red plane, its green and its blue one."""
_ADVICE = "download or unpack it again"


class CifarSource(TarSource):
    """Pictures whose bare pixels lie in larger files, read in place like the members of a tar."""

    def read(self, record: ImageRecord) -> bytes:
        """Return one picture as PNG: losslessly, and always the same bytes.

        Raises:
            OSError: it cannot be read.
        """
        return _png(np.frombuffer(super().read(record), np.uint8).reshape(3, SIDE, SIDE))


@dataclass(frozen=True, kw_only=True)
class _Form:
    """One of the published forms of a data set."""

    folder: str
    """Name of the folder in the archive."""
    classes: int
    """Number of classes."""
    names: str
    """File of the class names."""
    parts: dict[str, tuple[str, ...]]
    """Files with the pictures of each split."""
    label_bytes: int = 0
    """Binary version: label bytes before each picture; the last is the class."""
    name_key: str = ""
    """Python version: key of the class names in their pickle."""
    label_key: str = ""
    """Python version: key of the labels in a pickle of pictures."""

    def files_among(self, present: Iterable[str]) -> list[str]:
        """Return which of its files are present; none if it is a single one, which may have the name by chance."""
        own = {self.names, *self.parts["train"], *self.parts["test"]}.intersection(present)
        return sorted(own) if len(own) > 1 else []


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_FORMS = (
    _Form(
        folder="cifar-10-batches-bin", classes=10, names="batches.meta.txt", label_bytes=1,
        parts={"train": tuple(f"{batch}.bin" for batch in _BATCHES), "test": ("test_batch.bin",)},
    ),
    _Form(
        folder="cifar-10-batches-py", classes=10, names="batches.meta", name_key="label_names", label_key="labels",
        parts={"train": _BATCHES, "test": ("test_batch",)},
    ),
    _Form(
        folder="cifar-100-binary", classes=100, names="fine_label_names.txt", label_bytes=2,
        parts={"train": ("train.bin",), "test": ("test.bin",)},
    ),
    _Form(
        folder="cifar-100-python", classes=100, names="meta", name_key="fine_label_names", label_key="fine_labels",
        parts={"train": ("train",), "test": ("test",)},
    ),
)  # fmt: skip


class _FileLocation(NamedTuple):
    """Where one of the published files lies: a file, or a part of an archive."""

    path: AnyPath
    file: RandomAccessFile
    offset: int
    size: int


@dataclass(frozen=True, kw_only=True)
class PublishedFiles:
    """The files of one published data set, found in a folder or an archive."""

    where: str
    """Folder or archive, for messages."""
    form: _Form
    """Form in which they are published."""
    locations: dict[str, _FileLocation]
    """Location of each file by its name."""

    def location(self, name: str) -> _FileLocation:
        """Return where one of the files lies.

        Raises:
            UserError: it is missing.
        """
        if name not in self.locations:
            raise UserError(f"{self.where} lacks {name}, a file of the published {self.form.folder}; {_ADVICE}.")
        return self.locations[name]

    def content(self, name: str) -> bytes:
        """Return the bytes of one of the files.

        Raises:
            UserError: it is missing.
            OSError: it cannot be read.
        """
        _, file, offset, size = self.location(name)
        return file.read(offset, size)

    def damaged(self, name: str, fault: str) -> UserError:
        """Return the error that says what is wrong with one of the files."""
        return UserError(f"The file {name} of {self.where} {fault}; {_ADVICE}.")


def find_in_folder(folder: Folder) -> PublishedFiles | None:
    """Return the published files in a folder, or in a sub-folder that has the published name.

    Raises:
        UserError: it holds both CIFAR-10 and CIFAR-100.
        OSError: it cannot be read.
    """
    folders = folder.folders()
    found = [
        PublishedFiles(
            where=str(where.path), form=form, locations={name: _whole_file(where.path / name) for name in names}
        )
        for form in _FORMS
        for where in (folder, *(folder.into(name) for name in folders if name == form.folder))
        if (names := form.files_among(where.files()))
    ]
    if len({published.form.classes for published in found}) > 1:
        raise UserError(f"{folder.path} holds both CIFAR-10 and CIFAR-100; give the folder of one.")
    return found[0] if found else None


def find_in_archive(tar: AnyPath, members: Iterable[str]) -> PublishedFiles | None:
    """Return the published files in a tar.

    Args:
        tar: The tar.
        members: Names of its first members; the published archives have no more than ten.

    Raises:
        UserError: it cannot be read, or holds images as well.
    """
    files = [PurePosixPath(name).name for name in members]
    form = next((form for form in _FORMS if form.files_among(files)), None)
    if form is None:
        return None
    locations = {}
    for _, file, (name, offset, size) in scan_tars([tar]):
        if is_image(name):
            raise UserError(f"{tar} holds {form.folder} and images (such as {name}); give a tar of one of the two.")
        locations[PurePosixPath(name).name] = _FileLocation(tar, file, offset, size)
    return PublishedFiles(where=str(tar), form=form, locations=locations)


def open_cifar(address: str, published: PublishedFiles, split: str, labels: AnyPath | None) -> CifarSource:
    """Make a source of published files.

    Args:
        address: Address of the source, as the user gave it.
        published: The files.
        split: `train` or `test`; `val` means the latter.
        labels: The user's label list, which is refused: the files hold the labels.

    Raises:
        UserError: a file is missing or damaged, there is no such split, or a label list is given.
        OSError: a file cannot be read.
    """
    form = published.form
    if labels is not None:
        raise UserError(f"{address} holds {form.folder}, which says the labels; leave out the label list {labels}.")
    chosen = of_split(form.parts, split)
    if not chosen:
        raise UserError(f"{address} has the splits train and test, and no {split}; give one of them as --split.")
    files = form.parts[chosen[0]]
    classes = _class_names(published)
    table: dict[str, int] = {}
    locations = MemberTable()
    for number, file in enumerate(files):
        for index, (label, offset) in enumerate(_pictures(published, file)):
            name = f"{classes[label]}/{PurePosixPath(file).stem}-{index:05}.png"
            table[name] = label
            locations.add(name, number, offset, _PICTURE_BYTES)
    tars = [Tar(published.location(file).path) for file in files]
    return CifarSource(address, tars, table, locations, ClassMap(names=classes, imagenet=False))


def _png(planes: npt.NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    # Not compressed, because it is decoded at once.
    Image.fromarray(planes.transpose(1, 2, 0)).save(stream, "PNG", compress_level=0)
    return stream.getvalue()


def _whole_file(path: AnyPath) -> _FileLocation:
    file = open_random_access(path)
    return _FileLocation(path, file, 0, file.size)


def _class_names(published: PublishedFiles) -> tuple[str, ...]:
    form, content = published.form, published.content(published.form.names)
    try:
        listed = read_table(content).get(form.name_key) if form.name_key else content.split(b"\n")
        names = tuple((name if isinstance(name, str) else name.decode("ascii")).strip() for name in listed or ())
    except PickleFormatError as error:
        raise published.damaged(form.names, str(error)) from error
    except (AttributeError, TypeError, UnicodeDecodeError) as error:
        raise published.damaged(form.names, "holds no names of classes") from error
    names = tuple(filter(None, names))
    if len(set(names)) != form.classes or len(names) != form.classes or any("/" in name for name in names):
        raise published.damaged(form.names, f"does not name {form.classes} classes")
    return names


def _pictures(published: PublishedFiles, file: str) -> Iterator[tuple[int, int]]:
    """Yield label and first byte of each picture of a file."""
    form, start = published.form, published.location(file).offset
    labels, first, step = _pickled(published, file) if form.label_key else _binary(published, file)
    for index, label in enumerate(labels):
        if not isinstance(label, int) or not 0 <= label < form.classes:
            raise published.damaged(file, f"gives its picture {index} the label {label}, of {form.classes} classes")
        yield label, start + first + index * step


def _binary(published: PublishedFiles, file: str) -> tuple[Sequence[Any], int, int]:
    """Return the labels, the first byte of the first picture, and the bytes from one picture to the next."""
    content, label_bytes = published.content(file), published.form.label_bytes
    step = label_bytes + _PICTURE_BYTES
    if not content or len(content) % step:
        raise published.damaged(file, f"has {len(content)} bytes, no whole number of pictures of {step}")
    return content[label_bytes - 1 :: step], label_bytes, step


def _pickled(published: PublishedFiles, file: str) -> tuple[Sequence[Any], int, int]:
    """Return the same as `_binary` does: in the published pickles, too, the pixels lie in one piece."""
    content = published.content(file)
    try:
        table = read_table(content)
    except PickleFormatError as error:
        raise published.damaged(file, str(error)) from error
    labels, pixels = table.get(published.form.label_key), table.get("data")
    if not isinstance(labels, list) or not isinstance(pixels, PickledArray):
        raise published.damaged(file, "holds no labels and pixels")
    first = content.find(pixels.content)
    if (
        not labels
        or pixels.shape != (len(labels), _PICTURE_BYTES)
        or len(pixels.content) != len(labels) * _PICTURE_BYTES
    ):
        raise published.damaged(file, f"has not {_PICTURE_BYTES} bytes of pixels for each of {len(labels)} labels")
    if first < 0:
        raise published.damaged(file, "does not hold its pixels in one piece")
    return labels, first, _PICTURE_BYTES
