"""Pictures of samples drawn at random, small enough for a page."""

import io
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image
from torchvision.transforms import functional

from downstream.testset import TestSet
from sources.decode import View, decode_rgb, pixels_of
from sources.tar.scanning import scan_tars

_LARGEST_SIDE = 192
LOSSLESS_SIDE = 96
"""Images up to this side (in pixels) are stored without loss, and shown without smoothing."""
_QUALITY = 85
_FINE_QUALITY = 95


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An encoded image of a page."""

    content: bytes
    """Bytes of the image file."""
    mime: str
    """Its media type."""


@dataclass(frozen=True, kw_only=True)
class GallerySample:
    """A sample with its pictures."""

    index: int
    """Position among the samples."""
    key: str
    """Sample key."""
    pictures: Mapping[str, Picture]
    """Data set's name -> picture."""
    losses: Sequence[float]
    """Cross-entropy under the attacked classifier before the first and after each step."""


def gallery_samples(sets: Mapping[str, TestSet], perturbed: TestSet, count: int, seed: int = 0) -> list[GallerySample]:
    """Draw samples at random and make pictures of them, in the order of the data set.

    Args:
        sets: name -> data set, all with the same samples in the same order.
        perturbed: the one of `sets` whose shards have the losses.
        count: number of samples; all, if there are fewer.
        seed: seed of the choice.

    Raises:
        BrokenImageError: an image cannot be decoded.
    """
    total = len(perturbed.records)
    chosen = sorted(random.Random(seed).sample(range(total), min(count, total)))  # noqa: S311 (no secret)
    side = perturbed.own_manifest.image_size
    losses = _losses(perturbed, {perturbed.keys[index] for index in chosen})
    return [
        GallerySample(
            index=index,
            key=perturbed.keys[index],
            pictures={name: _picture(data, index, side) for name, data in sets.items()},
            losses=losses[perturbed.keys[index]],
        )
        for index in chosen
    ]


def picture_side(side: int) -> int:
    """Return the side at which images of a data set of this side are shown."""
    return min(side, _LARGEST_SIDE)


def _picture(data: TestSet, index: int, side: int) -> Picture:
    record = data.records[index]
    pixels = pixels_of(decode_rgb(data.source.read(record), record.name), View(crop=side, resize=side), record.name)
    image: Image.Image = functional.to_pil_image(pixels)
    if side > _LARGEST_SIDE:
        image = image.resize((_LARGEST_SIDE, _LARGEST_SIDE), Image.Resampling.LANCZOS)
    return encoded_picture(image, lossless=side <= LOSSLESS_SIDE)


def encoded_picture(image: Image.Image, *, lossless: bool, fine: bool = False) -> Picture:
    """Return an image as PNG, or as JPEG in few bytes.

    Args:
        image: the image.
        lossless: whether it has to be a PNG.
        fine: whether a JPEG keeps what differs from pixel to pixel, for three times the bytes.
    """
    buffer = io.BytesIO()
    if lossless:
        image.save(buffer, format="png", optimize=True)
        return Picture(content=buffer.getvalue(), mime="image/png")
    if fine:
        image.save(buffer, format="jpeg", quality=_FINE_QUALITY, subsampling=0)
    else:
        image.save(buffer, format="jpeg", quality=_QUALITY)
    return Picture(content=buffer.getvalue(), mime="image/jpeg")


def _losses(perturbed: TestSet, keys: set[str]) -> dict[str, list[float]]:
    """Read the losses of some samples out of the shards, whose other content is skipped."""
    folder = perturbed.folder
    tars = [folder / entry["file"] for entry in perturbed.own_manifest.shards]
    found: dict[str, list[float]] = {}
    for _, file, member in scan_tars(tars):
        key, _, kind = member.name.partition(".")
        if kind == "json" and key in keys:
            found[key] = json.loads(file.read(member.offset, member.size))["losses"]
    return found
