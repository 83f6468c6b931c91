"""What several tests need: small networks with weights from a seed, a few images, the command line in this process."""

import copy
import io
import json
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, cast
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import cli
from decoders.autoencoder import Autoencoder, save_autoencoder
from encoders import encoder_kind
from networks.checkpoints import StateDict
from networks.classifiers import build_network, save_classifier
from sources.base import numbered_classes

Network = TypeVar("Network", bound=nn.Module)

WIDTH = 1 / 16
WNIDS = ("n01440764", "n02102040", "n03000684")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Fresh weights from a seed, the global generator put back after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def he_initialised(network: nn.Module) -> nn.Module:
    """Weights under which signals and gradients keep their size: torch's default lets them die out."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.normal_(layer.bias, std=0.05)
    return network


def with_lived_in_batch_norm(network: Network) -> Network:
    """Batch norm as after training: fresh statistics of 0 and 1 would hide a mistake in using them."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            nn.init.uniform_(layer.running_mean, -0.1, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.uniform_(layer.bias, -0.1, 0.1)
    return network


def tiny_autoencoder(path: Path, encoder: str = "vgg", seed: int = 0) -> Path:
    """An autoencoder file with narrow, untrained networks."""
    with seeded(seed):
        module = Autoencoder(encoder_kind(encoder), WIDTH)
        he_initialised(module)
    save_autoencoder(path, module, "torchvision", {"made_by": "a test"})
    return path


def tiny_classifier(
    path: Path, classes: int, name: str = "resnet18", seed: int = 1, answers: Sequence[int] = (), **metadata: object
) -> Path:
    """A classifier file with a narrow, untrained network.

    Args:
        path: the file.
        classes: how many it has.
        name: torchvision network.
        seed: of its weights.
        answers: the only classes that it predicts; empty does not restrict them.
        metadata: more of what the file says, such as `image_size`.
    """
    network = _narrow_network(name, classes, seed)
    if answers:
        network = copy.deepcopy(network)
        layer = cast("nn.Linear", network.fc)
        with torch.no_grad():
            layer.weight[list(answers)] *= 30
            layer.bias[list(answers)] += 5
    save_classifier(path, name, network, numbered_classes(classes), WIDTH, **metadata)
    return path


@cache
def _narrow_network(name: str, classes: int, seed: int) -> nn.Module:
    # Takes up to two seconds: the network of full width is built, with its weights, before it is made narrow.
    with seeded(seed):
        return build_network(name, classes, WIDTH)


def image_folder(
    root: Path, *, per_class: int = 5, classes: tuple[str, ...] = WNIDS, side: int = 40, seed: int = 0
) -> Path:
    """Class folders with JPEGs of soft random colours; every image differs."""
    dice = np.random.default_rng(seed)
    for name in classes:
        (root / name).mkdir(parents=True)
        for index in range(per_class):
            coarse = dice.integers(0, 256, (5, 6, 3), dtype=np.uint8)
            image = Image.fromarray(coarse).resize((side + 2 * index, side), Image.Resampling.BICUBIC)
            image.save(root / name / f"{name}_{index}.JPEG", quality=90)
    return root


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> Any:
        """What --json printed."""
        return json.loads(self.out)


def advbn_gen(*words: object) -> Outcome:
    """Run the command line in this process, up to its exit code."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["advbn-gen", *map(str, words)]
    with mock.patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())


def refused(*words: object) -> str:
    """Run a command that must be refused: exit code 2, one plain sentence, no traceback. Return the sentence."""
    outcome = advbn_gen(*words)
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    said = [line for line in outcome.err.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1, outcome.err
    return said[0].removeprefix("Error: ")


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of a data set but the log, which keeps times."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "log.jsonl")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def published_vgg(seed: int = 0) -> StateDict:
    """A state dict with the names and shapes of `vgg_normalised.pth`, 53 modules, random weights."""
    channels = (3, 64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512, 512)
    indices = (2, 5, 9, 12, 16, 19, 22, 25, 29, 32, 35, 38, 42, 45, 48, 51)
    dice = torch.Generator().manual_seed(seed)
    state = {"0.weight": torch.eye(3).view(3, 3, 1, 1) * 2, "0.bias": torch.tensor([-1.0, -0.9, -0.8])}
    for index, channels_in, channels_out in zip(indices, channels, channels[1:], strict=False):
        state |= _he_convolution(index, channels_in, channels_out, dice)
    return state


def published_decoder(seed: int = 1) -> StateDict:
    """A state dict with the names and shapes of `decoder.pth`, random weights."""
    channels = (512, 256, 256, 256, 256, 128, 128, 64, 64, 3)
    dice = torch.Generator().manual_seed(seed)
    state: StateDict = {}
    for index, pair in zip((1, 5, 8, 11, 14, 18, 21, 25, 28), pairwise(channels), strict=True):
        state |= _he_convolution(index, *pair, dice)
    # The last layer gives pixels: around grey, with a spread that mostly stays within [0, 1].
    state["28.weight"] *= 0.1
    state["28.bias"] = torch.full((3,), 0.5)
    return state


def _he_convolution(index: int, channels_in: int, channels_out: int, dice: torch.Generator) -> StateDict:
    spread = (2 / (9 * channels_in)) ** 0.5
    weight = torch.randn(channels_out, channels_in, 3, 3, generator=dice) * spread
    return {f"{index}.weight": weight, f"{index}.bias": torch.randn(channels_out, generator=dice) * 0.05}


def close(found: Tensor, expected: Tensor, *, relative: float = 1e-5) -> bool:
    """The one tolerance of numerical tests: largest difference, relative to the largest expected value."""
    return bool((found - expected).abs().max() <= relative * expected.abs().max())


def dice_of(seed: int = 0) -> random.Random:
    """A generator of random moments and places."""
    return random.Random(seed)
