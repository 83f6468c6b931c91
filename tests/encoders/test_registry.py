"""The registry: another encoder needs one more file only."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from basics.errors import UserError
from encoders import ENCODERS, EncoderKind, encoder_kind, register
from encoders.names import ENTRY_POINTS
from tests.packages import install
from tests.processes import environment

Installer = Callable[[str, str], None]
"""The encoder that a package's entry point names, and the code of its module."""

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
    with pytest.raises(UserError, match="There is an encoder vgg already; give this one another name"):
        register(encoder_kind("vgg"))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installer]:
    """Installs a package with an encoder, until the end of the test."""
    monkeypatch.syspath_prepend(tmp_path)
    name, before = "package_of_third", dict(ENCODERS)
    yield lambda encoder, code: install(tmp_path, name, {ENTRY_POINTS: {encoder: name}}, {name: code})
    ENCODERS.clear()
    ENCODERS.update(before)
    sys.modules.pop(name, None)


def test_an_installed_packages_encoder_is_known_by_its_name(installed: Installer) -> None:
    installed("third", THIRD)
    with pytest.raises(UserError, match="'fourth'; give one of resnet, third, vgg"):
        encoder_kind("fourth")
    assert "third" not in ENCODERS, "it is imported when it is wanted"
    kind = encoder_kind("third")
    assert (kind.name, kind.channels, kind.reduction) == ("third", 8, 2)
    assert encoder_kind("third") is kind


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("1 / 0", "package_of_third raises ZeroDivisionError .division by zero.; mend the package"),
        (THIRD.replace('"third"', '"vgg"'), "raises UserError .There is an encoder vgg already"),
        (THIRD.replace('"third"', '"other"'), "package_of_third has the encoder third, which it does not register"),
    ],
)
def test_an_installed_package_that_is_broken_is_named(installed: Installer, code: str, reason: str) -> None:
    installed("third", code)
    with pytest.raises(UserError, match=reason):
        encoder_kind("third")


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
