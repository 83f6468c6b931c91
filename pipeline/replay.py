"""What takes the place of the ascent when a data set is made from a ledger: known multipliers, known answers."""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from basics.compute import Compute, choose_compute
from basics.errors import UserError, WorkError
from decoders.autoencoder import AutoencoderFile, load_autoencoder
from pipeline.config import GenerationConfig
from pipeline.dataset.ledger import SAMPLES, Columns, losses_in_nats
from pipeline.dataset.shard_file import NO_PREDICTION
from pipeline.perturb import PerturbedBatch, Shifter


@dataclass(frozen=True, kw_only=True)
class Replay:
    """The rows of a ledger that stand for an ascent; picklable, and `part` makes it small."""

    columns: Columns = field(repr=False, compare=False)
    """The ledger's columns from a first batch and a first sample on."""
    scale: float
    """S in S * (delta - 1) + 1: 0 gives the reconstruction, 1 the run of the ledger."""
    ledger: str
    """Where the ledger is."""
    ledger_sha256: str
    absent: frozenset[str]
    """Names of originals that the ledger tells of and the source does not have."""
    first_batch: int = 0
    first_sample: int = 0

    @property
    def rendered(self) -> dict[str, Any]:
        """What a manifest says of the ledger."""
        return {"ledger": self.ledger, "ledger_sha256": self.ledger_sha256, "scale": self.scale}

    def part(self, batches: range, samples: range) -> "Replay":
        """Return the rows of some successive batches and their samples, numbered as in the whole ledger."""
        lead, skip = batches.start - self.first_batch, samples.start - self.first_sample
        kept = {
            name: column[skip : skip + len(samples)] if name.startswith(SAMPLES) else column[lead : lead + len(batches)]
            for name, column in self.columns.items()
        }
        names = {name.decode() for name in kept[f"{SAMPLES}/source"]}
        return replace(
            self, columns=kept, absent=self.absent & names, first_batch=batches.start, first_sample=samples.start
        )

    def require_there(self, name: str) -> None:
        """Refuse an original that the source does not have.

        Raises:
            WorkError: see above.
        """
        if name in self.absent:
            raise WorkError(f"the image {name} is in the ledger but not in the source; put it back.")

    def require_same(self, index: int, name: str, sha256: str) -> None:
        """Refuse an original that is not the one that the ledger tells of.

        Raises:
            WorkError: see above.
        """
        told = bytes(self.columns[f"{SAMPLES}/source_sha256"][index - self.first_sample]).hex()
        if sha256 != told:
            raise WorkError(
                f"the image {name} is not the one that the ledger tells of (its SHA-256 begins with {sha256[:12]}, "
                f"not {told[:12]}); put the original file in its place."
            )

    def perturbed(self, shifter: Shifter, number: int, indices: range, image_N3HW: Tensor) -> PerturbedBatch:
        """Return what the ledger's run made of a batch or, at another scale, what the scaled multipliers make of it.

        There are no reconstructions. At a scale other than 1 the losses end with the first one, and predictions on the
        perturbed images are those on the reconstructions (scale 0) or `NO_PREDICTION`.

        Args:
            shifter: the autoencoder.
            number: of the batch.
            indices: positions of its images in the run.
            image_N3HW: 8-bit originals.
        """
        rows = slice(indices.start - self.first_sample, indices.stop - self.first_sample)
        samples = {name: column[rows] for name, column in self.columns.items() if name.startswith(SAMPLES)}
        delta_mean_C, delta_std_C = (
            scaled(self.columns[name][number - self.first_batch], self.scale) for name in ("delta_mean", "delta_std")
        )
        losses_NS = losses_in_nats(samples)
        return PerturbedBatch(
            perturbed_N3HW=shifter.shifted(image_N3HW, delta_mean_C, delta_std_C),
            reconstructed_N3HW=image_N3HW[:0],
            delta_mean_C=delta_mean_C,
            delta_std_C=delta_std_C,
            losses_SN=torch.from_numpy(losses_NS if self.scale == 1 else losses_NS[:, :1]).T,
            clean_N=_predictions(samples, "clean"),
            reconstructed_N=_predictions(samples, "reconstructed"),
            adversarial_N=self._adversarial(samples),
        )

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


@dataclass(frozen=True, kw_only=True)
class Renderer:
    """The one network that rendering needs, loaded once a process."""

    autoencoder: AutoencoderFile
    compute: Compute
    shifter: Shifter

    def facts(self) -> dict[str, Any]:
        """Return what tells this network from others."""
        return {"autoencoder": self.autoencoder.summary()}


@lru_cache(maxsize=1)
def load_renderer(config: GenerationConfig) -> Renderer:
    """Load and check the autoencoder of a run; the last one asked for is kept.

    Raises:
        UserError: the file is missing or foreign.
    """
    if config.autoencoder is None:
        raise UserError("No autoencoder was given; name the one that the ledger was made with, with --autoencoder.")
    compute = choose_compute(config.device, config.precision)
    autoencoder = load_autoencoder(Path(config.autoencoder))
    return Renderer(autoencoder=autoencoder, compute=compute, shifter=Shifter(autoencoder.module, compute))
