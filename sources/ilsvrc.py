"""Labels of the flat ILSVRC2012 validation folder, whose file names do not give the class.

Numbers are ambiguous: those of the published ground truth are ILSVRC's own ids, 1 to 1000 in an order of their own,
and nothing in a part of a list shows which kind they are. So bare numbers are no labels of the published images.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import PurePosixPath

from basics.errors import UserError
from basics.paths import AnyPath
from basics.progress import say
from sources.classes import imagenet_index, imagenet_map
from sources.devkit import GROUND_TRUTH, find_devkit, is_devkit, read_devkit
from sources.names import VALIDATION_FILE, is_image
from sources.storage import read_text

_FORMS = (
    "`<file name> <wnid or index>` lines, a CSV such as LOC_val_solution.csv, one wnid a line, or the ILSVRC2012 devkit"
)
LISTS = (".txt", ".csv", ".tsv")
"""Extensions of label lists."""
_DIGITS = re.compile(r"(\d+)")
_CLASSES = 1000
LIST_BEGINNING = 1 << 14
"""Bytes of a text that show whether it is a label list."""


@dataclass
class _LabelList:
    """A label list, which either names its files or has a line for each."""

    by_name: dict[str, int] = field(default_factory=dict)
    """ImageNet index by file name, with or without extension."""
    by_line: list[int] = field(default_factory=list)
    """ImageNet index of each file in file-name order."""
    numbers: bool = False
    """Whether a class is given as a number."""


def label_flat(
    files: Sequence[str], labels: AnyPath | None, where: str, beside: Sequence[AnyPath] = ()
) -> dict[str, int]:
    """Label the images of a flat folder.

    A list without names is matched to the files by the number in `ILSVRC2012_val_00000001.JPEG`, so that it also
    fits a part of them; files with other names are matched in sorted order and must be as many as the lines. Numbers
    are indices, which a notice says.

    Args:
        files: Names of the images.
        labels: Label list or devkit as the user gave it; None to look for a devkit.
        where: Name of the folder, for messages.
        beside: Folders in which a devkit is looked for.

    Returns:
        ImageNet-1k index of `<wnid>/<file>` for each file, its name when sorted into class folders.

    Raises:
        UserError: there is no list, it cannot be read, has a bad line, lacks an image, or has only numbers for the
            published validation images, or the order of the files is unclear.
    """
    labels = labels or find_devkit(beside)
    if labels is None:
        raise UserError(f"{where} holds images but no class folders; give their classes with --labels ({_FORMS}).")
    table = _read_labels(labels)
    found = _match_lines(files, table, labels) if table.by_line else _match_names(files, table.by_name)
    if table.numbers:
        say(f"The numbers in {labels} are taken for ImageNet-1k indices (0 to 999, by sorted wnid), not ILSVRC's ids.")
    missing = [file for file in files if file not in found]
    if missing:
        raise UserError(
            f"The label list {labels} lacks {len(missing)} of the {len(files)} images in {where} "
            f"(such as {min(missing)}); add them."
        )
    wnids = imagenet_map().names
    return {f"{wnids[label]}/{file}": label for file, label in found.items()}


def names_images(content: bytes, files: Collection[str]) -> bool:
    """Return whether a text, of which `content` is the beginning, is a label list of some of the files."""
    lines = content.decode("utf-8", "replace").splitlines()
    fields = [_split(line) for line in lines if line.strip()]
    return any(len(each) == 2 and each[0] in files and _label(each[1]) is not None for each in fields)


def _match_names(files: Sequence[str], by_name: dict[str, int]) -> dict[str, int]:
    found = {}
    for file in files:
        label = by_name.get(file, by_name.get(PurePosixPath(file).stem))
        if label is not None:
            found[file] = label
    return found


def _match_lines(files: Sequence[str], table: _LabelList, labels: AnyPath) -> dict[str, int]:
    by_line = table.by_line
    numbers = {file: int(match[1]) for file in files if (match := VALIDATION_FILE.fullmatch(file))}
    if numbers and table.numbers:
        raise UserError(
            f"The label list {labels} has numbers without names for ILSVRC2012 validation images, which may be "
            f"ILSVRC's own ids and not class indices; give the ILSVRC2012 devkit, or `<file name> <wnid>` lines."
        )
    if len(numbers) == len(files):
        return {file: by_line[number - 1] for file, number in numbers.items() if 0 < number <= len(by_line)}
    if len(files) != len(by_line):
        raise UserError(
            f"The label list {labels} has {len(by_line)} lines without names for {len(files)} images; "
            f"give one line an image in file-name order, or put the file name before each label."
        )
    _require_clear_order(files, labels)
    return dict(zip(sorted(files), by_line, strict=True))


def _require_clear_order(files: Sequence[str], labels: AnyPath) -> None:
    """Refuse files that differ in numbers without padding: a list may count 2.png before or after 10.png."""
    alike: dict[str, list[str]] = {}
    for file in sorted(files):
        alike.setdefault(_DIGITS.sub("0", file.rpartition(".")[0]), []).append(file)
    for names in alike.values():
        for first, second in pairwise(names):
            if _numbers(first) > _numbers(second):
                raise UserError(
                    f"The label list {labels} has no names, and the order of the files is unclear: as text {first} "
                    f"comes before {second}, as numbers after it; put the file name before each label."
                )


def _numbers(file: str) -> list[int]:
    return [int(digits) for digits in _DIGITS.findall(file.rpartition(".")[0])]


def _read_labels(path: AnyPath) -> _LabelList:
    if path.name == GROUND_TRUTH:
        # Its numbers are ILSVRC2012_IDs, which look like class indices but are not; meta.mat translates them.
        path = path.parent
    if is_devkit(path):
        wnids = read_devkit(path)
        return _LabelList(by_line=[imagenet_index()[wnid] for wnid in wnids])
    return _parse_labels(read_text(path, "label list"), path)


def _parse_labels(text: str, path: AnyPath) -> _LabelList:
    table = _LabelList()
    rows = [(number, _split(line)) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if rows and _is_header(rows[0][1]):
        rows = rows[1:]
    if not rows:
        raise UserError(f"The label list {path} is empty; give {_FORMS}.")
    width = len(rows[0][1])
    for number, fields in rows:
        label = _label(fields[-1])
        table.numbers |= fields[-1].isdigit()
        if label is None and fields[-1] == str(_CLASSES):
            raise UserError(
                f"Line {number} of the label list {path} has the class {_CLASSES}, so its numbers are no indices (0 to "
                f"{_CLASSES - 1}) but ILSVRC's own ids or another count; give the ILSVRC2012 devkit, or wnids."
            )
        if label is None or len(fields) != width:
            raise UserError(f"Line {number} of the label list {path} is wrong ({' '.join(fields)}); give {_FORMS}.")
        if width == 1:
            table.by_line.append(label)
        elif fields[0] in table.by_name:
            raise UserError(f"Line {number} of the label list {path} names {fields[0]} again; delete one line.")
        else:
            table.by_name[fields[0]] = label
    return table


def _is_header(fields: list[str]) -> bool:
    return len(fields) == 2 and not is_image(fields[0]) and not any(char.isdigit() for char in fields[1])


def _split(line: str) -> list[str]:
    """Return the file name, if there is one, and the label; what follows the label in a CSV is dropped."""
    for separator in ("\t", ","):
        if separator in line:
            name, fields_after = line.split(separator, 1)
            label = fields_after.replace(",", " ").strip(' "\t').split()
            return [PurePosixPath(name.strip(' "')).name, label[0].strip('"') if label else ""]
    fields = line.rsplit(maxsplit=1)
    return [PurePosixPath(fields[0]).name, fields[1]] if len(fields) == 2 else fields


def _label(text: str) -> int | None:
    if text.isascii() and text.isdigit() and int(text) < _CLASSES:
        return int(text)
    return imagenet_index().get(text)
