"""Which image is in which batch of which shard: fixed before anything runs, and the same for every runner."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from basics.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a sequence of images is cut into batches and shards.

    The order is never changed, and a batch never spans two shards; only the last batch may be smaller.
    """

    images: int
    """Number of images in the run."""
    batch_size: int = 32
    """Images whose feature statistics are perturbed together (appendix B.1: 32)."""
    batches_per_shard: int = 49
    """Batches in a shard: 49 x 32 = 1,568 samples, which makes 32 shards of ImageNet's 50,000."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "batches_per_shard"):
            if getattr(self, name) < 1:
                raise UserError(f"The {name.replace('_', ' ')} is {getattr(self, name)}; give 1 or more.")

    @classmethod
    def of_identity(cls, identity: Mapping[str, Any]) -> "Plan":
        """Return the plan that the identity of a run records."""
        return cls(images=identity["images"]["count"], **identity["batches"])

    @property
    def batches(self) -> int:
        """Number of batches."""
        return -(-self.images // self.batch_size)

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.batches // self.batches_per_shard)

    def batches_of(self, shard: int) -> Iterator[tuple[int, range]]:
        """Yield (batch number, positions of its images in the run) for each batch of a shard."""
        first = shard * self.batches_per_shard
        for batch in range(first, min(first + self.batches_per_shard, self.batches)):
            start = batch * self.batch_size
            yield batch, range(start, min(start + self.batch_size, self.images))

    def samples_in(self, shard: int) -> int:
        """Return the number of images in a shard."""
        return sum(len(images) for _, images in self.batches_of(shard))
