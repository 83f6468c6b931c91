"""Settings of the main job."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from attacks.micro_batches import require_micro_batch
from attacks.statistics import AdvBNConfig
from basics.compute import available_cores
from basics.errors import UserError
from basics.paths import Address, address_text
from basics.software import REVISION
from encoders import EncoderKind, encoder_kind
from networks.classifiers import PUBLISHED
from pipeline.dataset.manifest import Manifest
from pipeline.dataset.plan import Plan

_FILE_NAME_PART = re.compile(r"[A-Za-z0-9_-]+")
_NOT_STORED = {"workers", "reconstructed", "threads", "micro_batch", "compiled", "revision"}

AUTO: Literal["auto"] = "auto"
_AUTO_PIXELS = {"cpu": 8 * 256**2}
"""Pixels of the images in one pass where the micro-batch is `auto`, by kind of device; where there is no number, a
batch is passed as a whole (docs/choices.md)."""


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """Settings of one run of the main job. The defaults make ImageNet-AdvBN as published (paper 1, appendix B.1).

    Attributes:
        encoder: name of the encoder: `vgg`, `resnet`, or SPEC@MODULE for the front of any network.
        source: path or address of the images; None for the embedded drawn world.
        autoencoder: path of `autoencoder.safetensors` or its run folder; required by the time that networks are loaded.
        labels: label list or devkit of a flat ILSVRC2012 folder.
        order: file that names the images in another order than ImageFolder's.
        classifier: name of the attacked classifier, torchvision's or `timm:NAME`; None for that which the weights file
            names, or else for the encoder's default.
        classifier_weights: `published`, a file, or `seed:N`.
        attack: strength of the perturbation.
        batch_size: images whose feature statistics are perturbed together, 1 or more.
        image_size: side of the square images, in pixels; a multiple of the encoder's reduction.
        batches_per_shard: batches in a shard, 1 or more.
        limit: only the first so many images, 1 or more; None for all.
        split: name of the split: it is part of file names, and selects the folder of a source that has several.
        device: device that networks run on: auto, cpu, cuda, cuda:N or mps.
        precision: precision of the arithmetic: auto, fp32, tf32, bf16 or fp64.
        threads: computing threads of each process; None for all cores, divided among the workers.
        workers: worker processes; 0 to work in this process. Each of them imports the script that starts it, whose call
            has to stand under `if __name__ == "__main__":` for that reason.
        micro_batch: images in one pass of the networks; None passes a batch as a whole. Statistics are the whole
            batch's in any case, but rounding depends on it, so `auto` depends only on the kind of device and on the
            settings.
        compiled: whether networks are compiled by torch.compile, which changes rounding.
        revision: way to compute, see `basics.software.REVISION`.
        reconstructed: also write the reconstructions without perturbation, as a second data set.

    Paths may be given in any form, and are kept as text.

    Raises:
        UserError: a value is out of its range, or there is no such encoder.

    Example:
        >>> from advbn_gen import AdvBNConfig, GenerationConfig
        >>> attack = AdvBNConfig(eps=0.5)
        >>> config = GenerationConfig(encoder="vgg", source="my-images", autoencoder="mine.safetensors", attack=attack)
        >>> config.batch_size, config.image_size, config.attack.eps
        (32, 256, 0.5)
        >>> GenerationConfig(encoder="vgg", source="my-images", autoencoder="mine.safetensors", limit=0)
        Traceback (most recent call last):
        basics.errors.UserError: --limit is 0; give 1 or more.
    """

    encoder: str
    source: Address | None
    autoencoder: str | os.PathLike[str] | None
    labels: Address | None = None
    order: Address | None = None
    classifier: str | None = None
    classifier_weights: str | os.PathLike[str] = PUBLISHED
    attack: AdvBNConfig = field(default_factory=AdvBNConfig)
    batch_size: int = 32
    image_size: int = 256
    batches_per_shard: int = 49
    limit: int | None = None
    split: str = "val"
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    workers: int = 0
    micro_batch: int | Literal["auto"] | None = AUTO
    compiled: bool = False
    revision: int = REVISION
    reconstructed: bool = False

    def __post_init__(self) -> None:
        for name in ("source", "autoencoder", "labels", "order", "classifier_weights"):
            value = getattr(self, name)
            if value is not None:
                # The way in which dataclasses themselves set the fields of a frozen one.
                object.__setattr__(self, name, address_text(value))
        self.kind.require_size(self.image_size)
        for name, least in (("limit", 1), ("threads", 1), ("workers", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name} is {value}; give {least} or more.")
        if self.micro_batch not in (None, AUTO):
            require_micro_batch(self.micro_batch)
        if not 1 <= self.revision <= REVISION:
            raise UserError(
                f"This was made by revision {self.revision} of the arithmetic, and this version of advbn-gen knows "
                f"1 to {REVISION}; update it."
            )
        if not _FILE_NAME_PART.fullmatch(self.split):
            raise UserError(f"The split is {self.split!r}; give a name of letters, digits, '-' and '_', e.g. val.")
        self.plan(images=1)

    @property
    def kind(self) -> EncoderKind:
        """The encoder's description."""
        return encoder_kind(self.encoder)

    def plan(self, images: int) -> Plan:
        """Return the plan for a source with this number of images."""
        counted = min(images, self.limit) if self.limit else images
        return Plan(images=counted, batch_size=self.batch_size, batches_per_shard=self.batches_per_shard)

    def threads_each(self) -> int:
        """Return the computing threads of one process."""
        return self.threads or max(1, available_cores() // max(1, self.workers))

    def micro_batch_on(self, device: str) -> int | None:
        """Return the images in one pass on a kind of device (`cpu`, `cuda`, ...); None where it takes a whole batch."""
        size = self.micro_batch
        if size == AUTO:
            pixels = _AUTO_PIXELS.get(device)
            size = None if pixels is None else max(1, pixels // self.image_size**2)
        return None if size is None or size >= self.batch_size else size

    def to_json(self) -> dict[str, Any]:
        """Return the settings that a manifest stores to repeat the run; how the work was distributed is not stored."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {name: value for name, value in values.items() if name not in _NOT_STORED}


def config_of_manifest(manifest: Manifest) -> GenerationConfig:
    """Rebuild the settings of the run that made a data set from its manifest.

    How it was computed is not among the stored settings, and is taken from the identity.
    """
    values, arithmetic = manifest.values["config"], manifest.values["identity"]["arithmetic"]
    return GenerationConfig(
        **{**values, "attack": AdvBNConfig(**values["attack"]), "threads": arithmetic["threads"]},
        **recorded_computation(arithmetic),
        compiled="compiled" in arithmetic,
    )


def recorded_computation(arithmetic: Mapping[str, Any]) -> dict[str, Any]:
    """Return the micro-batch and the revision of a run from the arithmetic in its identity.

    It names the micro-batch where it cut a batch, and the revision from 2 on.
    """
    return {"micro_batch": arithmetic.get("micro_batch"), "revision": arithmetic.get("revision", 1)}
