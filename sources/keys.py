"""Sample keys: the part of their names that the files of one sample share in a shard."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

from basics.files import NAME_LIMIT
from sources.base import ImageRecord

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST = NAME_LIMIT - len(".json")
"""Characters of the longest key whose files have a name that file systems take."""
_HASH = 12
"""Hex digits of a checksum in a key."""
_LAST_LEVEL = 4
"""The level of `_key` that cannot collide for different names."""


def sample_keys(records: Sequence[ImageRecord]) -> list[str]:
    """Return a unique key for each record, made of the file's stem and of `A-Z a-z 0-9 _ -` only.

    A key has no dot because WebDataset splits key and extension at the first one. Records whose stems
    collide get the class folder in front. Those that still collide get the whole folder path, then the
    extension, then 12 hex digits of the SHA-256 of the name. All that collide are changed together, so a key
    depends on which names there are and not on their order. A key too long for the name of a file is cut off, and
    ends in those digits.

    Args:
        records: All records of a source: the keys of a part alone may differ.

    Raises:
        ValueError: two records have the same name.
    """
    names = [record.name for record in records]
    keys = [_key(name, 0) for name in names]
    levels = dict.fromkeys(_colliding(keys), 0)
    colliding = list(levels)
    while colliding:
        movable = [index for index in colliding if levels.get(index, 0) < _LAST_LEVEL]
        if not movable:
            raise ValueError(f"two records have the name {names[colliding[0]]!r}")
        for index in movable:
            levels[index] = levels.get(index, 0) + 1
            keys[index] = _key(names[index], levels[index])
        colliding = _colliding(keys)
    return keys


def _colliding(keys: list[str]) -> list[int]:
    if len(set(keys)) == len(keys):
        return []
    counts = Counter(keys)
    return [index for index, key in enumerate(keys) if counts[key] > 1]


def _key(name: str, level: int) -> str:
    """Return the candidate key of a name; higher levels distinguish more names."""
    folder, _, file = name.rpartition("/")
    stem, dot, extension = file.rpartition(".")
    if not dot:
        stem, extension = file, ""
    match level:
        case 0:
            parts = [stem]
        case 1:
            parts = [folder.partition("/")[0], stem]
        case 2:
            parts = [folder, stem]
        case 3:
            parts = [folder, stem, extension]
        case _:
            parts = [stem, _hash(name)]
    key = _UNSAFE.sub("_", "_".join(part for part in parts if part))
    return key if len(key) <= _LONGEST else f"{key[: _LONGEST - _HASH - 1]}_{_hash(name)}"


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:_HASH]
