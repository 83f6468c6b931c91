"""Perturbations replayed from a ledger: its multipliers replace the ascent, its predictions the classifier.

Legend: N images of the batch, C feature channels, S steps.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from basics.errors import WorkError
from pipeline.batch_arithmetic import PendingBatch, PerturbedBatch
from pipeline.dataset.ledger import SAMPLES, Columns, losses_in_nats, rows_of
from pipeline.dataset.shard_file import NO_PREDICTION
from pipeline.perturbation import DecodedBatch
from pipeline.worker import Networks


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Perturbations as a ledger has recorded them, at any scale; see `Perturbation`."""

    columns: Columns = field(repr=False, compare=False)
    """The ledger's columns from a first batch and a first sample on."""
    scale: float
    """S in S * (delta - 1) + 1: 0 gives the reconstruction, 1 the run of the ledger."""
    ledger: str
    """Address of the ledger."""
    ledger_sha256: str
    """Checksum of the ledger."""
    absent: frozenset[str]
    """Names of originals that are in the ledger but not in the source."""
    first_batch: int = 0
    """Number of the first batch in `columns`."""
    first_sample: int = 0
    """Position of the first sample in `columns`."""

    @property
    def classes(self) -> None:
        """See `Perturbation`; the predictions are known, so no classifier is needed."""
        return

    @property
    def rendered(self) -> dict[str, Any]:
        """See `Perturbation`."""
        return {"ledger": self.ledger, "ledger_sha256": self.ledger_sha256, "scale": self.scale}

    def part(self, batches: range, samples: range) -> "Replay":
        """See `Perturbation`: the rows of these batches and samples only."""
        batch, sample = batches.start - self.first_batch, samples.start - self.first_sample
        columns = rows_of(self.columns, slice(batch, batch + len(batches)), slice(sample, sample + len(samples)))
        names = {name.decode() for name in columns[f"{SAMPLES}/source"]}
        return replace(
            self, columns=columns, absent=self.absent & names, first_batch=batches.start, first_sample=samples.start
        )

    def check_listed(self, name: str) -> None:
        """See `Perturbation`."""
        if name in self.absent:
            raise WorkError(f"the image {name} is in the ledger but not in the source; put it back.")

    def check_original(self, index: int, name: str, sha256: str) -> None:
        """See `Perturbation`."""
        expected = bytes(self.columns[f"{SAMPLES}/source_sha256"][index - self.first_sample]).hex()
        if sha256 != expected:
            raise WorkError(
                f"the image {name} is not the one in the ledger (its SHA-256 begins with {sha256[:12]}, "
                f"not {expected[:12]}); put the original file in its place."
            )

    def begin(self, networks: Networks, batch: DecodedBatch, *, attack: bool) -> PendingBatch:  # noqa: ARG002
        """See `Perturbation`: what the ledger's run made of the batch, or what the scaled multipliers make of it.

        There are no reconstructions. At a scale other than 1 only the first loss is known, and predictions on the
        perturbed images are those on the reconstructions (scale 0) or `NO_PREDICTION`.
        """
        indices, image_N3HW = batch.indices, batch.image_N3HW
        rows = slice(indices.start - self.first_sample, indices.stop - self.first_sample)
        samples = {name: column[rows] for name, column in self.columns.items() if name.startswith(SAMPLES)}
        delta_mean_C, delta_std_C = (
            scaled(self.columns[name][batch.number - self.first_batch], self.scale)
            for name in ("delta_mean", "delta_std")
        )
        losses_NS = losses_in_nats(samples)
        perturbed = PerturbedBatch(
            perturbed_N3HW=networks.shifter.shifted(image_N3HW, delta_mean_C, delta_std_C),
            reconstructed_N3HW=image_N3HW[:0],
            delta_mean_C=delta_mean_C,
            delta_std_C=delta_std_C,
            losses_SN=torch.from_numpy(losses_NS if self.scale == 1 else losses_NS[:, :1]).T,
            clean_N=_predictions(samples, "clean"),
            reconstructed_N=_predictions(samples, "reconstructed"),
            adversarial_N=self._adversarial(samples),
        )
        return PendingBatch.of(perturbed)

    def _adversarial(self, samples: Columns) -> Tensor:
        if self.scale in {0, 1}:
            return _predictions(samples, "adversarial" if self.scale else "reconstructed")
        return torch.full((len(samples[f"{SAMPLES}/label"]),), NO_PREDICTION)


def scaled(delta_C: NDArray[np.float64], scale: float) -> Tensor:
    """Return S * (delta - 1) + 1 in float64; at a scale of 1, bit for bit the multipliers themselves."""
    delta = torch.tensor(delta_C, dtype=torch.float64)
    return delta if scale == 1 else scale * (delta - 1) + 1


def _predictions(samples: Columns, name: str) -> Tensor:
    return torch.tensor(samples[f"{SAMPLES}/{name}_prediction"])
