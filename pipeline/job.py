"""A run made ready: networks loaded, source listed, outputs named, everything checked. No pixel was read yet."""

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from attacks.statistics import AdvBNConfig
from basics.compute import Compute, choose_compute
from basics.differences import differences
from basics.errors import UserError, WorkError
from basics.files import digest_json
from basics.paths import AnyPath
from decoders.autoencoder import AutoencoderFile, load_autoencoder
from networks.classifiers import Classifier, load_classifier
from pipeline.config import GenerationConfig
from pipeline.dataset.manifest import FORMAT_VERSION, DatasetDescription
from pipeline.dataset.plan import Plan
from pipeline.perturb import Perturber
from pipeline.replay import Replay, load_renderer
from sources.base import ImageRecord, Source
from sources.drawn.source import DrawnSource
from sources.keys import sample_keys
from sources.opening import open_source

_SOFTWARE = ("advbn-gen", "torch", "torchvision", "pillow", "webdataset")

Facts = dict[str, Any]
"""The part of a run's identity that the process which computes decides: networks, arithmetic, software."""
FactsOf = Callable[[GenerationConfig], Facts]
"""Tells the facts of the process that it is called in; picklable."""
Ask = Callable[[FactsOf, GenerationConfig], Facts]
"""Asks other processes for their facts, and returns what they have in common."""
Item_co = TypeVar("Item_co", covariant=True)


class Indexed(Protocol[Item_co]):
    """Items by their position: a sequence, or a dict of some of its places."""

    def __getitem__(self, index: int, /) -> Item_co:
        """Return the item of a position."""
        ...


@dataclass(frozen=True, kw_only=True)
class Product:
    """One data set that a run writes."""

    folder: AnyPath
    name: str
    perturbed: bool
    """AdvBN, or the reconstructions."""


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The networks of a run, loaded once a process."""

    autoencoder: AutoencoderFile
    classifier: Classifier
    compute: Compute
    perturber: Perturber

    def facts(self) -> dict[str, Any]:
        """Return what tells these networks from others."""
        classifier = {key: value for key, value in self.classifier.facts().items() if key != "weights"}
        return {"autoencoder": self.autoencoder.summary(), "classifier": classifier}


@lru_cache(maxsize=1)
def load_networks(config: GenerationConfig, classes: int) -> Networks:
    """Load and check the networks of a run; the last ones asked for are kept.

    Raises:
        UserError: a file is missing or foreign, or something does not fit.
    """
    if config.autoencoder is None:
        raise UserError(
            "No autoencoder was given; make one with `advbn-gen train-autoencoder` or "
            "`advbn-gen import-autoencoder` and name it with --autoencoder."
        )
    compute = choose_compute(config.device, config.precision)
    autoencoder = load_autoencoder(Path(config.autoencoder), config.encoder)
    name = config.classifier
    if name is None and not config.classifier_weights.endswith(".safetensors"):
        name = config.kind.classifier
    classifier = load_classifier(name, config.classifier_weights, classes)
    perturber = Perturber(autoencoder.module, classifier.module, compute)
    return Networks(autoencoder=autoencoder, classifier=classifier, compute=compute, perturber=perturber)


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that a worker needs to make any shard; picklable, and the same in every process."""

    config: GenerationConfig
    source: Source
    records: Indexed[ImageRecord]
    """The images of the run by their position."""
    keys: Indexed[str]
    """Sample key of each."""
    plan: Plan
    products: tuple[Product, ...]
    threads: int
    """Computing threads of each process, counted where the job was made: every worker uses the same."""
    identity: dict[str, Any]
    """Everything that the bytes of the perturbed images depend on."""
    replay: Replay | None = None
    """What takes the place of the ascent; None: there is one."""

    def identity_of(self, product: Product) -> dict[str, Any]:
        """Return everything that the bytes of one product depend on."""
        unneeded = set() if product.perturbed else {"attack"}
        return {name: value for name, value in self.identity.items() if name not in unneeded}

    def fingerprint_of(self, product: Product) -> str:
        """Return the SHA-256 over a product's identity."""
        return digest_json(self.identity_of(product))

    def description(self, product: Product) -> DatasetDescription:
        """Return what the manifest of a product says of it."""
        classes = self.source.classes
        return DatasetDescription(
            name=product.name,
            perturbed=product.perturbed,
            split=self.config.split,
            plan=self.plan,
            identity=self.identity_of(product),
            config=self.config.to_json(),
            source=self.source.address,
            rendered=self.replay.rendered if self.replay else None,
            classes=classes.names,
            imagenet=classes.imagenet,
        )

    @property
    def facts(self) -> Facts:
        """What every process that works on the job has to have in common."""
        # What a rendering says of the classifier is the ledger's word: no process of it loads one.
        return {name: self.identity[name] for name in _FACTS if not (self.replay and name == "classifier")}

    @property
    def scale(self) -> float:
        """Scale of the perturbations: 1 unless a ledger is rendered with another."""
        return self.replay.scale if self.replay else 1.0

    def part(self, shard: int) -> "Job":
        """Return the job with the images of one shard only: small, so that it can be sent with every task."""
        batches = list(self.plan.batches_of(shard))
        indices = range(batches[0][1].start, batches[-1][1].stop)
        records = {index: self.records[index] for index in indices}
        keys = {index: self.keys[index] for index in indices}
        replay = self.replay and self.replay.part(range(batches[0][0], batches[-1][0] + 1), indices)
        source = self.source.part(list(records.values()))
        return replace(self, source=source, records=records, keys=keys, replay=replay)


def products_of(config: GenerationConfig, folder: AnyPath, name: str) -> tuple[Product, ...]:
    """Return what a run writes: the perturbed images in `folder` and, if asked for, the reconstructions beside it."""
    perturbed = Product(folder=folder.absolute(), name=name, perturbed=True)
    return (perturbed, _beside(perturbed)) if config.reconstructed else (perturbed,)


def prepare(
    config: GenerationConfig,
    products: tuple[Product, ...],
    ask: Ask | None = None,
) -> Job:
    """Check everything that can be checked before work starts, and return the job.

    Args:
        config: the run.
        products: what it writes.
        ask: asks the processes that will do the work for their facts; None: it is done here. Otherwise this process
            needs no device of theirs.

    Raises:
        UserError: anything that a user has to mend.
    """
    source = open_images(config)
    plan = config.plan(len(source.records))
    here = config if ask is None else replace(config, device="cpu", precision="auto")
    _try_once(here, load_networks(here, source.classes.count))
    facts_of = partial(own_facts, classes=source.classes.count)
    facts = ask(facts_of, config) if ask else facts_of(config)
    return Job(
        config=config,
        source=source,
        records=source.records[: plan.images],
        keys=sample_keys(source.records)[: plan.images],
        plan=plan,
        products=products,
        threads=config.threads_each(),
        identity=_identity(config, source, plan, facts),
    )


def _try_once(config: GenerationConfig, networks: Networks) -> None:
    """One grey image through everything: some classifiers do not take every image size."""
    grey = torch.full((1, 3, config.image_size, config.image_size), 128, dtype=torch.uint8)
    try:
        networks.perturber(grey, torch.zeros(1, dtype=torch.long), AdvBNConfig(steps=0))
    except WorkError as error:
        raise UserError(f"With these weights {error}") from error
    except RuntimeError as error:
        raise UserError(
            f"The classifier {networks.classifier.name} does not take images of {config.image_size} px ({error}); "
            "give another --image-size or --classifier."
        ) from error


def open_images(config: GenerationConfig) -> Source:
    """Return the source of a run: the one that was asked for, else the drawn world."""
    if config.source is None:
        return DrawnSource(config.split, size=config.image_size)
    labels, order = (Path(path) if path else None for path in (config.labels, config.order))
    return open_source(config.source, labels=labels, split=config.split, order=order)


def _beside(perturbed: Product) -> Product:
    def renamed(name: str) -> str:
        return name.replace("advbn", "reconstructed") if "advbn" in name else f"{name}-reconstructed"

    folder = perturbed.folder.with_name(renamed(perturbed.folder.name))
    return Product(folder=folder, name=renamed(perturbed.name), perturbed=False)


def own_facts(config: GenerationConfig, classes: int) -> Facts:
    """Return the facts of this process for a run: what its bytes depend on beside images and settings.

    Raises:
        UserError: the networks cannot be loaded here.
    """
    networks = load_networks(config, classes)
    return {**networks.facts(), **_surroundings(config, networks.compute)}


def rendering_facts(config: GenerationConfig) -> Facts:
    """Return the facts of this process for a rendering, which needs no classifier.

    Raises:
        UserError: the autoencoder cannot be loaded here.
    """
    renderer = load_renderer(config)
    return {**renderer.facts(), **_surroundings(config, renderer.compute)}


def unlike_here(job: Job) -> str:
    """Return how this process differs from those that a job was made for; empty if it does not."""
    try:
        here = rendering_facts(job.config) if job.replay else own_facts(job.config, job.source.classes.count)
    except UserError as error:
        return str(error)
    return "; ".join(differences(job.facts, here))


def _surroundings(config: GenerationConfig, compute: Compute) -> Facts:
    return {
        "arithmetic": {
            "precision": compute.precision,
            "hardware": compute.kind,
            "machine": platform.machine(),
            # On a GPU the CPU's threads only decode and encode, which never changes a byte.
            "threads": config.threads_each() if compute.device.type == "cpu" else None,
        },
        "software": _software(),
    }


_FACTS = ("autoencoder", "classifier", "arithmetic", "software")


@lru_cache(maxsize=1)
def _software() -> dict[str, str]:
    return {name: version(name) for name in _SOFTWARE}


def _identity(config: GenerationConfig, source: Source, plan: Plan, facts: Facts) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "images": {
            "count": plan.images,
            "order": source.order,
            "records_sha256": source.digest(),
            "classes": source.classes.count,
            "image_size": config.image_size,
            "split": config.split,
        },
        "batches": {"batch_size": plan.batch_size, "batches_per_shard": plan.batches_per_shard},
        "attack": config.to_json()["attack"],
        **facts,
    }
