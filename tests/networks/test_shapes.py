"""Passes without values: shapes are those of a real pass, and nothing changes."""

import pytest
import torch
from torch import nn

from basics.errors import UserError
from networks.shapes import pass_shapes, require_batch_norm


def test_hooks_see_shapes_and_nothing_changes() -> None:
    network = nn.Sequential(nn.Conv3d(3, 4, 3, stride=2), nn.BatchNorm3d(4)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    seen: list[torch.Tensor] = []
    network[0].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    pass_shapes(network, (2, 3, 5, 9, 7))
    assert [tuple(value.shape) for value in seen] == [(2, 4, 2, 4, 3)]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_one_clip_is_enough_where_its_features_have_several_positions() -> None:
    network = nn.Sequential(nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4))
    require_batch_norm(network, 1, (3, 4, 4))
    require_batch_norm(network, 2, (3, 3, 3))
    with pytest.raises(UserError, match="cannot learn from 1 clip of 3 frames of 3 px: it needs two values"):
        require_batch_norm(network, 1, (3, 3, 3))
    with pytest.raises(UserError, match=r"cannot be shown 2 clips of 2 frames of 3 px .*; give another --image-size"):
        require_batch_norm(network, 2, (2, 3, 3))
