"""The files that a fine-tuning writes: plain torchvision state dicts, each with one of the two sets of batch norm."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from basics.errors import UserError
from basics.files import require_writable_folder
from downstream.advbn import AdvBNNetwork
from downstream.auxiliary import AUXILIARY, MAIN, state_with
from networks.checkpoints import StateDict, load_into, read_metadata, read_weights
from networks.classifiers import (
    IMAGENET_CLASSES,
    Classifier,
    build_network,
    classifier_metadata,
    published_classes,
    save_classifier,
    save_classifier_state,
)
from networks.cuts import Cut
from networks.published_advbn import ADVERSARIAL, CLEAN, is_published_advbn, plain_state
from networks.uninitialised import Uninitialised
from networks.weight_files import AUXILIARY_FILE, MAIN_FILE
from sources.base import numbered_classes
from sources.decode import View

FILES = {MAIN: MAIN_FILE, AUXILIARY: AUXILIARY_FILE}
"""Batch-norm set -> the file with it, a plain torchvision state dict."""
BEST = "best"
"""Sub-folder with the files of the epoch with the best held-out top-1 through main batch norm."""


class Exports:
    """Writes a run folder's weights: those of the last epoch, and those of the best one so far."""

    def __init__(self, out: Path, start: Classifier, cut: Cut, view: View) -> None:
        self.out, self.start, self.cut, self.view = out, start, cut, view

    @property
    def outputs(self) -> list[Path]:
        """All files and folders that are written; the first is a file with the last weights."""
        return [*(self.out / name for name in FILES.values()), self.out / BEST]

    def write(self, network: AdvBNNetwork, run: Mapping[str, Any], score: str) -> None:
        """Write the weights of an epoch; also as the best ones, unless these have a higher score.

        Args:
            network: the network after the epoch.
            run: metadata of the run, with its scores after the epoch.
            score: name of the score in it that counts.
        """
        states = {which: self._plain_state(network, which) for which in FILES}
        best = self.out / BEST
        # Of equals the latest: an epoch that is repeated after an interruption replaces files that were half written.
        if run[score] >= _score_of(best / FILES[MAIN], score):
            best.mkdir(exist_ok=True)
            self._write(best, states, run)
        self._write(self.out, states, run)

    def _write(self, folder: Path, states: Mapping[str, StateDict], run: Mapping[str, Any]) -> None:
        start = self.start
        for which, name in FILES.items():
            given = {} if start.given_colours is None else start.given_colours.as_json()
            metadata = {"view": asdict(self.view), **given, "batch_norm": which, "facts": run}
            save_classifier_state(folder / name, start.name, states[which], start.outputs, start.width, **metadata)

    def _plain_state(self, trained: AdvBNNetwork, which: str) -> StateDict:
        """Return the state of the network as it was before it was cut, trained, with one set of batch norm."""
        network: nn.Module = self.start.module[1]  # type: ignore[index]
        # Layers that no image passes through, such as auxiliary heads, keep the weights that they came with.
        names = network.state_dict().keys()
        trained_state = {**trained.front.state_dict(), **state_with(trained.head, which)}
        state: StateDict = {**network.state_dict(), **trained_state}
        if self.cut.left_out is not None:
            state |= _identity(network.get_submodule(self.cut.left_out), self.cut.left_out)
        assert state.keys() == names, sorted(state.keys() ^ names)  # noqa: S101 (a cut loses and adds nothing)
        return state


def _score_of(path: Path, name: str) -> float:
    return float(classifier_metadata(read_metadata(path))["facts"][name]) if path.is_file() else 0.0


def _identity(norm: nn.Module, name: str) -> StateDict:
    """Return the state of a batch norm that changes nothing, which plain networks need where one was left out."""
    assert isinstance(norm, _BatchNorm)  # noqa: S101 (for the type checker)
    ones = torch.ones(norm.num_features)
    state = {
        "weight": (ones + norm.eps).sqrt(),
        "bias": torch.zeros_like(ones),
        "running_mean": torch.zeros_like(ones),
        "running_var": ones,
        "num_batches_tracked": torch.tensor(0),
    }
    return {f"{name}.{key}": value for key, value in state.items()}


def import_published(weights: Path, arch: str, out: Path) -> dict[str, Path]:
    """Write the AdvBN authors' checkpoint as a run folder of ours; return the file of each batch-norm set.

    Args:
        weights: their file.
        arch: torchvision name of the ResNet in it.
        out: a new or empty folder.

    Raises:
        UserError: the file has another layout or another network, or the folder holds something.
    """
    if out.exists() and not (out.is_dir() and next(out.iterdir(), None) is None):
        raise UserError(f"The output {out} is no empty folder; give a new one with --out.")
    state = read_weights(weights, is_published_advbn)
    if not is_published_advbn(state):
        raise UserError(
            f"The file {weights} has not the layout of the AdvBN authors' checkpoints (feature_x..., head...); "
            "plain state dicts need no import."
        )
    networks = {}
    for which, norm in ((MAIN, CLEAN), (AUXILIARY, ADVERSARIAL)):
        plain = plain_state(state, norm)
        count = plain["fc.weight"].shape[0] if "fc.weight" in plain else IMAGENET_CLASSES
        with Uninitialised():
            networks[which] = build_network(arch, count)
        load_into(networks[which], plain, f"the classifier {arch}")
    classes = published_classes(count) or numbered_classes(count)
    require_writable_folder(out)
    for which, network in networks.items():
        metadata = {"batch_norm": which, "facts": {"imported": weights.name}}
        save_classifier(out / FILES[which], arch, network, classes, 1.0, **metadata)
    return {which: out / name for which, name in FILES.items()}
