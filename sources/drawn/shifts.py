"""The drawn world's distribution shifts, in the layouts of the real test sets.

| set | folders below it | what is in them |
|---|---|---|
| `imagenet-c` | `<group>/<corruption>/<severity>/` | the first validation images of each class, corrupted |
| `imagenet-instagram` | `<filter>/` | the same images under a colour filter |
| `imagenet-sketch` | none | new drawings: pencil sketches |
| `imagenet-style` | `val/` | all validation images, their shapes unchanged, in new textures and colours |
| `cue-conflict` | none | new drawings: shapes filled with small copies of each class's shape, `circle03-flower03.png` |

Each of these folders holds class folders and is one source, called a subset. An image that is made of a validation
image has its name. All randomness of an image comes from a generator of its own, seeded by (seed, set,
corruption, severity, class, number), so that any image can be drawn alone, in any order and by any process, always
with the same bytes.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pilgram
from PIL import Image

from basics.errors import UserError
from sources.base import ClassMap, ImageRecord, Source
from sources.drawn.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from sources.drawn.drawing import SHAPES, draw_image, draw_tiled
from sources.drawn.source import DEFAULT_SIZE, PER_CLASS, picture_generator, png_bytes, require_drawable
from sources.drawn.styles import draw_sketch, draw_stylized

SHIFTS_VERSION = 1
"""Increased whenever the same seed would draw other pixels in any of these sets."""
MOST_PER_CLASS = {
    "imagenet-c": 10,
    "imagenet-instagram": 10,
    "imagenet-sketch": 42,
    "imagenet-style": 42,
    "cue-conflict": 12,
}
"""Images of each class in a subset; those made of validation images are at most as many as these."""

FILTERS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "1977": pilgram._1977,
    "aden": pilgram.aden,
    "brannan": pilgram.brannan,
    "brooklyn": pilgram.brooklyn,
    "clarendon": pilgram.clarendon,
    "earlybird": pilgram.earlybird,
    "gingham": pilgram.gingham,
    "hudson": pilgram.hudson,
    "inkwell": pilgram.inkwell,
    "kelvin": pilgram.kelvin,
    "lark": pilgram.lark,
    "lofi": pilgram.lofi,
    "mayfair": pilgram.mayfair,
    "nashville": pilgram.nashville,
    "reyes": pilgram.reyes,
    "stinson": pilgram.stinson,
    "toaster": pilgram.toaster,
    "walden": pilgram.walden,
    "willow": pilgram.willow,
    "xpro2": pilgram.xpro2,
}
"""Twenty colour filters by folder name. Of pilgram's 26, these leave out the five that change drawings least (maven,
perpetua, rise, slumber, valencia) and moon, which is nearly inkwell."""

_NEW_DRAWINGS = {"imagenet-sketch", "cue-conflict"}
"""Sets whose images are not made of validation images."""
_SET_NUMBERS = {"imagenet-c": 2, "imagenet-sketch": 3, "imagenet-style": 4, "cue-conflict": 5}
"""Part of each seed; 0 and 1 are train and val. The filters are not random."""


class _WorldImage(NamedTuple):
    """An image of a drawn world, by what it is drawn from."""

    size: int
    seed: int
    label: int
    number: int


def _generator(image: _WorldImage, test_set: str, kind: int = 0, severity: int = 0) -> np.random.Generator:
    return np.random.default_rng([image.seed, _SET_NUMBERS[test_set], kind, severity, image.label, image.number])


@lru_cache(maxsize=256)
def _validation_pixels(image: _WorldImage) -> npt.NDArray[np.uint8]:
    """Draw a validation image. It is cached, because up to 95 images are made of each."""
    rng = picture_generator(image.seed, "val", image.label, image.number)
    pixels = np.array(draw_image(SHAPES[image.label], image.size, rng))
    pixels.setflags(write=False)
    return pixels


def _corrupted(folders: list[str], image: _WorldImage) -> Image.Image:
    _, name, severity = folders
    rng = _generator(image, "imagenet-c", list(CORRUPTIONS).index(name), int(severity))
    return Image.fromarray(corrupt(_validation_pixels(image), name, int(severity), rng))


def _filtered(folders: list[str], image: _WorldImage) -> Image.Image:
    return FILTERS[folders[0]](Image.fromarray(_validation_pixels(image)))


def _sketched(_: list[str], image: _WorldImage) -> Image.Image:
    return draw_sketch(SHAPES[image.label], image.size, _generator(image, "imagenet-sketch"))


def _stylized(_: list[str], image: _WorldImage) -> Image.Image:
    drawn = picture_generator(image.seed, "val", image.label, image.number)
    return draw_stylized(SHAPES[image.label], image.size, drawn, _generator(image, "imagenet-style"))


def _conflicting(_: list[str], image: _WorldImage) -> Image.Image:
    tile = _texture_of(image.label, image.number)
    return draw_tiled(SHAPES[image.label], tile, image.size, _generator(image, "cue-conflict"))


def _texture_of(label: int, number: int) -> str:
    """Return the class of the texture of an image of the cue-conflict set; the last of a class has its own."""
    return SHAPES[(label + number) % len(SHAPES)]


_DRAW = {
    "imagenet-c": _corrupted,
    "imagenet-instagram": _filtered,
    "imagenet-sketch": _sketched,
    "imagenet-style": _stylized,
    "cue-conflict": _conflicting,
}

SHIFT_SETS: dict[str, tuple[str, ...]] = {
    "imagenet-c": tuple(
        f"imagenet-c/{corruption.group}/{name}/{severity}"
        for name, corruption in CORRUPTIONS.items()
        for severity in SEVERITIES
    ),
    "imagenet-instagram": tuple(f"imagenet-instagram/{name}" for name in FILTERS),
    "imagenet-sketch": ("imagenet-sketch",),
    "imagenet-style": ("imagenet-style/val",),
    "cue-conflict": ("cue-conflict",),
}
"""The subsets of each set: folders that hold class folders, relative to the world's."""


def images_per_class(test_set: str) -> int:
    """Return how many images of each class a subset of this set has."""
    most = MOST_PER_CLASS[test_set]
    return most if test_set in _NEW_DRAWINGS else min(most, PER_CLASS["val"])


def _file_name(test_set: str, label: int, number: int) -> str:
    if test_set == "cue-conflict":
        return f"{SHAPES[label]}{number:02d}-{_texture_of(label, number)}{number:02d}.png"
    part = "sketch" if test_set == "imagenet-sketch" else "val"
    return f"{SHAPES[label]}-{part}-{number:04d}.png"


class ShiftSource(Source):
    """One subset of the shifted test sets, drawn image by image as it is read.

    Args:
        subset: One of the folders in `SHIFT_SETS`, such as `imagenet-c/noise/shot_noise/3`.
        size: Width and height in pixels.
        seed: Seed of the world that is shifted.

    Raises:
        UserError: there is no such subset, or nothing can be drawn in this size or with this seed.
    """

    def __init__(self, subset: str, size: int = DEFAULT_SIZE, seed: int = 0) -> None:
        test_set, *folders = subset.split("/")
        if subset not in SHIFT_SETS.get(test_set, ()):
            raise UserError(
                f"The drawn world has no test set {subset!r}; they are {', '.join(SHIFT_SETS)} and their subsets."
            )
        require_drawable(size, seed)
        self.subset = subset
        self.size = size
        self.seed = seed
        self.address = f"drawn world, {subset} (seed {seed}, {size} px)"
        self.classes = ClassMap(names=SHAPES, imagenet=False)
        self.order = "ImageFolder"
        self._images = {
            ImageRecord(f"{shape}/{_file_name(test_set, label, index)}", label): _WorldImage(size, seed, label, index)
            for label, shape in enumerate(SHAPES)
            for index in range(1, images_per_class(test_set) + 1)
        }
        self.records = list(self._images)
        self._test_set = test_set
        self._folders = folders

    def part(self, records: Sequence[ImageRecord]) -> Self:
        """Return the same source reduced to some of its records."""
        part = super().part(records)
        part._images = {record: self._images[record] for record in records}
        return part

    def read(self, record: ImageRecord) -> bytes:
        """Draw one image and return it as PNG.

        Raises:
            FileNotFoundError: the record is not one of this subset.
        """
        if record not in self._images:
            raise FileNotFoundError(f"{self.address} has no {record.name}")
        return png_bytes(_DRAW[self._test_set](self._folders, self._images[record]))
