"""How training images are varied beyond crop and flip: the image policies that AdvBN is combined with (Table 8).

All randomness comes from torch's global generator, so whoever seeds it before a call gets the same image again.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torchvision.transforms import v2

from basics.errors import UserError

Vary = Callable[[Image.Image], Image.Image]
SubPolicy = tuple[tuple[str, float, float], ...]
"""(operation, probability, level in 0..1), applied in this order."""

_GREY = (125, 123, 114)
"""The mean colour that Fast AutoAugment's published code cuts out with."""
_RANGES = {
    "ShearX": (-0.3, 0.3),
    "ShearY": (-0.3, 0.3),
    "TranslateX": (-0.45, 0.45),
    "TranslateY": (-0.45, 0.45),
    "Rotate": (-30.0, 30.0),
    "AutoContrast": (0.0, 1.0),
    "Invert": (0.0, 1.0),
    "Equalize": (0.0, 1.0),
    "Solarize": (0.0, 256.0),
    "Posterize": (4.0, 8.0),
    "Contrast": (0.1, 1.9),
    "Color": (0.1, 1.9),
    "Brightness": (0.1, 1.9),
    "Sharpness": (0.1, 1.9),
    "Cutout": (0.0, 0.2),
}
"""What levels 0 and 1 mean; translations and cut-outs in shares of the side, rotations in degrees."""
_MIRRORED = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"}


@dataclass(frozen=True)
class Policy:
    """A named way to vary an image."""

    vary: Vary
    whole: bool
    """Whether it varies the whole image, before the crop, instead of the crop."""


class FastAutoAugment:
    """Fast AutoAugment with a list of sub-policies (Lim et al. 2019, section 3): one, drawn at random, is applied."""

    def __init__(self, policies: Sequence[SubPolicy]) -> None:
        self.policies = policies

    def __call__(self, image: Image.Image) -> Image.Image:
        """Vary an RGB image; its size stays."""
        for name, probability, level in self.policies[int(torch.randint(len(self.policies), ()))]:
            if float(torch.rand(())) <= probability:
                image = apply_operation(image, name, level)
        return image


def apply_operation(image: Image.Image, name: str, level: float) -> Image.Image:
    """Apply one of Fast AutoAugment's operations at a level in 0..1; geometric ones turn around half of the time."""
    low, high = _RANGES[name]
    value = low + level * (high - low)
    if name in _MIRRORED and float(torch.rand(())) > 0.5:
        value = -value
    if name in _ENHANCERS:
        return _ENHANCERS[name](image).enhance(value)
    return _OPERATIONS[name](image, value)


def _affine(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


def _cut_out(image: Image.Image, share: float) -> Image.Image:
    side = share * image.width
    if side <= 0:
        return image
    centre = torch.rand(2) * torch.tensor(image.size)
    left, top = (int(max(0.0, float(middle) - side / 2)) for middle in centre)
    image = image.copy()
    right, bottom = min(image.width, left + side), min(image.height, top + side)
    ImageDraw.Draw(image).rectangle((left, top, right, bottom), _GREY)
    return image


_ENHANCERS = {
    "Contrast": ImageEnhance.Contrast,
    "Color": ImageEnhance.Color,
    "Brightness": ImageEnhance.Brightness,
    "Sharpness": ImageEnhance.Sharpness,
}
_OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "ShearX": lambda image, value: _affine(image, 1, value, 0, 0, 1, 0),
    "ShearY": lambda image, value: _affine(image, 1, 0, 0, value, 1, 0),
    "TranslateX": lambda image, value: _affine(image, 1, 0, value * image.width, 0, 1, 0),
    "TranslateY": lambda image, value: _affine(image, 1, 0, 0, 0, 1, value * image.height),
    "Rotate": lambda image, value: image.rotate(value),
    "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
    "Invert": lambda image, _: ImageOps.invert(image),
    "Equalize": lambda image, _: ImageOps.equalize(image),
    "Solarize": lambda image, value: ImageOps.solarize(image, math.ceil(value)),
    "Posterize": lambda image, value: ImageOps.posterize(image, int(value)),
    "Cutout": _cut_out,
}


@cache
def fast_autoaugment_imagenet() -> tuple[SubPolicy, ...]:
    """Return the 498 published sub-policies for ImageNet (found with ResNet-50 on a reduced ImageNet)."""
    table = files("training").joinpath("fast_autoaugment_imagenet.tsv").read_text(encoding="utf-8")
    return tuple(_sub_policy(line.split("\t")) for line in table.splitlines())


def _sub_policy(columns: Sequence[str]) -> SubPolicy:
    return tuple((columns[at], float(columns[at + 1]), float(columns[at + 2])) for at in range(0, len(columns), 3))


_POLICIES: dict[str, Callable[[], Policy]] = {
    "autoaugment": lambda: Policy(v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET), whole=False),
    "randaugment": lambda: Policy(v2.RandAugment(), whole=False),
    "augmix": lambda: Policy(v2.AugMix(), whole=False),
    "fast-autoaugment": lambda: Policy(FastAutoAugment(fast_autoaugment_imagenet()), whole=True),
}
POLICIES = tuple(_POLICIES)


def policy(name: str) -> Policy:
    """Return an image policy by its name.

    Raises:
        UserError: there is none of this name.
    """
    if name not in _POLICIES:
        raise UserError(f"There is no image policy {name!r}; give one of {', '.join(POLICIES)}.")
    return _POLICIES[name]()
