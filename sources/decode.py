"""Decodes images to pixels, exactly as torchvision's loader, `Resize` and `CenterCrop` do.

For unusual files this means: the EXIF rotation is ignored; transparency is dropped, not blended; a
palette is looked up; CMYK (also Adobe's inverted one) becomes RGB by Pillow's plain formula; an image smaller
than the wanted size is enlarged. There is one difference: Pillow clips deep grayscale at 255. Images of 16 bits would
turn white, so their high byte is used instead, as Pillow itself does for 16-bit colour. Pixels of 32 bits have no known
range, and those of floating-point numbers would turn black: such images are broken.
"""

import io
import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torchvision.transforms import functional

from basics.errors import WorkError

_ELONGATED_LIMIT = 2**27
"""Pixels that an image may have after resizing (384 MiB): a thin strip of a few bytes can have billions."""
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
"""Tags of TIFF, and the value of the second for images in which 0 is white."""
_PILLOW = r"PIL\."
"""The modules whose warnings are ignored, as a pattern."""


@dataclass(frozen=True, kw_only=True)
class View:
    """The part of an image that a network sees: short side resized (antialiased), then a square from the centre."""

    crop: int
    """Side of the square, in pixels."""
    resize: int | None
    """Length of the short side before the crop; None leaves the image as it is stored."""
    interpolation: str = "bilinear"
    """Name of one of torchvision's interpolations."""
    squash: bool = False
    """Whether both sides are resized, whatever the shape of the image."""

    def scaled(self, crop: int) -> "View":
        """Return the same view for another size of the square: resized in proportion."""
        return replace(self, crop=crop, resize=None if self.resize is None else round(self.resize * crop / self.crop))

    def describe(self) -> str:
        """Return a description, e.g. `resize 256 bilinear, crop 224`."""
        crop = f"crop {self.crop}"
        if self.resize is None:
            return crop
        return f"{'squash to' if self.squash else 'resize'} {self.resize} {self.interpolation}, {crop}"


class BrokenImageError(WorkError):
    """An image file that cannot be decoded. The message names it."""


def decode_rgb(content: bytes, name: str) -> Image.Image:
    """Decode a whole image file to 8-bit RGB at its stored size.

    Args:
        content: The encoded file.
        name: Name of the record, for the error.

    Raises:
        BrokenImageError: it is empty, no image, truncated, damaged, or a decompression bomb (over about
            179 million pixels), or its pixels are 32-bit or floating-point numbers.
    """
    if not content:
        raise BrokenImageError(f"The image {name} is broken: the file is empty.")
    _silence_pillow()
    try:
        with Image.open(io.BytesIO(content)) as image:
            return _to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:
        # Pillow's plug-ins raise nearly anything on bad bytes: OSError, SyntaxError, struct.error, KeyError.
        raise BrokenImageError(f"The image {name} is broken: {_reason(error)}.") from error


def load_image(content: bytes, name: str, image_size: int) -> torch.Tensor:
    """Decode an image, resize its short side to `image_size` (bilinear, antialiased), crop the centre.

    The published evaluation reads `Resize(256), CenterCrop(256)`, which is `image_size` 256.

    Args:
        content: The encoded file.
        name: Name of the record, for the error.
        image_size: Side of the square, in pixels.

    Returns:
        uint8 tensor (3, H, W) with H = W = `image_size`; divide by 255 for values in [0, 1].

    Raises:
        BrokenImageError: as `decode_rgb`, or it is so long and thin that resizing would fill the memory.
    """
    return pixels_of(decode_rgb(content, name), View(crop=image_size, resize=image_size), name)


def pixels_of(image: Image.Image, view: View, name: str) -> torch.Tensor:
    """Return the view of a decoded image, as a uint8 tensor (3, crop, crop).

    Raises:
        BrokenImageError: the image is so long and thin that resizing would fill the memory.
    """
    if view.resize is not None:
        short, long = sorted(image.size)
        if view.resize * (view.resize * long // short) > _ELONGATED_LIMIT:
            raise BrokenImageError(f"The image {name} is broken: {image.width}x{image.height} is too elongated.")
        mode = functional.InterpolationMode(view.interpolation)
        sides = [view.resize] * (2 if view.squash else 1)
        image = functional.resize(image, sides, mode, antialias=True)
    pixels: torch.Tensor = functional.pil_to_tensor(functional.center_crop(image, [view.crop, view.crop]))
    return pixels


def _to_rgb(image: Image.Image) -> Image.Image:
    # Pillow gives the gray of a deep PGM file as 32-bit numbers from 0 to 65535, whatever the file's maximum.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return _high_byte(image).convert("RGB")
    if image.mode in {"I", "F"}:
        kind = "integers" if image.mode == "I" else "floating-point numbers"
        raise ValueError(f"its pixels are {kind} without a known range; convert it to 8 or 16 bits")
    # Gray multiplied by its transparency: Pillow converts it in two steps only, where it converts such colour in one.
    return (image.convert("LA") if image.mode == "La" else image).convert("RGB")


def _high_byte(image: Image.Image) -> Image.Image:
    """Return deep gray as 8-bit gray: the upper 8 of its bits, which are 16 in all formats but TIFF."""
    tags = getattr(image, "tag_v2", {})
    gray = (np.asarray(image) >> tags.get(_BITS_PER_SAMPLE, (16,))[0] - 8).astype(np.uint8)
    # Pillow inverts gray in which 0 is white, but not if it is deep.
    return Image.fromarray(255 - gray if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else gray)


def _silence_pillow() -> None:
    """Ignore Pillow's warnings (corrupt EXIF, transparent palette): a data set has thousands of such files.

    Set again at every call, because test runners and `catch_warnings` blocks drop filters, and without taking
    it back, because `catch_warnings` would race with the other decoding threads.
    """
    first = warnings.filters[0] if warnings.filters else None
    if first is None or getattr(first[3], "pattern", None) != _PILLOW:
        warnings.filterwarnings("ignore", module=_PILLOW)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    return str(error).rstrip(".") or type(error).__name__
