"""Rules on file names: what counts as an image or a clip, what is ignored, which names mean a split."""

import re
from collections.abc import Collection, Iterable
from typing import Literal

from basics.errors import UserError
from basics.text import require_text

IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Extensions of images in torchvision's ImageFolder; repeated here so that listing need not import torch."""

CLIP_EXTENSIONS = (".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".mpg", ".mpeg")
"""Extensions of the usual containers of video."""

Media = Literal["image", "clip"]
"""What the samples of a source are."""

VALIDATION_FILE = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+")
"""Name of an image of the ImageNet-1k validation set, with its number, which starts at 1."""

_DOCUMENTS = (
    ".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".html",
    ".htm", ".css", ".js", ".pdf", ".doc", ".docx", ".tex", ".bib", ".log", ".db", ".lnk", ".url", ".py", ".pyc",
    ".ipynb", ".sh", ".m", ".c", ".mat", ".cls", ".pth", ".pt", ".ckpt", ".safetensors", ".sha256", ".md5", ".sum",
)  # fmt: skip
"""Extensions of texts, lists, programs, labels and weights, which may lie beside images and are never images."""
_DOCUMENT_NAMES = re.compile(r"readme|licen[cs]e|copying|authors|notice|citation|changes|makefile|\w*sums?|_success")

_SPLITS = ("train", "val", "test")
_SYNONYMS = {"validation": "val", "valid": "val"}
_SPLIT_WORDS = {
    *_SPLITS, *_SYNONYMS, "training", "testing", "eval", "evaluation", "dev", "pred", "prediction", "query", "gallery",
}  # fmt: skip
_WORD = re.compile(r"[A-Za-z]+")


def is_image(name: str) -> bool:
    """Return whether a file is an image by its name, as torchvision does."""
    return name.lower().endswith(IMG_EXTENSIONS)


def is_media(name: str, media: Media) -> bool:
    """Return whether a file is an image, or a clip, by its name."""
    return is_image(name) if media == "image" else name.lower().endswith(CLIP_EXTENSIONS)


def is_document(name: str) -> bool:
    """Return whether a file is a text, a list, weights or the like by its name, and so certainly no image."""
    name = name.rpartition("/")[2].lower()
    return name.endswith(_DOCUMENTS) or _DOCUMENT_NAMES.fullmatch(name) is not None


def is_label(name: str) -> bool:
    """Return whether a file of a shard is a label by its name, in any case as WebDataset reads it."""
    return name.lower().endswith(".cls")


def is_hidden(path: str) -> bool:
    """Return whether any part of a path starts with a dot: `.DS_Store`, `._x.jpg`, `.git/x.jpg`."""
    return path.startswith(".") or "/." in path


def canonical_split(word: str) -> str | None:
    """Return `train`, `val` or `test` if a word (in any case) means one of them, else None."""
    word = word.lower()
    word = _SYNONYMS.get(word, word)
    return word if word in _SPLITS else None


def splits_among(folders: Collection[str]) -> set[str]:
    """Return those of several folders that are splits of a data set, such as `Training` and `Testing`.

    Their names differ in a word for a split only, as `seg_train` and `seg_test` do. One such name alone is none. If
    there are several, a name that is only such a word, such as `query`, is one as well.
    """
    by_rest: dict[tuple[str, ...], dict[str, set[str]]] = {}
    for folder in folders:
        words = [word.lower() for word in _WORD.findall(folder)]
        splits = _SPLIT_WORDS.intersection(words)
        if splits:
            rest = tuple(word for word in words if word not in splits)
            by_rest.setdefault(rest, {})[folder] = splits
    alike = [found for found in by_rest.values() if len(set[str]().union(*found.values())) > 1]
    return set[str]().union(*alike, by_rest.get((), {})) if alike else set()


def same_split(word: str, split: str) -> bool:
    """Return whether a folder's name is the name of a split, or a synonym such as `validation` for `val`."""
    return word == split or (canonical_split(word) is not None and canonical_split(word) == canonical_split(split))


def of_split(words: Iterable[str], split: str) -> list[str]:
    """Return those of several words that name a split.

    Data sets of two parts call the held-out one `test`, so `test` is taken where there is no `val`.
    """
    words = list(words)
    found = [word for word in words if same_split(word, split)]
    if found or canonical_split(split) != "val":
        return found
    return [word for word in words if canonical_split(word) == "test"]


def mentioned_splits(file_names: Iterable[str]) -> set[str]:
    """Return which of `train`, `val` and `test` several names hold a word for."""
    words = (canonical_split(word) for name in file_names for word in _WORD.findall(name))
    return {word for word in words if word is not None}


def choose_split(file_names: Iterable[str], split: str, where: str) -> list[str]:
    """Return those of several files whose names hold a word for a split (see `of_split`).

    Files whose names mention no split at all are all taken.

    Raises:
        UserError: names mention splits, but none the wanted one.
    """
    names = list(file_names)
    splits = {name: mentioned_splits([name]) for name in names}
    mentioned = set[str]().union(*splits.values())
    if not mentioned:
        return names
    wanted = set(of_split(mentioned, split))
    chosen = [name for name in names if splits[name] & wanted]
    if not chosen:
        raise UserError(
            f"{where} holds files of the split {', '.join(sorted(mentioned))} and none of {split}; "
            f"name the files themselves or give another --split."
        )
    return chosen


def check_printable(names: Iterable[str], where: str) -> None:
    """Refuse names that are not valid Unicode: they cannot be written to a manifest or a shard.

    Raises:
        UserError: a name holds bytes that are not UTF-8.
    """
    for name in names:
        require_text(name, f"{where} holds a file whose name")
