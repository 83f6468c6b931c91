"""A trained network of these experiments as a folder on disk."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from abnn.plan import NetworkPlan, plan_from, rebuild
from basics.errors import UserError
from basics.files import digest_json
from basics.reading import unreadable
from networks.checkpoints import (
    known_by,
    load_into,
    own_metadata,
    read_metadata,
    read_weights,
    weights_checksum,
    write_safetensors,
)
from networks.weight_files import MODEL_FILE
from sources.base import ClassMap

COST_FILE = "cost.json"
FORMAT = "advbn-gen abnn network"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A trained network, frozen and in evaluation mode."""

    name: str
    """Name of its folder, which tables use."""
    folder: Path
    """Its run folder."""
    task: str
    """Name of the benchmark it was trained for."""
    defence: str
    """One of `abnn.task.DEFENCES`."""
    plan: NetworkPlan
    """Architecture of the network."""
    classes: tuple[str, ...]
    """Names of the classes, in the order of its outputs."""
    resized: bool
    """Whether it was trained on images of other sizes, resized to its own; clips always are."""
    seed: int
    """Seed of its training."""
    recipe: str
    """Description of its training; the same for two runs that differ in their seed only."""
    records: str | None
    """Checksum of its training samples (`sources.base.Source.digest`); None where an early version left it out."""
    module: nn.Module
    """Images (N, 3, H, W), or clips (N, 3, T, H, W), in [0, 1] -> logits (N, K)."""
    checksum: str
    """SHA-256 over the weights."""

    @property
    def class_map(self) -> ClassMap:
        """Which class each output is."""
        return ClassMap(names=self.classes, imagenet=False)


def save_checkpoint(folder: Path, module: nn.Module, plan: NetworkPlan, metadata: Mapping[str, Any]) -> None:
    """Write a network's weights, the substitute's among them, with the metadata needed to build it again."""
    write_safetensors(folder / MODEL_FILE, module.state_dict(), {"format": FORMAT, "plan": plan.as_json(), **metadata})


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read the run folder of `abnn train`.

    Raises:
        UserError: it holds no such network, or a damaged one.
    """
    path = folder / MODEL_FILE
    if not path.is_file():
        raise UserError(f"The folder {folder} has no {MODEL_FILE}; give a run folder of `advbn-gen abnn train`.")
    metadata = own_metadata(read_metadata(path), FORMAT)
    try:
        plan = plan_from(metadata["plan"])
        training = {name: _of_kind(metadata[name], kind) for name, kind in _KINDS.items()}
        samples = f"{metadata['images']} {'images' if plan.frames is None else 'clips'}"
        length = f"{metadata['epochs_done']} epochs of {samples}"
        recipe = f"{length}{_substitute_part(plan)}, settings {_settings(metadata)}"
        classes = tuple(metadata["classes"])
        module = rebuild(plan)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"The file {path} holds no network of `advbn-gen abnn train`; check the path.") from error
    load_into(module, read_weights(path, known_by(module)), f"the network that {path} describes")
    return Checkpoint(
        name=folder.resolve().name,
        folder=folder,
        plan=plan,
        classes=classes,
        module=module.eval().requires_grad_(False),
        checksum=weights_checksum(module.state_dict()),
        recipe=recipe,
        records=metadata.get("records_sha256"),
        **training,
    )


_KINDS = {"task": str, "defence": str, "resized": bool, "seed": int}
_NO_RECIPE = {"seed", "device", "devices", "loaders", "checkpoint_every", "epochs"}
"""Settings of a training that are not part of its recipe; the number of epochs stands in the description itself."""


def _of_kind(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def _settings(metadata: Mapping[str, Any]) -> str:
    """Return the beginning of a checksum over all that a training was set to but its seed."""
    training = {name: value for name, value in metadata["training"].items() if name not in _NO_RECIPE}
    parts = [training, metadata.get("attack"), metadata["plan"], metadata.get("records_sha256")]
    return digest_json([*parts, *([metadata["init"]] if "init" in metadata else [])])[:8]


def cost_identity(defence: str, plan: NetworkPlan, attack: Mapping[str, Any] | None, *, grouped: bool = False) -> str:
    """Return a checksum over what a training step's cost depends on.

    Args:
        defence: one of `abnn.task.DEFENCES`.
        plan: what the network is made of.
        attack: settings of the attack of adversarial training.
        grouped: whether the network has convolutions in groups, whose cost earlier versions stated too high.
    """
    return digest_json([defence, plan.as_json(), attack, *(["groups counted once"] if grouped else [])])


def _substitute_part(plan: NetworkPlan) -> str:
    """Return the part of a recipe that describes the substitute; empty if there is none."""
    if plan.substitute is None:
        return ""
    substitute = f"{plan.substitute.arch} (width {plan.substitute.width:g})"
    return f", beside a {substitute}, statistics {plan.layer.statistics}, encoder {plan.layer.encoder}"


def read_cost(folder: Path) -> dict[str, Any] | None:
    """Return what a run's training step cost (see `abnn.cost.Cost`); None if it was not measured.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / COST_FILE
    try:
        cost: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {**cost, "passes": float(cost["passes"]), "of": str(cost["of"])}
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"The file {path} is damaged; remove it and run `abnn train` again, which measures.") from error
