"""The drawn world: a small labelled data set that is drawn from a seed, so nothing has to be downloaded.

Shape is the label and style is the nuisance: palette, textures, position, size, angle, shadow and outline
are chosen without a look at the class. Every image has a random generator of its own, seeded by (seed, split,
class, index), so that any image can be drawn alone, in any order and by any process, always the same bytes.
"""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from basics.errors import UserError
from basics.files import TEMPORARY_SUFFIX, require_writable_folder, write_bytes, write_json
from sources.base import ClassMap, ImageRecord, Source
from sources.drawing import SHAPES, draw_image

__all__ = ["DEFAULT_SIZE", "PER_CLASS", "SHAPES", "WORLD_FILE", "DrawnSource", "write_world"]

WORLD_VERSION = 1
"""Raised whenever the same seed would draw other pixels."""
WORLD_FILE = "world.json"
"""The file in which a written world says what it was drawn from."""
DEFAULT_SIZE = 64
"""Width and height in pixels."""
MIN_SIZE = 16
"""Below this the shapes cannot be told apart."""
PER_CLASS = {"train": 200, "val": 42}
"""Images of each class by split. 12 x 42 is 15 batches of 32 and an odd last one of 24, as ImageNet's."""

_SPLIT_NUMBERS = {split: number for number, split in enumerate(PER_CLASS)}


class DrawnSource(Source):
    """One split of the drawn world, drawn image by image as it is read."""

    def __init__(self, split: str = "val", size: int = DEFAULT_SIZE, seed: int = 0) -> None:
        if split not in PER_CLASS:
            raise UserError(f"The drawn world has no split {split!r}; choose one of {', '.join(PER_CLASS)}.")
        _require_drawable(size, seed)
        self.split = split
        self.size = size
        self.seed = seed
        self.address = f"drawn world (seed {seed}, {size} px)"
        self.classes = ClassMap(names=SHAPES, imagenet=False)
        self.order = "ImageFolder"
        self.records = [
            ImageRecord(f"{shape}/{shape}-{split}-{index:04d}.png", label)
            for label, shape in enumerate(SHAPES)
            for index in range(1, PER_CLASS[split] + 1)
        ]
        self._places = {record: (number % PER_CLASS[split]) + 1 for number, record in enumerate(self.records)}

    def read(self, record: ImageRecord) -> bytes:
        """Draw one image and return it as PNG.

        Raises:
            FileNotFoundError: the record is not one of this split.
        """
        if record not in self._places:
            raise FileNotFoundError(f"{self.address} has no {record.name} in {self.split}")
        key = [self.seed, _SPLIT_NUMBERS[self.split], record.label, self._places[record]]
        picture = draw_image(SHAPES[record.label], self.size, np.random.default_rng(key))
        stream = io.BytesIO()
        picture.save(stream, "PNG", compress_level=6)
        return stream.getvalue()


def _require_drawable(size: int, seed: int) -> None:
    if size < MIN_SIZE:
        raise UserError(f"The drawn world cannot be drawn {size} px wide; give at least {MIN_SIZE}.")
    if seed < 0:
        raise UserError(f"The seed {seed} of the drawn world is negative; give 0 or more.")


def write_world(
    out: Path,
    *,
    size: int = DEFAULT_SIZE,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Write the world below `out` as `train/<class>/` and `val/<class>/`, going on where a run broke off.

    Args:
        out: a new or empty folder, or one that holds the same world, complete or not.
        size: width and height in pixels.
        seed: what the world is drawn from.
        progress: called with (images there, images in all) after each image.

    Returns:
        The number of images in each split.

    Raises:
        UserError: `out` holds anything else, or cannot be written.
    """
    sources = {split: DrawnSource(split, size, seed) for split in PER_CLASS}
    require_writable_folder(out)
    counts = {split: len(source.records) for split, source in sources.items()}
    facts = {"world": "drawn", "version": WORLD_VERSION, "size": size, "seed": seed, "images": counts}
    _claim(out, facts, {name for name, _, _ in _files(sources)})
    for done, (name, source, record) in enumerate(_files(sources), start=1):
        path = out / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, source.read(record))
        if progress:
            progress(done, sum(counts.values()))
    return counts


def _files(sources: dict[str, DrawnSource]) -> Iterator[tuple[str, DrawnSource, ImageRecord]]:
    """Yield every file of the world: its path below the folder, and what is drawn there."""
    for split, source in sources.items():
        for record in source.records:
            yield f"{split}/{record.name}", source, record


def _claim(out: Path, facts: dict[str, Any], planned: set[str]) -> None:
    """Make sure that `out` holds nothing but this world, and note down which world it is."""
    world = out / WORLD_FILE
    present = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}
    foreign = {name.removesuffix(TEMPORARY_SUFFIX) for name in present} - planned - {WORLD_FILE}
    if foreign or (present - {WORLD_FILE + TEMPORARY_SUFFIX} and not world.exists()):
        example = min(foreign or present)
        raise UserError(f"The folder {out} holds other files ({example}); give an empty folder.")
    if not world.exists():
        write_json(world, facts)
    elif _read_facts(world) != facts:
        raise UserError(f"The folder {out} holds a world of another seed or size; give another folder.")


def _read_facts(world: Path) -> object:
    try:
        return json.loads(world.read_bytes())
    except ValueError:
        return None
