"""The AdvBN authors' ResNet checkpoints, as the plain torchvision state dicts that they hold.

There a network is `feature_x` (the stem as 0 and 1, `layer1` as 4, ...) and `head` (`layer2_0`, ..., `fc`), and every
batch norm in a block is a pair, `clean_bn` and `adv_bn`.
"""

import re

from networks.checkpoints import StateDict

CLEAN, ADVERSARIAL = "clean_bn", "adv_bn"

_STEM = {"feature_x.0.": "conv1.", "feature_x.1.": "bn1."}
_FRONT_BLOCK = re.compile(r"feature_x\.(\d+)\.(\d+)\.")
_HEAD_BLOCK = re.compile(r"head\.layer(\d+)_(\d+)\.")
_LAYERS_BEFORE = 3
"""Layers of `feature_x`: convolution, batch norm, ReLU; the pooling is number 3, layer1 number 4."""


def is_published_advbn(state: StateDict) -> bool:
    """Whether a state dict has the authors' layout."""
    return any(name.startswith("feature_x.") for name in state) and any(name.startswith("head.") for name in state)


def plain_state(state: StateDict, norm: str) -> StateDict:
    """Return the torchvision state dict of the network with one set of batch norm.

    Args:
        state: the authors' state dict, without `module.` prefixes.
        norm: CLEAN or ADVERSARIAL. The front has been frozen on clean features, so its norms are the clean ones in
            both cases (published code: features pass through `clean_bn` there).
    """
    plain: StateDict = {}
    for name, value in state.items():
        chosen = CLEAN if name.startswith("feature_x.") else norm
        if any(kind in name for kind in (CLEAN, ADVERSARIAL)) and chosen not in name:
            continue
        # The authors' converter from older weights has put a boolean where the counter belongs.
        counted = name.endswith("num_batches_tracked")
        plain[_plain_name(name.replace(chosen, "bn"))] = value.long().reshape(()) if counted else value
    return plain


def _plain_name(name: str) -> str:
    for theirs, ours in _STEM.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    name = _FRONT_BLOCK.sub(lambda found: f"layer{int(found[1]) - _LAYERS_BEFORE}.{found[2]}.", name)
    name = _HEAD_BLOCK.sub(r"layer\1.\2.", name)
    return (
        name.replace("downsample.conv.", "downsample.0.")
        .replace("downsample.bn.", "downsample.1.")
        .removeprefix("head.")
    )
