"""The order of a source's records: torchvision's ImageFolder order, or that of a file."""

import hashlib
from collections.abc import Mapping, Sequence

from basics.errors import UserError
from basics.paths import AnyPath
from basics.reading import read_bytes
from sources.base import ImageRecord
from sources.storage import read_text

IMAGE_FOLDER = "ImageFolder"


def image_folder_order(labels: Mapping[str, int]) -> list[ImageRecord]:
    """Return a record for each name, sorted as by torchvision's ImageFolder: by class, folder and file name.

    Folder and file are compared as strings, one after the other; sorting whole paths would put `a-b/x.png`
    before `a/x.png`.
    """
    by_label: dict[int, list[str]] = {}
    for name, label in labels.items():
        by_label.setdefault(label, []).append(name)
    # Sorted class by class, so that only one class's sort keys are in memory at a time.
    return [
        ImageRecord(name, label) for label in sorted(by_label) for name in sorted(by_label[label], key=_folder_and_file)
    ]


def _folder_and_file(name: str) -> tuple[str, str]:
    folder, _, file = name.rpartition("/")
    return folder, file


def file_order(records: Sequence[ImageRecord], path: AnyPath) -> tuple[list[ImageRecord], str]:
    """Put records into the order of a text file that holds one record name a line.

    Every record must be named once: a file that names fewer would silently make a smaller data set.

    Returns:
        The records, and `file:` with the SHA-256 (hex) of the file's bytes.

    Raises:
        UserError: the file cannot be read, or a line names no record or one named before, or a record is
            not named.
    """
    text = read_text(path, "order file")
    waiting = {record.name: record for record in records}
    known = set(waiting)
    ordered: list[ImageRecord] = []
    for number, line in enumerate(text.splitlines(), 1):
        name = line.strip()
        if not name:
            continue
        if name not in waiting:
            fault = "names an image a second time" if name in known else "names no image of the source"
            raise UserError(f"Line {number} of the order file {path} {fault} ({name}); correct or delete it.")
        ordered.append(waiting.pop(name))
    if waiting:
        raise UserError(
            f"The order file {path} lacks {len(waiting)} of the {len(records)} images (such as "
            f"{next(iter(waiting))}); name each image once."
        )
    return ordered, f"file:{hashlib.sha256(read_bytes(path)).hexdigest()}"
