"""Damage to data sets: bytes, members, and forgeries with correct checksums."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from basics.files import read_sealed
from tests.pipeline.world import forge_json, members, rewrite, tar_of

SHARD = 4
"""The shard that is damaged; it holds samples of two classes."""


def flip(path: Path, position: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * position)] ^= 0x10
    path.write_bytes(content)


def halve(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def edit(folder: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> None:
    """Write a shard again with other members."""
    tar = tar_of(folder, SHARD)
    rewrite(tar, change(members(tar)))


def swapped_labels(content: dict[str, bytes]) -> dict[str, bytes]:
    """Two samples of a shard with different labels, their .cls exchanged."""
    labels = [name for name in content if name.endswith(".cls")]
    first, second = labels[0], next(name for name in labels if content[name] != content[labels[0]])
    return {**content, first: content[second], second: content[first]}


def swapped_everywhere(content: dict[str, bytes]) -> dict[str, bytes]:
    """The same, with the .json saying it too."""
    changed = swapped_labels(content)
    for name in [name for name in content if name.endswith(".json")]:
        metadata = json.loads(content[name])
        metadata["label"] = int(changed[name.replace(".json", ".cls")])
        changed[name] = json.dumps(metadata).encode()
    return changed


def without(kind: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    def change(content: dict[str, bytes]) -> dict[str, bytes]:
        lost = [name for name in content if name.endswith(kind)][1]
        return {name: value for name, value in content.items() if name != lost}

    return change


def without_a_sample(content: dict[str, bytes]) -> dict[str, bytes]:
    return dict(list(content.items())[:-3])


def other_image(content: dict[str, bytes]) -> dict[str, bytes]:
    png = next(name for name in content if name.endswith(".png"))
    return {**content, png: content[png][:100]}


def renamed(content: dict[str, bytes]) -> dict[str, bytes]:
    first = next(iter(content)).split(".")[0]
    return {name.replace(first, "stranger"): value for name, value in content.items()}


def forge(folder: Path) -> None:
    """Record the checksum of the changed tar in mark and manifest, so that only its content shows the change."""
    tar = tar_of(folder, SHARD)
    content = tar.read_bytes()
    recorded = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    forge_json(folder / f"stats/{SHARD:06d}.json", **recorded, md5=hashlib.md5(content).hexdigest())
    shards = read_sealed(folder / "manifest.json")["shards"]
    shards[SHARD] |= recorded
    forge_json(folder / "manifest.json", shards=shards)
