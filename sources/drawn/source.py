"""The drawn world: a small labelled data set that is drawn from a seed, so nothing has to be downloaded.

The shape is the label and the style is the nuisance: palette, textures, position, size, angle, shadow and outline
are independent of the class. Every image has a random generator of its own, seeded by (seed, split,
class, index), so that any image can be drawn alone, in any order and by any process, always with the same bytes.
"""

import io
from collections.abc import Sequence
from typing import Self

import numpy as np
from PIL import Image

from basics.errors import UserError
from sources.base import ClassMap, ImageRecord, Source
from sources.drawn.drawing import SHAPES, draw_image

__all__ = ["DEFAULT_SIZE", "PER_CLASS", "SHAPES", "WORLD_VERSION", "DrawnSource"]

WORLD_VERSION = 1
"""Increased whenever the same seed would draw other pixels."""
DEFAULT_SIZE = 64
"""Width and height in pixels."""
MIN_SIZE = 16
"""Smallest width in pixels at which the shapes can be distinguished."""
PER_CLASS = {"train": 200, "val": 42}
"""Images of each class by split. 12 x 42 is 15 batches of 32 and a last one of 24."""

_SPLIT_NUMBERS = {split: number for number, split in enumerate(PER_CLASS)}


class DrawnSource(Source):
    """One split of the drawn world, drawn image by image as it is read.

    Args:
        split: One of `PER_CLASS`.
        size: Width and height in pixels.
        seed: Seed of the world.
        keep: Whether each image is drawn only once and then kept in memory, about 5 kB each at 48 px. For training,
            which reads all of them in every epoch: drawing would take a third of its time.

    Raises:
        UserError: There is no such split, or no world can be drawn with this size or seed.
    """

    def __init__(self, split: str = "val", size: int = DEFAULT_SIZE, seed: int = 0, *, keep: bool = False) -> None:
        if split not in PER_CLASS:
            raise UserError(f"The drawn world has no split {split!r}; choose one of {', '.join(PER_CLASS)}.")
        require_drawable(size, seed)
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
        self._kept: dict[ImageRecord, bytes] | None = {} if keep else None
        self._numbers = {record: (number % PER_CLASS[split]) + 1 for number, record in enumerate(self.records)}

    def part(self, records: Sequence[ImageRecord]) -> Self:
        """Return the same source reduced to some of its records."""
        part = super().part(records)
        part._numbers = {record: self._numbers[record] for record in records}
        return part

    def read(self, record: ImageRecord) -> bytes:
        """Draw one image and return it as PNG.

        Raises:
            FileNotFoundError: the record is not one of this split.
        """
        if record not in self._numbers:
            raise FileNotFoundError(f"{self.address} has no {record.name} in {self.split}")
        if self._kept is None:
            return self._draw(record)
        if record not in self._kept:
            self._kept[record] = self._draw(record)
        return self._kept[record]

    def _draw(self, record: ImageRecord) -> bytes:
        rng = picture_generator(self.seed, self.split, record.label, self._numbers[record])
        return png_bytes(draw_image(SHAPES[record.label], self.size, rng))


def picture_generator(seed: int, split: str, label: int, index: int) -> np.random.Generator:
    """Return the generator that one picture of the world is drawn from.

    Args:
        seed: Seed of the world.
        split: One of `PER_CLASS`.
        label: Index of the class.
        index: Number of the picture in its class, from 1.
    """
    return np.random.default_rng([seed, _SPLIT_NUMBERS[split], label, index])


def png_bytes(picture: Image.Image) -> bytes:
    """Return a picture as PNG, compressed as all pictures of the world are."""
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=6)
    return stream.getvalue()


def require_drawable(size: int, seed: int) -> None:
    """Refuse a size or seed that no world can be drawn with.

    Raises:
        UserError: the size is below `MIN_SIZE`, or the seed is negative.
    """
    if size < MIN_SIZE:
        raise UserError(f"The drawn world cannot be drawn {size} px wide; give at least {MIN_SIZE}.")
    if seed < 0:
        raise UserError(f"The seed {seed} of the drawn world is negative; give 0 or more.")
