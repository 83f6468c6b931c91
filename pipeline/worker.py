"""A process made ready to work on a run: threads set, networks loaded, its environment compared with the run's.

Networks are loaded once a process and kept until another run needs others. The shards that follow only compare.
"""

import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from basics.allocation import give_back_freed_memory
from basics.compute import Compute, choose_compute
from basics.differences import differences
from basics.errors import UserError, WorkError
from basics.paths import as_local_path
from basics.software import versions_of
from decoders.autoencoder import AutoencoderFile, load_autoencoder
from networks.classifiers import Classifier, require_classes
from networks.heads import with_all_of_imagenet
from networks.specs import load_with_weights
from pipeline.batch_arithmetic import Perturber, Shifter
from pipeline.compiled import compiler_of
from pipeline.config import GenerationConfig
from sources.classes import imagenet_map

_SOFTWARE = ("advbn-gen", "torch", "torchvision", "pillow", "webdataset")

Environment = dict[str, Any]
"""The part of a run's identity that the computing process determines: networks, arithmetic, software."""
EnvironmentOf = Callable[[GenerationConfig], Environment]
"""Returns the environment of the process that it is called in; picklable."""


class WrongEnvironmentError(WorkError):
    """The networks, arithmetic or software of this process are not those of the run."""


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What a process needs to work on a run."""

    config: GenerationConfig
    """Settings of the run: paths of the networks, device and precision."""
    classes: int | None
    """Classes of the attacked classifier; None if no classifier is needed."""
    threads: int
    """Computing threads of the process."""
    environment: Environment
    """The environment that the run's bytes depend on."""


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The networks of a run on this process's device."""

    autoencoder: AutoencoderFile
    classifier: Classifier | None
    """The attacked classifier; None if none is needed."""
    shifter: Shifter
    """The autoencoder, ready to compute."""
    perturber: Perturber | None
    """The autoencoder and the classifier, ready to compute."""
    environment: Environment
    """The environment of this process with these networks."""


def ready_worker(requirements: Requirements) -> Networks:
    """Make this process ready for a run, and return the networks to work with.

    Raises:
        WrongEnvironmentError: this process would make other bytes, or cannot load the networks.
    """
    config, classes = requirements.config, requirements.classes
    # Set for every shard, because other code in this process may have changed them since the last one.
    use_threads(requirements.threads)
    try:
        changed = differences(requirements.environment, load_networks(config, classes).environment)
        if changed:
            # The networks may have been trained again under the same names since this process loaded them.
            changed = differences(requirements.environment, own_environment(config, classes))
        if changed:
            raise WrongEnvironmentError("; ".join(changed))
        return load_networks(config, classes)
    except UserError as error:
        raise WrongEnvironmentError(str(error)) from error


def own_environment(config: GenerationConfig, classes: int | None) -> Environment:
    """Return the environment of this process for a run, with the networks loaded from their files as they are now.

    Args:
        config: settings of the run.
        classes: classes of the attacked classifier; None if no classifier is needed.

    Raises:
        UserError: the networks cannot be loaded.
    """
    load_networks.cache_clear()
    return load_networks(config, classes).environment


@lru_cache(maxsize=1)
def load_networks(config: GenerationConfig, classes: int | None) -> Networks:
    """Load and check the networks of a run; the last ones are kept.

    Args:
        config: settings of the run.
        classes: classes of the attacked classifier; None if no classifier is needed.

    Raises:
        UserError: a file is missing or of another kind, or the networks do not fit each other or the images.
    """
    if config.autoencoder is None:
        advice = (
            "name the one that the ledger was made with, with --autoencoder."
            if classes is None
            else "make one with `advbn-gen train-autoencoder` or `advbn-gen import-autoencoder` and name it with "
            "--autoencoder."
        )
        raise UserError(f"No autoencoder was given; {advice}")
    compute = choose_compute(config.device, config.precision)
    # Without an ascent, another encoder is found when the environment is compared with the ledger's.
    path = as_local_path(config.autoencoder, "The autoencoder")
    autoencoder = load_autoencoder(path, config.encoder if classes is not None else None)
    micro_batch = config.micro_batch_on(compute.device.type)
    shifter = Shifter(
        autoencoder.module, compute, micro_batch,
        compiled_size=(micro_batch or config.batch_size) if config.compiled else None, revision=config.revision,
    )  # fmt: skip
    classifier = None if classes is None else _load_classifier(config, classes)
    give_back_freed_memory()
    return Networks(
        autoencoder=autoencoder,
        classifier=classifier,
        shifter=shifter,
        perturber=None if classifier is None else Perturber(shifter, classifier.module),
        environment={**_identity_of(autoencoder, classifier), **_arithmetic_and_software(config, compute)},
    )


def _load_classifier(config: GenerationConfig, classes: int) -> Classifier:
    name, weights = config.classifier, str(config.classifier_weights)
    if name is None and not weights.endswith(".safetensors"):
        name = config.kind.classifier
    if classes != imagenet_map().count:
        return load_with_weights(name, weights, classes)
    classifier = with_all_of_imagenet(load_with_weights(name, weights, None))
    require_classes(classifier.name, classifier.classes, classes)
    return classifier


def _identity_of(autoencoder: AutoencoderFile, classifier: Classifier | None) -> dict[str, Any]:
    """Return the metadata that distinguishes the networks from others; the classifier's path is no part of it."""
    identity = {"autoencoder": autoencoder.summary()}
    if classifier:
        identity["classifier"] = {name: value for name, value in classifier.summary().items() if name != "weights"}
    return identity


def _arithmetic_and_software(config: GenerationConfig, compute: Compute) -> dict[str, Any]:
    micro_batch = config.micro_batch_on(compute.device.type)
    return {
        "arithmetic": {
            "precision": compute.precision,
            "hardware": compute.kind,
            "machine": platform.machine(),
            # On a GPU the CPU's threads only decode and encode, which never changes a byte.
            "threads": config.threads_each() if compute.device.type == "cpu" else None,
            # Earlier versions had one revision, passed a batch as a whole and compiled nothing.
            **({} if config.revision == 1 else {"revision": config.revision}),
            **({} if micro_batch is None else {"micro_batch": micro_batch}),
            **({"compiled": compiler_of(compute.device)} if config.compiled else {}),
        },
        "software": _software(),
    }


@lru_cache(maxsize=1)
def _software() -> dict[str, str]:
    return versions_of(_SOFTWARE)


def use_threads(threads: int) -> None:
    """Set the number of threads that torch computes with in this process."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
