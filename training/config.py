"""Settings that every training run has."""

from dataclasses import dataclass
from typing import Literal, get_args

from basics.errors import UserError
from basics.options import require_loaders

Schedule = Literal["constant", "cosine", "step"]


def require_seed(seed: int) -> None:
    """Refuse a seed that not every generator of random numbers takes.

    Raises:
        UserError: it is not a number from 0 to 2**32 - 1.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"The seed is {seed}; give a whole number from 0 to 2**32 - 1.")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Length, speed and randomness of a training run. Published values are in `experiments/`."""

    epochs: int
    """Passes over the training images."""
    batch_size: int
    """Images a step, over all devices together."""
    lr: float
    """Learning rate (at its highest)."""
    image_size: int
    """Side of the square crops, in pixels."""
    weight_decay: float = 0.0
    """Weight decay, as the optimiser defines it."""
    schedule: Schedule = "constant"
    """`cosine`: a linear warm-up, then half a cosine down to 0. `step`: a tenth every `decay_every` epochs."""
    decay_every: int = 10
    """Epochs between two steps of a `step` schedule."""
    warmup: float = 0.05
    """Share of all steps that a `cosine` schedule warms up for."""
    seed: int = 0
    """Seed of fresh weights, order and crops."""
    checkpoint_every: int = 500
    """Steps between two checkpoints within an epoch; every epoch ends in one as well."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""
    devices: int = 1
    """How many devices share each batch (data parallel)."""
    precision: str = "auto"
    """`auto`, `fp32`, `tf32`, `bf16` or `fp64`."""
    loaders: int | None = None
    """Loader processes a device; 0 decodes in the process, None starts as many as fit the machine."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "devices", "checkpoint_every", "image_size", "decay_every"):
            if getattr(self, name) < 1:
                raise UserError(f"The {name.replace('_', ' ')} is {getattr(self, name)}; give 1 or more.")
        require_seed(self.seed)
        require_loaders(self.loaders)
        if not 0 < self.lr < float("inf"):
            raise UserError(f"The learning rate is {self.lr}; give a number above 0.")
        if not 0 <= self.weight_decay < float("inf"):
            raise UserError(f"The weight decay is {self.weight_decay}; give a number that is not negative.")
        if self.schedule not in get_args(Schedule):
            raise UserError(f"There is no schedule {self.schedule!r}; give one of {', '.join(get_args(Schedule))}.")
        self._require_shares()

    def require_batches_for_batch_norm(self) -> None:
        """Refuse batches of which a device would get one image: batch norm cannot learn from it.

        Raises:
            UserError: see above.
        """
        if self.batch_size // self.devices < 2:
            raise UserError(
                "A batch has one image, but batch norm needs two to learn from; give a larger --batch-size."
            )

    def _require_shares(self) -> None:
        if self.devices > 1 and ":" in self.device:
            raise UserError(f"The device is {self.device}, but --devices is {self.devices}; give --device cuda.")
        if self.batch_size % self.devices:
            raise UserError(
                f"A batch of {self.batch_size} does not divide among {self.devices} devices; give a multiple."
            )
