"""Test sets under shift, made of labelled photographs: `python -m docs.experiments.shifted_images IMAGES STYLES OUT`.

Writes four folders in the layouts of ImageNet-C, -Instagram, -Sketch and Stylized ImageNet, of 15 images of each class:

- `imagenet-c`: our implementation of the corruptions, severities 1, 3 and 5;
- `imagenet-instagram`: the colour filters of `sources.drawn.shifts`;
- `imagenet-sketch`: grey values divided by their blurred surroundings, which leaves lines as of a pencil;
- `imagenet-style`: AdaIN, by the autoencoder autoencoder-vgg/autoencoder.safetensors of the current folder: each
  channel's mean and standard deviation are those of a random image of STYLES.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from decoders.autoencoder import Autoencoder, load_autoencoder
from sources.base import ImageRecord, Source
from sources.decode import View, decode_rgb, pixels_of
from sources.drawn.corruptions import CORRUPTIONS, corrupt
from sources.drawn.shifts import FILTERS
from sources.opening import open_source
from training.data import evenly_spread

PER_CLASS = 15
SEVERITIES = (1, 3, 5)
SIDE = 224
SURROUNDINGS = 4.0
"""Radius of the blur of sketches, in pixels."""


def main(images: str, styles: str, out: str) -> None:
    """Write all four sets."""
    source, style = open_source(images), open_source(styles)
    classes = len({record.label for record in source.records})
    autoencoder = load_autoencoder(Path("autoencoder-vgg/autoencoder.safetensors")).module
    for number, record in enumerate(evenly_spread(source.records, PER_CLASS * classes)):
        rng = np.random.default_rng(number)
        pixels_3HW = read(source, record)
        other_3HW = read(style, style.records[int(rng.integers(len(style.records)))])
        name = Path(record.name).with_suffix(".png")
        for folder, shifted in shifts(to_pil_image(pixels_3HW), rng):
            save(shifted, Path(out) / folder / name)
        save(to_pil_image(restyled(autoencoder, pixels_3HW, other_3HW)), Path(out) / "imagenet-style/val" / name)


def read(source: Source, record: ImageRecord) -> Tensor:
    """Return a square of an image's pixels, uint8 (3, SIDE, SIDE)."""
    image = decode_rgb(source.read(record), record.name)
    return pixels_of(image, View(crop=SIDE, resize=SIDE), record.name)


def shifts(image: Image.Image, rng: np.random.Generator) -> Iterator[tuple[str, Image.Image]]:
    """Yield the folder of each subset that needs no network, and the shifted image."""
    for name, corruption in CORRUPTIONS.items():
        for severity in SEVERITIES:
            pixels = corrupt(np.array(image), name, severity, rng)
            yield f"imagenet-c/{corruption.group}/{name}/{severity}", Image.fromarray(pixels)
    for name, colour_filter in FILTERS.items():
        yield f"imagenet-instagram/{name}", colour_filter(image)
    grey = image.convert("L")
    around = np.asarray(grey.filter(ImageFilter.GaussianBlur(SURROUNDINGS)), np.float64)
    lines = np.clip(255 * np.asarray(grey, np.float64) / np.maximum(around, 1), 0, 255)
    yield "imagenet-sketch", Image.fromarray(lines.astype(np.uint8)).convert("RGB")


@torch.no_grad()
def restyled(autoencoder: Autoencoder, pixels_3HW: Tensor, other_3HW: Tensor) -> Tensor:
    """Return an image with the feature statistics of another one, uint8 (3, SIDE, SIDE)."""
    feat_CHW, other_CHW = autoencoder.encoder(torch.stack([pixels_3HW, other_3HW]).float() / 255)
    spread, mean = torch.std_mean(feat_CHW, (1, 2), keepdim=True)
    other_spread, other_mean = torch.std_mean(other_CHW, (1, 2), keepdim=True)
    shifted = (feat_CHW - mean) / (spread + 1e-5) * other_spread + other_mean
    decoded: Tensor = autoencoder.decoder(shifted.clamp(*autoencoder.kind.limits)[None])[0]
    return (255 * decoded.clamp(0, 1)).round().byte()


def save(image: Image.Image, path: Path) -> None:
    """Write an image, and its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
