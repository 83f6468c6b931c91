"""In which order a training run sees its images: a function of seed, epoch and step, and of nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.utils.data import Sampler

from basics.errors import UserError
from training.config import TrainingConfig

ImageIndex = tuple[int, int]
"""(epoch, index of the image)."""

_SECOND_STREAM = -2


@dataclass(frozen=True, kw_only=True)
class Composition:
    """Composition of batches: images of a source and, beside them, a share of images of a second source."""

    own: int
    """Images of the source; an epoch is one pass over them."""
    second: int = 0
    """Images of the second source; they are numbered behind the own ones."""
    share: float = 0.0
    """Share of each batch that comes from the second source."""

    def second_in(self, batch: int) -> int:
        """Return how many images of a batch are of the second source."""
        return round(self.share * batch) if self.second else 0

    def require_batches(self, batch: int, address: str, what: str = "images") -> None:
        """Refuse a composition that does not give one batch.

        Args:
            batch: size of a batch.
            address: where the samples are.
            what: what a message calls them.

        Raises:
            UserError: see above.
        """
        if self.second and not 0 < self.second_in(batch) < batch:
            raise UserError(
                f"A share of {self.share:g} of a batch of {batch} leaves one of the two sources without an image; "
                "give another --mix-share, or a larger --batch-size."
            )
        if self.own < batch - self.second_in(batch):
            raise UserError(
                f"There are {self.own} training {what} in {address}, fewer than one batch of {batch}; "
                f"give more {what} or a smaller --batch-size."
            )


def mixed_seed(*parts: int) -> int:
    """Return one seed for a tuple of numbers; tuples that differ give unrelated streams, but for one exception.

    Python's hashes of -1 and -2 are the same, so that the two do not distinguish tuples of the same length.
    """
    # hash() of a tuple of ints is the same in every Python process (only strings are salted).
    return hash(parts) & (2**63 - 1)


def steps_per_epoch(composition: Composition, config: TrainingConfig) -> int:
    """Return the steps of an epoch; an incomplete last batch is dropped, but there is at least one step."""
    return max(1, composition.own // (config.batch_size - composition.second_in(config.batch_size)))


class EpochOrder(Sampler[list[ImageIndex]]):
    """The batches of one epoch for one of several devices, from a given step on."""

    def __init__(
        self, composition: Composition, config: TrainingConfig, *, epoch: int, first_step: int, rank: int
    ) -> None:
        self.composition, self.config, self.epoch = composition, config, epoch
        self.first_step, self.rank = first_step, rank
        self.steps = steps_per_epoch(composition, config)

    def __len__(self) -> int:
        return self.steps - self.first_step

    def __iter__(self) -> Iterator[list[ImageIndex]]:
        order = _shuffled(self.composition.own, mixed_seed(self.config.seed, self.epoch))
        for step in range(self.first_step, self.steps):
            batch = [*self._own(order, step), *self._second(step)]
            yield [(self.epoch, index) for index in batch[self.rank :: self.config.devices]]

    def _own(self, order: tuple[int, ...], step: int) -> tuple[int, ...]:
        size = self.config.batch_size - self.composition.second_in(self.config.batch_size)
        return order[step * size : (step + 1) * size]

    def _second(self, step: int) -> list[int]:
        """Return the second source's images: it is passed over again and again, whatever the epochs are."""
        size = self.composition.second_in(self.config.batch_size)
        first = (self.epoch * self.steps + step) * size
        return [self.composition.own + self._second_at(number) for number in range(first, first + size)]

    def _second_at(self, number: int) -> int:
        turn, position = divmod(number, self.composition.second)
        return _shuffled(self.composition.second, mixed_seed(self.config.seed, turn, _SECOND_STREAM))[position]


@lru_cache(maxsize=4)
def _shuffled(count: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist())
