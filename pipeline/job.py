"""A run before its first shard: source listed, networks checked, identity computed, outputs named."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from attacks.statistics import AdvBNConfig
from basics.errors import UserError, WorkError
from basics.paths import AnyPath
from basics.progress import say
from basics.software import FORMAT_VERSION
from networks.classifiers import IMAGENET_CLASSES, PUBLISHED, PUBLISHED_VIEW, SEED_PREFIX, Classifier
from networks.specs import say_assumed
from pipeline.claim import begun_dataset, refusing_unreachable
from pipeline.compiled import compilation_failure, is_compilation_error
from pipeline.config import AUTO, GenerationConfig, recorded_computation
from pipeline.dataset.manifest import DatasetDescription, marked_shards
from pipeline.dataset.plan import Plan
from pipeline.perturbation import Ascent, Perturbation
from pipeline.shard import Indexed, ShardPlan
from pipeline.worker import Environment, EnvironmentOf, Networks, Requirements, load_networks, own_environment
from sources.base import ImageRecord, Source
from sources.classes import require_agreeing
from sources.drawn.source import DrawnSource
from sources.keys import sample_keys
from sources.opening import open_source

_SMALL = 0.6
"""Share of the side that a classifier is meant for below which its accuracy is likely to be low."""

CommonEnvironment = Callable[[EnvironmentOf, GenerationConfig], Environment]
"""Computes the environments of the processes that will make the shards, and returns the one that they share."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """One data set that a run writes."""

    folder: AnyPath
    """Folder that it is written to."""
    name: str
    """Name with which its files' names begin."""
    perturbed: bool
    """True for images perturbed by AdvBN, False for reconstructions."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that a worker needs to make any shard; picklable, and the same in every process."""

    config: GenerationConfig
    """Settings of the run."""
    source: Source
    """Where the images are read."""
    records: Indexed[ImageRecord]
    """The images of the run by their position."""
    keys: Indexed[str]
    """Sample key of each image."""
    plan: Plan
    """Which image is in which batch of which shard."""
    perturbation: Perturbation
    """How the images are perturbed."""
    datasets: tuple[DatasetDescription, ...]
    """The data sets that are written; the reconstructions, if they are, come second."""
    requirements: Requirements
    """What every process that works on the job must have in common: networks, arithmetic, software."""
    identity: dict[str, Any]
    """Everything that the bytes of the perturbed images depend on, the environment of the processes included."""

    def shard_plan(self, shard: int) -> ShardPlan:
        """Return the plan of one shard, with the images and the perturbations of that shard only."""
        batches = tuple(self.plan.batches_of(shard))
        numbers, indices = range(batches[0][0], batches[-1][0] + 1), range(batches[0][1].start, batches[-1][1].stop)
        records = {index: self.records[index] for index in indices}
        return ShardPlan(
            shard=shard,
            batches=batches,
            source=self.source.part(list(records.values())),
            records=records,
            keys={index: self.keys[index] for index in indices},
            image_size=self.config.image_size,
            perturbation=self.perturbation.part(numbers, indices),
        )

    def part(self, shard: int) -> "Job":
        """Return the job with the images of one shard only: small, so that it can be sent with every task."""
        plan = self.shard_plan(shard)
        return replace(self, source=plan.source, records=plan.records, keys=plan.keys, perturbation=plan.perturbation)


def products_of(config: GenerationConfig, folder: AnyPath, name: str) -> tuple[Product, ...]:
    """Return what a run writes: the perturbed images in `folder` and, if configured, the reconstructions beside it."""
    perturbed = Product(folder=folder.absolute(), name=name, perturbed=True)
    return (perturbed, _reconstructed_product(perturbed)) if config.reconstructed else (perturbed,)


def _reconstructed_product(perturbed: Product) -> Product:
    """Return the data set of reconstructions, in a folder beside the perturbed images."""

    def renamed(name: str) -> str:
        return name.replace("advbn", "reconstructed") if "advbn" in name else f"{name}-reconstructed"

    folder = perturbed.folder.with_name(renamed(perturbed.folder.name))
    return Product(folder=folder, name=renamed(perturbed.name), perturbed=False)


def _in_this_process(environment_of: EnvironmentOf, config: GenerationConfig) -> Environment:
    return environment_of(config)


def prepare(
    config: GenerationConfig,
    products: tuple[Product, ...],
    common_environment: CommonEnvironment = _in_this_process,
    trial_config: GenerationConfig | None = None,
    *,
    anew: bool = False,
) -> Job:
    """Check everything that can be checked before work starts, and return the job of an ascent.

    A data set that was begun by an earlier version is gone on with as it was begun.

    Args:
        config: the run.
        products: the data sets that it writes.
        common_environment: returns the environment of the processes that will make the shards.
        trial_config: settings with which this process passes one image through the networks; None for `config`. They
            differ where other machines make the shards, since this process does not need their device.
        anew: whether data sets that were begun will be removed.

    Raises:
        UserError: anything that a user has to correct.
    """
    trial_config = trial_config or config
    begun = [] if anew else [begun_dataset(product.folder) for product in products]
    recorded = [each.arithmetic for each in begun if each.arithmetic is not None]
    if recorded:
        _say_what_differs(config, recorded[0], products[0])
        config, trial_config = (_as_begun(each, recorded[0]) for each in (config, trial_config))
    job = _prepared(config, products, common_environment, trial_config)
    if recorded or not any(each.has_marks for each in begun) or _has_shards(job):
        return job
    # The manifest is lost; the marks of shards that an earlier version made have the fingerprint of its arithmetic.
    config, trial_config = (_as_begun(each, {}) for each in (config, trial_config))
    earlier = _prepared(config, products, common_environment, trial_config)
    return earlier if _has_shards(earlier) else job


def _as_begun(config: GenerationConfig, arithmetic: Mapping[str, Any]) -> GenerationConfig:
    """Return settings with the recorded way to compute; a micro-batch that was given stays."""
    recorded = recorded_computation(arithmetic)
    if config.micro_batch != AUTO:
        del recorded["micro_batch"]
    return replace(config, **recorded)


def _say_what_differs(config: GenerationConfig, arithmetic: Mapping[str, Any], product: Product) -> None:
    """Say where a data set goes on in another way than a new one would be made, which may need more memory."""
    if recorded_computation(arithmetic)["revision"] < config.revision:
        say(
            f"{product.folder} was begun by an earlier version of this program; it goes on in the way and with the "
            "memory of then. --overwrite starts anew."
        )


def _has_shards(job: Job) -> bool:
    for dataset in job.datasets:
        with refusing_unreachable(dataset.folder):
            if marked_shards(dataset):
                return True
    return False


def _prepared(
    config: GenerationConfig,
    products: tuple[Product, ...],
    common_environment: CommonEnvironment,
    trial_config: GenerationConfig,
) -> Job:
    source = open_images(config)
    plan = config.plan(len(source.records))
    ascent = Ascent(attack=config.attack, classes=source.classes.count)
    environment_of = partial(own_environment, classes=ascent.classes)
    environment = common_environment(environment_of, config)
    networks = load_networks(trial_config, ascent.classes)
    if networks.classifier is not None and networks.classifier.assumed:
        colours = networks.classifier.mean_std.describe()
        say_assumed(
            f"{networks.classifier.name}={config.classifier_weights}", f"the network's usual colours ({colours})"
        )
    _require_classes_of_classifier(networks, source, source.records[: plan.images])
    _check_forward_pass(trial_config, networks)
    _say_if_small(config, networks.classifier)
    identity = _identity(config, source, plan, environment)
    return Job(
        config=config,
        source=source,
        records=source.records[: plan.images],
        keys=sample_keys(source.records)[: plan.images],
        plan=plan,
        perturbation=ascent,
        datasets=tuple(dataset_description(product, config, source, ascent, identity) for product in products),
        requirements=requirements_of(config, ascent, environment),
        identity=identity,
    )


def dataset_description(
    product: Product, config: GenerationConfig, source: Source, perturbation: Perturbation, identity: Mapping[str, Any]
) -> DatasetDescription:
    """Return what the manifest of a product says of it.

    Args:
        product: the data set.
        config: settings of the run.
        source: where the images are read.
        perturbation: how they are perturbed.
        identity: everything that the bytes of the perturbed images depend on.
    """
    # The reconstructions do not depend on the attack.
    unneeded = set() if product.perturbed else {"attack"}
    return DatasetDescription(
        folder=product.folder,
        name=product.name,
        perturbed=product.perturbed,
        split=config.split,
        plan=Plan.of_identity(identity),
        identity={name: value for name, value in identity.items() if name not in unneeded},
        config=config.to_json(),
        source=source.address,
        rendered=perturbation.rendered,
        classes=source.classes.names,
        imagenet=source.classes.imagenet,
    )


def requirements_of(config: GenerationConfig, perturbation: Perturbation, environment: Environment) -> Requirements:
    """Return what every process that works on a run must have in common.

    The threads are counted here, where the job is made, so that every worker uses the same number.
    """
    return Requirements(
        config=config, classes=perturbation.classes, threads=config.threads_each(), environment=environment
    )


def _require_classes_of_classifier(networks: Networks, source: Source, records: Sequence[ImageRecord]) -> None:
    """Refuse images of other classes than the attacked classifier's: its loss would be taken for wrong labels."""
    if networks.classifier is None:
        raise ValueError("an ascent needs a classifier")
    require_agreeing(
        f"the classifier {networks.classifier.name}", networks.classifier.outputs, source.address, source.classes,
        "give a classifier trained on these labels (--classifier, --classifier-weights)",
    )  # fmt: skip
    real = networks.classifier.real_outputs
    unknown = {record.label for record in records}.difference(real) if real else None
    if unknown:
        raise UserError(
            f"{source.address} has images of classes that the classifier {networks.classifier.name} does not have "
            f"({len(unknown)}, such as {source.classes.names[min(unknown)]}); give images of its classes alone."
        )


def _say_if_small(config: GenerationConfig, classifier: Classifier | None) -> None:
    """Say where images are much smaller than those that the attacked classifier is meant for."""
    side = None if classifier is None or config.source is None else _usual_side(classifier)
    if side is not None and classifier is not None and config.image_size < _SMALL * side:
        say(
            f"The attacked classifier {classifier.name} is meant for images of {side} px, and these have "
            f"{config.image_size} px: its accuracy may be low on the originals already."
        )


def _usual_side(classifier: Classifier) -> int | None:
    """Return the side of the images that a classifier is meant for; None if that is not known."""
    if classifier.weights.startswith(SEED_PREFIX):
        return None
    # A file that says nothing has the view of published weights, which is right for weights of the same form only.
    whole = classifier.width == 1 and classifier.classes == IMAGENET_CLASSES and not classifier.real_outputs
    silent = classifier.weights != PUBLISHED and classifier.view == PUBLISHED_VIEW
    return None if silent and not whole else classifier.view.crop


def _check_forward_pass(config: GenerationConfig, networks: Networks) -> None:
    """Pass one grey image through all networks, because some classifiers do not take every image size."""
    grey = torch.full((1, 3, config.image_size, config.image_size), 128, dtype=torch.uint8)
    if networks.perturber is None or networks.classifier is None:
        raise ValueError("an ascent needs a classifier")
    try:
        networks.perturber(grey, torch.zeros(1, dtype=torch.long), AdvBNConfig(steps=0))
    except WorkError as error:
        raise UserError(f"With these weights {error}") from error
    except RuntimeError as error:
        if is_compilation_error(error):
            raise UserError(compilation_failure(error)) from error
        raise UserError(
            f"The classifier {networks.classifier.name} does not take images of {config.image_size} px ({error}); "
            "give another --image-size or --classifier."
        ) from error


def open_images(config: GenerationConfig) -> Source:
    """Return the source of a run: the configured one, else the drawn world."""
    if config.source is None:
        return DrawnSource(config.split, size=config.image_size)
    return open_source(config.source, labels=config.labels or None, split=config.split, order=config.order or None)


def _identity(config: GenerationConfig, source: Source, plan: Plan, environment: Environment) -> dict[str, Any]:
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
        **environment,
    }
