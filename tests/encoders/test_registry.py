"""The registry: another encoder needs one more file only."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from basics.errors import UserError
from encoders import ENCODERS, EncoderKind, encoder_kind, register
from tests.processes import environment

THIRD = """
from torch import nn
from encoders.registry import EncoderKind, register
from networks.cuts import UNLIMITED

def build(width=1.0):
    return nn.Conv2d(3, round(8 * width), 2, stride=2)

register(EncoderKind(name="third", channels=8, reduction=2, limits=UNLIMITED, classifier="resnet18", build=build,
                     convert=lambda state: (state, "own")))
"""


@pytest.mark.slow
def test_one_more_file_is_one_more_encoder(tmp_path: Path) -> None:
    """In a copy of the package with that file in it."""
    root = Path(__file__).parents[2]
    shutil.copytree(root / "encoders", tmp_path / "encoders")
    (tmp_path / "encoders/third.py").write_text(THIRD)
    code = (
        "import torch\n"
        "from encoders import ENCODERS, encoder_kind\n"
        "from decoders.autoencoder import Autoencoder\n"
        "assert sorted(ENCODERS) == ['resnet', 'third', 'vgg'], sorted(ENCODERS)\n"
        "module = Autoencoder(encoder_kind('third'), 0.5)\n"
        "print(tuple(module(torch.zeros(1, 3, 8, 8)).shape))\n"
    )
    more = environment(PYTHONPATH=f"{tmp_path}:{root}")
    done = subprocess.run(
        [sys.executable, "-c", code], env=more, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(1, 3, 8, 8)"


def test_an_unknown_encoder_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="'third'; give one of resnet, vgg"):
        encoder_kind("third")


def test_two_encoders_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two encoders"):
        register(encoder_kind("vgg"))


@pytest.mark.parametrize(("name", "size"), [("vgg", 16), ("vgg", 256), ("resnet", 8), ("resnet", 12)])
def test_sizes_that_fit(name: str, size: int) -> None:
    encoder_kind(name).require_size(size)


@pytest.mark.parametrize(
    ("name", "size"), [("vgg", 8), ("vgg", 20), ("vgg", 0), ("vgg", -8), ("resnet", 4), ("resnet", 18)]
)
def test_sizes_that_do_not(name: str, size: int) -> None:
    with pytest.raises(UserError, match=f"image size is {size}.*multiple of"):
        encoder_kind(name).require_size(size)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize("width", [1 / 16, 1 / 8])
def test_each_description_fits_its_network(kind: EncoderKind, width: float) -> None:
    network = kind.build(width).eval()
    with torch.no_grad():
        feat = network(torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)))
    assert feat.shape == (2, kind.feature_channels(width), 32 // kind.reduction, 48 // kind.reduction)
    assert feat.shape[1] == kind.channels * width
    assert bool((feat >= kind.limits[0]).all())
    assert kind.width_of(network.state_dict()) == width
