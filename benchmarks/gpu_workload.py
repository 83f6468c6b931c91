"""What `benchmarks.gpu` measures on: sizes, drawn JPEGs, and networks with weights from a seed.

Legend: N images of the batch.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from basics.compute import Compute, choose_compute
from benchmarks.modes import Mode
from benchmarks.workload import seeded_autoencoder
from decoders.autoencoder import save_autoencoder
from encoders import encoder_kind
from networks.classifiers import build_network, save_classifier
from networks.width import narrow
from pipeline.config import GenerationConfig
from sources.base import numbered_classes
from sources.decode import load_image

Values = dict[str, Any]
Results = Mapping[str, Values]
"""What each stage found, by its name."""
Batches = Sequence[tuple[Tensor, Tensor]]
"""8-bit images and labels of each batch."""

CLASSES = 3


class MissingError(Exception):
    """A stage needs a value that an earlier one did not find."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes of all measurements."""

    folder: Path
    """Empty folder to work in."""
    device: str
    modes: tuple[Mode, ...]
    """How the ascent is computed."""
    encoders: tuple[str, ...] = ("vgg", "resnet")
    image_size: int = 256
    batch_size: int = 32
    width: float = 1.0
    """Width of autoencoder and classifier."""
    workers: int = 2
    """Processes of the end-to-end run that has some; 0 leaves that run out."""
    pictures: int = 96
    """Different JPEGs; runs of more images read them under several names."""
    matrix_size: int = 8192
    ascent_seconds: float = 5.0
    """How long each mode is measured after its first batch."""
    run_seconds: float = 25.0
    """How long an end-to-end run should take, the start of its processes not counted."""
    reference_batches: int = 3
    coding_seconds: float = 1.0
    drawn: bool = True
    """Whether precisions are compared on the drawn world's own networks, which are trained at first use."""
    fidelity_batches: int = 8

    def compute(self, precision: str) -> Compute:
        """Return the device with a precision."""
        return choose_compute(self.device, precision)

    @property
    def on_cuda(self) -> bool:
        """Whether the device is a CUDA device."""
        return self.compute("auto").device.type == "cuda"


def draw_images(settings: Settings, results: Results) -> Values:  # noqa: ARG001
    """Draw JPEGs of about the sides and bytes of ImageNet's: soft colours with some noise."""
    dice, start = np.random.default_rng(0), time.perf_counter()
    height, width = settings.image_size * 3 // 2, settings.image_size * 2
    for number in range(settings.pictures):
        path = pictures_of(settings) / f"class{number % CLASSES}" / f"{number:05d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(dice.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        soft = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
        noisy = soft + dice.normal(0, 10, soft.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    seconds = time.perf_counter() - start
    sizes = [path.stat().st_size for path in picture_paths(settings)]
    return {"pictures": len(sizes), "megabytes": sum(sizes) / 1e6, "seconds": seconds}


def pictures_of(settings: Settings) -> Path:
    """Return the folder of the drawn pictures."""
    return settings.folder / "pictures"


def picture_paths(settings: Settings) -> list[Path]:
    """Return the pictures, so that neighbours are of different classes."""
    return sorted(pictures_of(settings).glob("*/*"), key=lambda path: path.name)


def label_of(path: Path) -> int:
    """Return the label of a picture, which its folder says."""
    return int(path.parent.name.removeprefix("class"))


def linked(settings: Settings, count: int) -> Path:
    """Return a folder of at least `count` images: the pictures under as many names as it takes, without copies."""
    folder, paths = settings.folder / f"images-{count}", picture_paths(settings)
    if not paths:
        raise MissingError("no picture was drawn")
    for number in range(0 if folder.exists() else count):
        path = paths[number % len(paths)]
        name = folder / path.parent.name / f"{number:06d}.JPEG"
        name.parent.mkdir(parents=True, exist_ok=True)
        name.hardlink_to(path)
    return folder


def loaded_pictures(settings: Settings, batches: int) -> Batches:
    """Return batches of decoded pictures."""
    paths, loaded = picture_paths(settings), []
    if not paths:
        raise MissingError("no picture was drawn")
    for batch in range(batches):
        start = batch * settings.batch_size
        some = [paths[number % len(paths)] for number in range(start, start + settings.batch_size)]
        images = [load_image(path.read_bytes(), path.name, settings.image_size) for path in some]
        loaded.append((torch.stack(images), torch.tensor([label_of(path) for path in some])))
    return loaded


def config_of(settings: Settings, encoder: str, batches: int = 1, width: float | None = None) -> GenerationConfig:
    """Return a run of one shard, its networks written to a folder of their own."""
    width = settings.width if width is None else width
    folder = settings.folder / f"networks-{encoder}-{width:g}"
    autoencoder, classifier = folder / "autoencoder.safetensors", folder / "classifier.safetensors"
    if not autoencoder.exists():
        folder.mkdir(exist_ok=True)
        save_seeded_autoencoder(autoencoder, encoder, width)
        save_seeded_classifier(classifier, encoder_kind(encoder).classifier, CLASSES, width)
    return GenerationConfig(
        encoder=encoder,
        source=str(linked(settings, max(batches * settings.batch_size, CLASSES))),
        autoencoder=str(autoencoder),
        classifier_weights=str(classifier),
        batch_size=settings.batch_size,
        batches_per_shard=batches,
        limit=batches * settings.batch_size,
        image_size=settings.image_size,
        device=settings.device,
    )


def save_seeded_autoencoder(path: Path, encoder: str, width: float) -> None:
    """Write an autoencoder with weights from a seed: their values do not change the cost."""
    save_autoencoder(path, seeded_autoencoder(encoder, width), "seed", {})


def save_seeded_classifier(path: Path, name: str, classes: int, width: float) -> None:
    """Write a classifier with weights from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # The weights of the whole network would only be replaced.
        with torch.device("meta") if width < 1 else nullcontext():
            whole = build_network(name, classes)
        network = narrow(whole, width)
    save_classifier(path, name, network, numbered_classes(classes), width)
