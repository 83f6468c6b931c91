"""Training images: decoding, random shifts and order that depend on nothing but seed, epoch and place."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import functional, v2

from basics.errors import UserError
from sources.base import ImageRecord, Source
from sources.decode import decode_rgb, load_image
from training.config import TrainingConfig

HELD_OUT_MOST = 1000
_HELD_OUT_SHARE = 20
_HELD_OUT_STREAM = -1

Place = tuple[int, int]
"""(epoch, index of the image)."""

SHIFT = 1 / 16
"""Images are shifted by up to this share of their side, their border mirrored."""
CACHE_BYTES = 512 * 2**20
"""Decoded images are kept in memory if all of them fit in this."""


class TrainingImages(Dataset[tuple[Tensor, int]]):
    """Labelled 8-bit images (3, size, size) of a source, optionally varied at random.

    Varied are they by a shift and a flip, or, as classifiers of ImageNet are trained (`crops`), by torchvision's
    RandomResizedCrop and a flip.
    The randomness of an image is drawn from (seed, epoch, index), so loader processes and resumed runs see the same.
    """

    def __init__(  # noqa: PLR0913 (what, how large, how varied)
        self,
        source: Source,
        image_size: int,
        *,
        augment: bool,
        crops: bool = False,
        seed: int = 0,
        records: Sequence[ImageRecord] | None = None,
    ) -> None:
        self.source, self.image_size, self.augment, self.seed = source, image_size, augment, seed
        self.crops = crops
        self.records = source.records if records is None else records
        self._keep = len(self.records) * 3 * image_size**2 <= CACHE_BYTES
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, place: Place) -> tuple[Tensor, int]:
        epoch, index = place
        if self.augment and self.crops:
            return self._cropped(epoch, index), self.records[index].label
        image = self._decoded(index)
        if self.augment:
            image = self._varied(image, epoch, index)
        return image, self.records[index].label

    def _decoded(self, index: int) -> Tensor:
        if index in self._kept:
            return self._kept[index]
        record = self.records[index]
        image = load_image(self.source.read(record), record.name, self.image_size)
        if self._keep:
            self._kept[index] = image
        return image

    def _cropped(self, epoch: int, index: int) -> Tensor:
        record = self.records[index]
        image = decode_rgb(self.source.read(record), record.name)
        vary = v2.Compose([v2.RandomResizedCrop(self.image_size, antialias=True), v2.RandomHorizontalFlip()])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mixed_seed(self.seed, epoch, index))
            pixels: Tensor = functional.pil_to_tensor(vary(image))
        return pixels

    def _varied(self, image_3SS: Tensor, epoch: int, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch, index))
        shift = round(self.image_size * SHIFT)
        top, left = torch.randint(2 * shift + 1, (2,), generator=generator).tolist()
        wide = functional.pad(image_3SS, [shift], padding_mode="reflect")
        crop: Tensor = wide[:, top : top + self.image_size, left : left + self.image_size]
        flip = bool(torch.randint(2, (), generator=generator))
        return crop.flip(-1) if flip else crop


def hold_out(records: Sequence[ImageRecord], seed: int) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Keep one image in twenty, at most 1,000, drawn by seed, out of the training images."""
    count = min(HELD_OUT_MOST, max(1, len(records) // _HELD_OUT_SHARE))
    generator = torch.Generator().manual_seed(mixed_seed(seed, _HELD_OUT_STREAM))
    chosen = set(torch.randperm(len(records), generator=generator)[:count].tolist())
    kept = [record for index, record in enumerate(records) if index not in chosen]
    return kept, [records[index] for index in sorted(chosen)]


def training_images(  # noqa: PLR0913 (from what, measured on what, how, how many)
    source: Source,
    held_out: Source | None,
    config: TrainingConfig,
    *,
    limit: int | None,
    held_out_most: int | None = None,
    crops: bool = False,
) -> tuple[TrainingImages, TrainingImages]:
    """Return the images of a source to train on, and those to measure on: of another source, or kept back.

    Args:
        source: the training images.
        held_out: what to measure on; None keeps one in twenty of the training images back.
        config: batch size, image size and seed.
        limit: only the first so many training images.
        held_out_most: at most so many of `held_out`.
        crops: how training images are varied, see TrainingImages.

    Raises:
        UserError: there is not one batch of them.
    """
    if limit is not None and limit < 1:
        raise UserError(f"--limit is {limit}; give 1 or more.")
    records: Sequence[ImageRecord] = source.records[:limit]
    if held_out is None:
        records, held_records = hold_out(records, config.seed)
    else:
        held_records = list(held_out.records[:held_out_most])
    if len(records) < config.batch_size:
        raise UserError(
            f"There are {len(records)} training images in {source.address}, fewer than one batch of "
            f"{config.batch_size}; give more images or a smaller --batch-size."
        )
    size = config.image_size
    images = TrainingImages(source, size, augment=True, crops=crops, seed=config.seed, records=records)
    return images, TrainingImages(held_out or source, size, augment=False, records=held_records)


def mixed_seed(*parts: int) -> int:
    """Return one seed for a tuple of numbers; different tuples give unrelated streams."""
    # hash() of a tuple of ints is the same in every Python process (only strings are salted).
    return hash(parts) & (2**63 - 1)


class EpochOrder(Sampler[list[Place]]):
    """The batches of one epoch for one of several devices, from a given step on."""

    def __init__(self, images: int, config: TrainingConfig, *, epoch: int, first_step: int, rank: int) -> None:
        self.images, self.config, self.epoch, self.first_step, self.rank = (
            images,
            config,
            epoch,
            first_step,
            rank,
        )

    def __len__(self) -> int:
        return steps_per_epoch(self.images, self.config) - self.first_step

    def __iter__(self) -> Iterator[list[Place]]:
        generator = torch.Generator().manual_seed(mixed_seed(self.config.seed, self.epoch))
        order = torch.randperm(self.images, generator=generator).tolist()
        size = self.config.batch_size
        for step in range(self.first_step, steps_per_epoch(self.images, self.config)):
            batch = order[step * size : (step + 1) * size]
            yield [(self.epoch, index) for index in batch[self.rank :: self.config.devices]]


def steps_per_epoch(images: int, config: TrainingConfig) -> int:
    """Return the steps of an epoch; a last batch that is not whole is left out (but at least one step is made)."""
    return max(1, images // config.batch_size)


def epoch_batches(
    images: TrainingImages, config: TrainingConfig, *, epoch: int, first_step: int, rank: int
) -> DataLoader[tuple[Tensor, int]]:
    """Return the loader of one epoch's batches from `first_step` on."""
    order = EpochOrder(len(images), config, epoch=epoch, first_step=first_step, rank=rank)
    return DataLoader(images, batch_sampler=order, num_workers=config.loaders)
