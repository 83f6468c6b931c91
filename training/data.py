"""Training images: decoding, random translations and order that depend on nothing but seed, epoch and index.

Legend: S pixels of an image's side.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import functional, v2

from basics.errors import UserError
from basics.files import digest_json
from basics.loading import loaded_batches
from sources.base import ImageRecord, Source
from sources.decode import View, decode_rgb, pixels_of
from sources.joined import JoinedSource
from training.augment import policy
from training.config import TrainingConfig
from training.order import Composition, EpochOrder, ImageIndex, mixed_seed

HELD_OUT_LIMIT = 1000
_HELD_OUT_SHARE = 20
_HELD_OUT_STREAM = -1

CACHE_BYTES = 512 * 2**20
"""Decoded images are kept in memory if all of them fit in this."""


@dataclass(frozen=True, kw_only=True)
class Variation:
    """Random variation of training images."""

    crops: bool = False
    """True: RandomResizedCrop and a flip, as classifiers of ImageNet are trained; False: a translation and a flip."""
    translation: float = 1 / 16
    """Without crops: share of their side by which images are moved at most, their border mirrored; classifiers of
    CIFAR-10 are trained with 1/8."""
    smallest: float = 0.08
    """Smallest share of an image's area that a crop covers; classifiers of ImageNet are trained with 0.08."""
    policies: tuple[str, ...] = ()
    """Names of image policies (see `training.augment`) that crops go through, in this order."""

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= 1:
            raise UserError(f"The smallest crop is {self.smallest:g} of an image; give a number above 0 and up to 1.")
        if not 0 <= self.translation < 0.5:
            raise UserError(
                f"The translation is {self.translation:g} of an image's side; give a number from 0 to below 0.5."
            )
        for name in self.policies:
            policy(name)
        if self.policies and not self.crops:
            raise ValueError("image policies are for crops")


class TrainingImages(Dataset[tuple[Tensor, int]]):
    """Labelled 8-bit images (3, size, size) of a source, optionally varied at random.

    The randomness of an image is drawn from (seed, epoch, index), so loader processes and resumed runs see the same.

    Args:
        source: where the images are.
        image_size: side in pixels.
        variation: how they are varied; None shows them as they are.
        view: how they are prepared if crops are not drawn at random; None resizes the short side and takes the centre.
        seed: of the variation.
        records: the images to take; None takes all.
        second: how many of the records, the last ones, are of a second source.
        share: share of each batch that comes from those.
    """

    def __init__(  # noqa: PLR0913 (independent properties of a data set)
        self,
        source: Source,
        image_size: int,
        *,
        variation: Variation | None = None,
        view: View | None = None,
        seed: int = 0,
        records: Sequence[ImageRecord] | None = None,
        second: int = 0,
        share: float = 0.0,
    ) -> None:
        self.source, self.image_size, self.variation, self.seed = source, image_size, variation, seed
        self.records = source.records if records is None else records
        self.view = view or View(crop=image_size, resize=image_size)
        self.composition = Composition(own=len(self.records) - second, second=second, share=share)
        self._policies = [policy(name) for name in variation.policies] if variation else []
        scale = (variation.smallest if variation else 1.0, 1.0)
        crop = v2.RandomResizedCrop(image_size, scale, antialias=True)
        self._crop = v2.Compose([crop, v2.RandomHorizontalFlip()])
        self._keep = len(self.records) * self.image_bytes <= CACHE_BYTES
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, image_index: ImageIndex) -> tuple[Tensor, int]:
        epoch, index = image_index
        label = self.records[index].label
        if self.variation is None:
            return self._decoded(index), label
        if self.variation.crops:
            return self._cropped(epoch, index), label
        return self._translated(self._decoded(index), self.variation.translation, epoch, index), label

    @property
    def image_bytes(self) -> int:
        """Bytes of an image's pixels."""
        return 3 * self.image_size**2

    @cached_property
    def content(self) -> str:
        """State checksum of the files of these images (see `sources.content`); empty if they have none."""
        return "".join(self.source.state_checksums(self.records))

    def state_checksums(self, parts: int) -> list[str]:
        """Return at most so many state checksums of the files of these images (see `sources.content`)."""
        return self.source.state_checksums(self.records, parts)

    def digest(self) -> str:
        """Return a checksum (hex) over names and labels of these images, in order."""
        return digest_json([list(record) for record in self.records])

    def _decoded(self, index: int) -> Tensor:
        if index in self._kept:
            return self._kept[index]
        record = self.records[index]
        image = pixels_of(decode_rgb(self.source.read(record), record.name), self.view, record.name)
        if self._keep:
            self._kept[index] = image
        return image

    def _cropped(self, epoch: int, index: int) -> Tensor:
        record = self.records[index]
        image = decode_rgb(self.source.read(record), record.name)
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would seed every device as well, which nothing here draws from; for each kind of device
            # that is not in use it formats a traceback, in all 0.4 ms for every image.
            torch.default_generator.manual_seed(mixed_seed(self.seed, epoch, index))
            pixels: Tensor = functional.pil_to_tensor(self._through_policies(image))
        return pixels

    def _through_policies(self, image: Image.Image) -> Image.Image:
        for each in self._policies:
            image = each.vary(image) if each.whole else image
        image = self._crop(image)
        for each in self._policies:
            image = image if each.whole else each.vary(image)
        return image

    def _translated(self, image_3SS: Tensor, share: float, epoch: int, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch, index))
        border = round(self.image_size * share)
        top, left = torch.randint(2 * border + 1, (2,), generator=generator).tolist()
        wide = functional.pad(image_3SS, [border], padding_mode="reflect")
        crop: Tensor = wide[:, top : top + self.image_size, left : left + self.image_size]
        flip = bool(torch.randint(2, (), generator=generator))
        return crop.flip(-1) if flip else crop


def evenly_spread(records: Sequence[ImageRecord], limit: int | None) -> list[ImageRecord]:
    """Return at most so many records, evenly spread over all and in their order; None takes all.

    Records are sorted by class, so the first ones would be of the first classes only.
    """
    if limit is None or limit >= len(records):
        return list(records)
    return [records[index * len(records) // limit] for index in range(limit)]


def hold_out(records: Sequence[ImageRecord], seed: int) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Keep one image in twenty, at most 1,000, drawn by seed, out of the training images."""
    count = min(HELD_OUT_LIMIT, max(1, len(records) // _HELD_OUT_SHARE))
    generator = torch.Generator().manual_seed(mixed_seed(seed, _HELD_OUT_STREAM))
    chosen = set(torch.randperm(len(records), generator=generator)[:count].tolist())
    kept = [record for index, record in enumerate(records) if index not in chosen]
    return kept, [records[index] for index in sorted(chosen)]


@dataclass(frozen=True, kw_only=True)
class Mix:
    """A second source to train on, beside the first."""

    source: Source
    """Labelled images of the same classes."""
    share: float
    """Share of each batch that comes from it."""


def chosen_records(
    source: Source, held_out: Source | None, seed: int, limit: int | None, held_out_limit: int | None
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Return the records of a source to train on, and those to measure on (see `training_images`).

    Raises:
        UserError: the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise UserError(f"--limit is {limit}; give 1 or more.")
    records = evenly_spread(source.records, limit)
    if held_out is None:
        return hold_out(records, seed)
    return records, evenly_spread(held_out.records, held_out_limit)


def training_images(  # noqa: PLR0913 (two data sets, and how each is prepared)
    source: Source,
    held_out: Source | None,
    config: TrainingConfig,
    *,
    limit: int | None,
    held_out_limit: int | None = None,
    variation: Variation,
    view: View | None = None,
    mix: Mix | None = None,
) -> tuple[TrainingImages, TrainingImages]:
    """Return the images of a source to train on, and those to measure on: of another source, or kept back.

    Args:
        source: the training images.
        held_out: what to measure on; None keeps one in twenty of the training images back.
        config: batch size, image size and seed.
        limit: only so many training images, evenly spread (and those kept back are among them).
        held_out_limit: at most so many of `held_out`, evenly spread.
        variation: how training images are varied.
        view: how images to measure on are prepared, see TrainingImages.
        mix: a second source to train on.

    Raises:
        UserError: there is not one batch of them, or the second source has other classes.
    """
    records, held_records = chosen_records(source, held_out, config.seed, limit, held_out_limit)
    measured = TrainingImages(held_out or source, config.image_size, view=view, records=held_records)
    second: Sequence[ImageRecord] = []
    where = source.address
    if mix is not None:
        joined = JoinedSource(source, mix.source)
        source, second = joined, joined.second_records
    images = TrainingImages(
        source, config.image_size, variation=variation, seed=config.seed, records=[*records, *second],
        second=len(second), share=mix.share if mix else 0.0,
    )  # fmt: skip
    images.composition.require_batches(config.batch_size, where)
    return images, measured


def require_same_classes(source: Source, held_out: Source | None) -> None:
    """Refuse images to measure on whose labels mean other classes than those to train on.

    Raises:
        UserError: see above.
    """
    if held_out is not None and held_out.classes != source.classes:
        raise UserError(f"{held_out.address} and {source.address} have other classes; give images of the same ones.")


def epoch_batches(
    images: TrainingImages, config: TrainingConfig, *, epoch: int, first_step: int, rank: int
) -> AbstractContextManager[Iterator[tuple[Tensor, Tensor]]]:
    """Provide one epoch's batches from `first_step` on, see `basics.loading.loaded_batches`."""
    order = EpochOrder(images.composition, config, epoch=epoch, first_step=first_step, rank=rank)
    return loaded_batches(images, config.loaders or 0, batch_sampler=order)
