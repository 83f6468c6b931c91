"""How the images of a run are perturbed: what an ascent (here) and the replay of a ledger (`replay`) have in common.

Legend: N images of the batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from attacks.statistics import AdvBNConfig
from pipeline.batch_arithmetic import PendingBatch
from pipeline.worker import Networks

_NO_STEPS = AdvBNConfig(steps=0)


class Original(NamedTuple):
    """One decoded original."""

    image_3HW: Tensor
    """8-bit image."""
    label: int
    """True class."""
    sha256: str
    """Checksum of its file."""


class DecodedBatch(NamedTuple):
    """A batch before the perturbation."""

    number: int
    """Number of the batch in the run."""
    indices: range
    """Positions of its images in the run."""
    originals: list[Original]

    @property
    def image_N3HW(self) -> Tensor:
        """The 8-bit originals."""
        return torch.stack([original.image_3HW for original in self.originals])

    @property
    def label_N(self) -> Tensor:
        """True classes of the originals."""
        return torch.tensor([original.label for original in self.originals])


class Perturbation(Protocol):
    """How the images of a run are perturbed. Picklable, and holds no network."""

    @property
    def classes(self) -> int | None:
        """Classes of the classifier that it needs; None if it needs none."""
        ...

    @property
    def rendered(self) -> Mapping[str, Any] | None:
        """What a manifest says of the ledger that the perturbations come from; None if they come from an ascent."""
        ...

    def part(self, batches: range, samples: range) -> Self:
        """Return what is needed for some successive batches and their samples, numbered as in the whole run."""
        ...

    def check_listed(self, name: str) -> None:
        """Refuse an original that the source does not have, before it is read.

        Raises:
            WorkError: see above.
        """
        ...

    def check_original(self, index: int, name: str, sha256: str) -> None:
        """Refuse an original that is not the expected file.

        Args:
            index: position of the image in the run.
            name: its name in the source.
            sha256: checksum of the file that was read.

        Raises:
            WorkError: see above.
        """
        ...

    def begin(self, networks: Networks, batch: DecodedBatch, *, attack: bool) -> PendingBatch:
        """Begin to perturb one batch; a device may still be at work on it when this returns.

        Args:
            networks: the networks of the run.
            batch: decoded originals.
            attack: False if only the reconstructions are wanted, so that no step of an ascent is taken.

        Raises:
            WorkError: a value is not a finite number.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Ascent:
    """Perturbations found by gradient ascent against a classifier (section 3)."""

    attack: AdvBNConfig
    """Strength of the perturbation."""
    classes: int
    """Classes of the attacked classifier."""

    @property
    def rendered(self) -> None:
        """See `Perturbation`."""
        return

    def part(self, batches: range, samples: range) -> Self:  # noqa: ARG002
        """See `Perturbation`; an ascent needs the same for every batch."""
        return self

    def check_listed(self, name: str) -> None:
        """See `Perturbation`; an ascent takes whatever the source lists."""

    def check_original(self, index: int, name: str, sha256: str) -> None:
        """See `Perturbation`; an ascent expects no particular file."""

    def begin(self, networks: Networks, batch: DecodedBatch, *, attack: bool) -> PendingBatch:
        """See `Perturbation`."""
        if networks.perturber is None:
            raise ValueError("an ascent needs a classifier")
        return networks.perturber.begin(batch.image_N3HW, batch.label_N, self.attack if attack else _NO_STEPS)
