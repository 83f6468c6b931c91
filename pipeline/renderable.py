"""Reading a ledger to render it: its parts are compared with each other, since it may come from anywhere."""

from collections.abc import Mapping
from typing import Any

from attacks.statistics import AdvBNConfig
from basics.errors import UserError
from basics.files import digest_json, is_plain_name
from basics.paths import AnyPath
from encoders import encoder_kind
from pipeline.config import GenerationConfig, recorded_computation
from pipeline.dataset.ledger import RENDERABLE, SAMPLES, Ledger, damaged_ledger, read_ledger
from pipeline.dataset.plan import Plan
from sources.base import ImageRecord

_NO_CLASSIFIER = "none: rendered from a ledger"
_ATTRIBUTES = ("name", "fingerprint", "identity", "classes")


def read_renderable(path: AnyPath) -> Ledger:
    """Read a ledger that holds everything needed to make its data set again.

    Raises:
        UserError: it is missing, damaged, not a ledger, of another version, of a single shard, or of a scaled data set.
    """
    ledger = read_ledger(path)
    if ledger.version < RENDERABLE:
        raise UserError(
            f"The ledger {path} has the format version {ledger.version}, which cannot be rendered because it lacks the "
            "losses of the single samples; make the data set again with `advbn-gen imagenet-advbn`."
        )
    if any(name not in ledger.attributes for name in _ATTRIBUTES):
        raise UserError(f"The ledger {path} is that of one shard only; give the perturbations.h5 of the data set.")
    identity = ledger.attributes["identity"]
    if digest_json(identity) != ledger.attributes["fingerprint"]:
        raise damaged_ledger(path, "its fingerprint is not that of its identity")
    if "scale" in identity:
        raise UserError(
            f"The ledger {path} was itself rendered at the scale {identity['scale']}; give the original run's ledger."
        )
    try:
        _require_names(ledger)
        _require_shapes(ledger)
    except KeyError as error:
        raise damaged_ledger(path, f"it lacks {error}") from error
    except (UserError, ValueError, TypeError, AttributeError) as error:
        raise damaged_ledger(path, str(error).rstrip(".")) from error
    return ledger


def _require_names(ledger: Ledger) -> None:
    """Refuse names that would lead out of the folder or the shards, or that two samples share."""
    keys = ledger.keys
    for name in (ledger.attributes["name"], *keys):
        if not is_plain_name(name):
            raise ValueError(f"the name {name!r} is not a plain one")
    if len(set(keys)) < len(keys):
        raise ValueError("two of its samples have the same key")
    names = ledger.attributes["classes"]["names"]
    if len(names) != ledger.attributes["identity"]["images"]["classes"]:
        raise ValueError("its classes are more or fewer than in its identity")


def _require_shapes(ledger: Ledger) -> None:
    """Refuse columns that do not have the shapes of the run in the identity."""
    config, plan, width = config_of(ledger), plan_of(ledger), ledger.attributes["identity"]["autoencoder"]["width"]
    expected = {
        "samples/label": (plan.images,),
        "delta_mean": (plan.batches, encoder_kind(config.encoder).feature_channels(width)),
        "loss": (plan.batches, config.attack.steps + 1),
    }
    for name, shape in expected.items():
        if ledger.columns[name].shape != shape:
            raise ValueError(f"{name} has the shape {ledger.columns[name].shape}, not {shape}")
    sizes = [len(images) for shard in range(plan.shards) for _, images in plan.batches_of(shard)]
    if sizes != ledger.columns["batch_size"].tolist():
        raise ValueError("batch_size is not how the identity cuts the images into batches")


def plan_of(ledger: Ledger) -> Plan:
    """Return the plan of a ledger's run."""
    return Plan.of_identity(ledger.attributes["identity"])


def records_of(ledger: Ledger) -> list[ImageRecord]:
    """Return the records of a ledger's run in order."""
    names, labels = (ledger.columns[f"{SAMPLES}/{name}"] for name in ("source", "label"))
    return [ImageRecord(name.decode(), int(label)) for name, label in zip(names, labels, strict=True)]


def config_of(ledger: Ledger) -> GenerationConfig:
    """Return the settings of a ledger's run, without addresses; of the device, only the kind is recorded."""
    identity: Mapping[str, Any] = ledger.attributes["identity"]
    arithmetic = identity["arithmetic"]
    return GenerationConfig(
        encoder=identity["autoencoder"]["encoder"],
        source=None,
        autoencoder=None,
        classifier=identity["classifier"]["name"],
        classifier_weights=_NO_CLASSIFIER,
        attack=AdvBNConfig(**identity["attack"]),
        image_size=identity["images"]["image_size"],
        limit=identity["images"]["count"],
        split=identity["images"]["split"],
        **identity["batches"],
        device="cpu" if arithmetic["hardware"] == "cpu" else "auto",
        precision=arithmetic["precision"],
        threads=arithmetic["threads"],
        **recorded_computation(arithmetic),
    )
