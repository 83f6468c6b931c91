"""Clips by split: UCF-101 by its published lists or by its groups, any data set in train/ and test/, or drawn clips.

Labels are those of `classInd.txt`, minus 1. Where the lists are absent and files are named as UCF-101's, classes are in
its order, which takes capitals for small letters (`Hammering` before `HammerThrow`).
"""

import re
from collections.abc import Mapping

from basics.errors import UserError
from basics.paths import AnyPath, as_path
from basics.progress import counted, say
from basics.reading import is_file, is_folder
from sources.base import ClassMap, ImageRecord, Source
from sources.clips import require_decoder
from sources.drawn.clips import DrawnClips
from sources.listing import list_folder
from sources.opening import open_held_out, open_source
from sources.order import image_folder_order
from sources.storage import read_text

LISTS_FOLDER = "ucfTrainTestlist"
"""Name of the folder in which the lists are published."""
_CLASSES = "classInd.txt"
_NAME = re.compile(r"v_\w+_g(\d+)_c\d+\.\w+")
_TEST_GROUPS = range(1, 8)
"""Groups of the test clips of the first split; a group's clips were cut from one film."""
_SPLITS = ("train", "test")
_NUMBERS = (1, 2, 3)
"""Of the published splits."""
_FORM = "put its clips into train/ and test/, each with class folders, or give --split-lists"


def open_clips(
    address: str | None, *, split: str, lists: str | None = None, number: int = 1, undivided: bool = False
) -> Source:
    """Open the clips of one split.

    Args:
        address: A folder with train/ and test/ or val/ (class folders, or tars of such); UCF-101's class folders with
            the published lists beside or in them; or class folders or a tar without splits whose files are named as
            UCF-101's (`v_X_gNN_cMM.avi`): of those, groups 1 to 7 are for testing. None draws clips.
        split: `train` or `test`.
        lists: Folder of the published lists; None looks for `ucfTrainTestlist` in the folder of the clips and beside.
        number: Number of the split among the lists.
        undivided: Whether clips that are in no split by any of these rules are all taken. To train on all of a data set
            and test on another.

    Raises:
        UserError: PyAV is missing, nothing says which clips belong to the split, the lists do not fit the clips, or the
            clips cannot be listed.
    """
    require_decoder()
    if split not in _SPLITS:
        raise UserError(f"Clips have the splits train and test, and no {split!r}; give one of them.")
    if address is None:
        return _drawn(split, lists, number)
    clips, found = _found_lists(address)
    source = _opened(str(clips), split)
    source.address = address
    if source.is_split:
        source.split = split
        if lists is not None or number != 1:
            raise UserError(f"{address} is stored in splits; leave out the split lists and their number.")
        return _in_published_order(source)
    folder = as_path(lists) if lists is not None else found
    if folder is not None:
        return _listed(source, folder, split, number)
    if number != 1:
        raise UserError(
            f"Split {number} is one of the published lists, and {address} has none; give their folder as --split-lists."
        )
    if undivided and all(_group(record) is None for record in source.records):
        return source
    return _of_groups(_in_published_order(source), split)


def training_digests(address: str, lists: str | None = None) -> dict[int, str]:
    """Return the checksum (`Source.digest`) of the training clips of each published split; empty without lists.

    Splits overlap: a network of one split was trained on test clips of another.

    Args:
        address: as for `open_clips`.
        lists: as for `open_clips`.

    Raises:
        UserError: the clips cannot be listed.
    """
    clips, found = _found_lists(address)
    folder = as_path(lists) if lists is not None else found
    if folder is None:
        return {}
    source = open_source(str(clips), split="train", media="clip")
    digests = {}
    for number in _NUMBERS if not source.is_split else ():
        try:
            digests[number] = _listed(source, folder, "train", number, notice=False).digest()
        except UserError:
            # Not all lists need to be there, nor all clips of other splits.
            continue
    return digests


def _opened(address: str, split: str) -> Source:
    if split == "test":
        return open_held_out(address, media="clip")
    return open_source(address, split=split, media="clip")


def _drawn(split: str, lists: str | None, number: int) -> DrawnClips:
    if lists is not None or number != 1:
        raise UserError("Split lists are given without clips; give the clips as --data, or leave the lists out.")
    say("No clips are given: drawn ones are used, whose classes are motions.")
    return DrawnClips(split)


def _group(record: ImageRecord) -> int | None:
    """Return the group of a clip that is named as UCF-101's are."""
    found = _NAME.fullmatch(record.name.rpartition("/")[2])
    return None if found is None else int(found[1])


def _of_groups(source: Source, split: str) -> Source:
    """Return the clips of a split by their groups.

    Raises:
        UserError: some are not named as UCF-101's clips are, or all of them are of the other split.
    """
    chosen = []
    for record in source.records:
        group = _group(record)
        if group is None:
            raise UserError(
                f"Nothing says which clips of {source.address} are for testing (such as {record.name}, whose name has "
                f"no group as UCF-101's v_X_g01_c01.avi); {_FORM}."
            )
        if (group in _TEST_GROUPS) is (split == "test"):
            chosen.append(record)
    if not chosen:
        raise UserError(
            f"{source.address} has no clips to {split} on: by their names all are of groups of the other split (1 to 7 "
            f"are for testing); give a folder that has both, or {_FORM}."
        )
    return source.part(chosen)


def _in_published_order(source: Source) -> Source:
    """Return a source with its classes in the order of `classInd.txt`, if its files are named as UCF-101's."""
    if any(_group(record) is None for record in source.records):
        return source
    names = sorted(source.classes.names, key=str.lower)
    label = {name: number for number, name in enumerate(names)}
    return _relabelled(source, {each.name: label[each.name.partition("/")[0]] for each in source.records}, names)


def _relabelled(source: Source, labels: Mapping[str, int], names: list[str]) -> Source:
    """Return some clips of a source with other labels."""
    part = source.part(image_folder_order(labels))
    part.classes = ClassMap(names=tuple(names), imagenet=False)
    return part


def _found_lists(address: str) -> tuple[AnyPath, AnyPath | None]:
    """Return where the clips of an address are, and the folder of the published lists in it or beside, if there is one.

    Raises:
        UserError: it cannot be read.
    """
    path = as_path(address)
    try:
        if not is_folder(path):
            beside = path.parent / LISTS_FOLDER
            return path, beside if is_folder(beside) else None
        folders = list_folder(path, "clip").folders()
        if LISTS_FOLDER in folders:
            # As in the folder that both archives are unpacked in: the class folders are in one folder beside the lists.
            others = [name for name in folders if name != LISTS_FOLDER]
            return path / others[0] if len(others) == 1 else path, path / LISTS_FOLDER
        for folder in (path, path.absolute().parent / LISTS_FOLDER):
            if is_file(folder / _CLASSES):
                return path, folder
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); check it.") from error
    return path, None


def _listed(source: Source, lists: AnyPath, split: str, number: int, *, notice: bool = True) -> Source:
    """Return the clips of a split by the published lists, labelled by `classInd.txt`.

    Raises:
        UserError: a list is missing or damaged, or names a class or clips that are not there.
    """
    label = _read_classes(lists / _CLASSES)
    listed = {each: _read_list(_list_path(lists, each, number), label) for each in _SPLITS}
    known = _by_name(source)
    both = set(listed["train"]).intersection(listed["test"])
    if both:
        raise UserError(f"The split lists of {lists} have {min(both)} for training and for testing; restore them.")
    records = {name: _record(known, name) for name in listed[split]}
    missing = [name for name, record in records.items() if record is None]
    if missing:
        raise UserError(
            f"{source.address} lacks {len(missing)} of the {len(records)} clips of "
            f"{_list_path(lists, split, number)} (such as {missing[0]}); add them, or give a folder with train/ and "
            "test/ and no split lists."
        )
    if notice:
        _notice_others(source, [*listed["train"], *listed["test"]], known)
    labels = {record.name: label[name.partition("/")[0]] for name, record in records.items() if record is not None}
    return _relabelled(source, labels, list(label))


def _notice_others(source: Source, names: list[str], known: Mapping[str, ImageRecord]) -> None:
    listed = {record.name for record in (_record(known, name) for name in names) if record is not None}
    others = [record.name for record in source.records if record.name not in listed]
    if others:
        say(f"Left out of {source.address}: {counted(len(others), 'clip')} in no split list (such as {others[0]}).")


def _by_name(source: Source) -> dict[str, ImageRecord]:
    """Return the clips by `<class>/<file>`, and by the same in small letters: copies differ in capitals."""
    found: dict[str, ImageRecord] = {}
    for record in source.records:
        name = _short(record.name)
        found.setdefault(name.lower(), record)
        found[name] = record
    return found


def _record(known: Mapping[str, ImageRecord], name: str) -> ImageRecord | None:
    return known.get(name) or known.get(name.lower())


def _short(name: str) -> str:
    """Return class and file of a path, without folders between."""
    return f"{name.partition('/')[0]}/{name.rpartition('/')[2]}"


def _list_path(lists: AnyPath, split: str, number: int) -> AnyPath:
    return lists / f"{split}list{number:02}.txt"


def _lines(path: AnyPath, what: str) -> list[tuple[str, list[str]]]:
    """Return the lines of a list that are not empty: what names each in messages, and its words."""
    text = read_text(path, what)
    return [
        (f"Line {number} of the {what} {path}", line.split())
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip()
    ]


def _read_classes(path: AnyPath) -> dict[str, int]:
    """Return the label of each class, in the order of the labels.

    Raises:
        UserError: it cannot be read, or its numbers are not those from 1 on, one for each class.
    """
    label: dict[str, int] = {}
    for where, words in _lines(path, "class list"):
        if len(words) != 2 or words[0] != str(len(label) + 1) or words[1] in label:
            raise UserError(f"{where} is not the number {len(label) + 1} and the name of a new class; restore it.")
        label[words[1]] = len(label)
    if not label:
        raise UserError(f"The class list {path} is empty; restore it.")
    return label


def _read_list(path: AnyPath, label: Mapping[str, int]) -> list[str]:
    """Return the clips of a split list as `<class>/<file>`; in training lists the number of the class follows each.

    Raises:
        UserError: it cannot be read, or a line is none, names a class that is not there or another than its number's,
            or comes twice.
    """
    found: dict[str, None] = {}
    for where, words in _lines(path, "split list"):
        folder, slash, file = words[0].rpartition("/")
        if len(words) > 2 or not slash or not file:
            raise UserError(f"{where} is not a path such as Archery/v_Archery_g01_c01.avi and a number; restore it.")
        name = _short(f"{folder}/{file}")
        label_number = label.get(name.partition("/")[0])
        if label_number is None:
            raise UserError(f"{where} names the class {name.partition('/')[0]}, which {_CLASSES} lacks; restore it.")
        if len(words) == 2 and words[1] != str(label_number + 1):
            raise UserError(f"{where} has the number {words[1]}, but {_CLASSES} says {label_number + 1}; restore it.")
        if name in found:
            raise UserError(f"{where} names {name} a second time; restore it.")
        found[name] = None
    if not found:
        raise UserError(f"The split list {path} is empty; restore it.")
    return list(found)
