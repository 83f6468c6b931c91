"""Any network's front as an encoder."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from basics.errors import UserError
from decoders.adain import build_decoder
from decoders.autoencoder import load_autoencoder
from encoders import encoder_kind, file_name_of, split_encoder
from encoders.fronts import front_kind
from networks.cuts import RECTIFIED, UNLIMITED, Limits
from networks.specs import load_with_weights
from tests.support import advbn_gen, close, folder_bytes, image_folder, refused, seeded, tiny_classifier

FRONT = "timm:test_resnet=seed:0@layer2"
NAME = "timm:test_resnet@layer2"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "module", "reduction", "limits"),
    [
        ("resnet18", "layer1", 4, RECTIFIED),
        ("mobilenet_v2", "features.0", 2, (0.0, 6.0)),
        ("mobilenet_v2", "features.3", 4, UNLIMITED),
        ("shufflenet_v2_x0_5", "stage2", 8, UNLIMITED),
        ("timm:test_resnet", "layer3", 16, RECTIFIED),
        ("timm:tf_efficientnet_lite0", "blocks.1", 4, UNLIMITED),
        ("timm:tf_efficientnet_lite0", "bn1", 2, (0.0, 6.0)),
        ("timm:test_convnext", "stages.1", 8, UNLIMITED),
    ],
)
def test_features_are_those_inside_of_the_network(network: str, module: str, reduction: int, limits: Limits) -> None:
    whole = load_with_weights(network, "seed:1", None)
    caught: list[Tensor] = []
    inside = whole.module[1].get_submodule(module)  # type: ignore[index]
    inside.register_forward_hook(lambda _module, _inputs, feat: caught.append(feat))
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    kind = front_kind(f"{network}@{module}")
    encoder = kind.build(1.0).eval()
    encoder.load_state_dict(kind.convert(whole.module[1].state_dict())[0])  # type: ignore[index]
    with torch.no_grad():
        whole.module(image)
        feat = encoder(image)
    assert close(feat, caught[0])
    assert (kind.channels, kind.reduction, kind.limits) == (feat.shape[1], reduction, limits)
    assert kind.feature_channels(0.25) == kind.channels
    if limits != UNLIMITED:
        assert limits[0] <= float(feat.min()) <= float(feat.max()) <= limits[1]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet18@layer9", "has no module 'layer9' to cut at; give one of conv1"),
        ("resnet18@fc", "Nothing is left of the network behind the module 'fc'"),
        ("timm:test_vit@blocks.1", "VisionTransformer decides by its input what to do, so it cannot be cut"),
        ("resnet18@avgpool", "a whole part of the image's side"),
        ("resnet99@layer1", "There is no classifier 'resnet99'"),
        ("timm:swin_tiny_patch4_window7_224@layers.0", "does not take images of 64 and of 96 px"),
        ("timm:nothing@layer1", "There is no timm model 'nothing'"),
        ("r3d_18@layer1", "takes clips, not images"),
        ("@layer1", "lacks its network or its module"),
        ("resnet18@", "lacks its network or its module"),
    ],
)
def test_what_cannot_serve_is_refused_in_one_sentence(tmp_path: Path, spec: str, message: str) -> None:
    out = tmp_path / "out"
    assert message in refused("train-autoencoder", "--encoder", spec, "--source", tmp_path, "--out", out)
    assert not out.exists()


class Forked(nn.Module):
    """Gives two feature maps, both of which are used."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, stride=3, padding=1), nn.Conv2d(3, 4, 3, stride=3, padding=1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.left(image), self.right(image)


class Odd(nn.Module):
    """Has a module with two outputs, and one with a third of the image's side."""

    def __init__(self) -> None:
        super().__init__()
        self.forked, self.third, self.last = Forked(), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        left, right = self.forked(image)
        logits: Tensor = self.last(self.third(left + right)).mean((2, 3))
        return logits


@pytest.mark.parametrize(
    ("module", "message"),
    [("forked", "The module 'forked' has more than one output"), ("forked.left", "Something flows around the module"),
     ("third", "a whole part of the image's side")],
)  # fmt: skip
def test_odd_modules_are_refused(monkeypatch: pytest.MonkeyPatch, module: str, message: str) -> None:
    monkeypatch.setattr("encoders.fronts.blank_model", lambda _name: nn.Sequential(nn.Identity(), Odd()))
    with pytest.raises(UserError, match=message):
        front_kind(f"odd{module}@{module}")


def test_a_reduction_without_a_decoder_is_refused() -> None:
    with pytest.raises(UserError, match=r"The decoder has no stage for encoder '.*layer4': its reduction is not in"):
        build_decoder(encoder_kind("timm:test_resnet@layer4"))


def test_a_decoder_for_sixteen_pixels_a_position() -> None:
    decoder = build_decoder(encoder_kind("timm:test_resnet@layer3"), 1 / 32)
    assert decoder(torch.rand(1, encoder_kind("timm:test_resnet@layer3").channels, 3, 2)).shape == (1, 3, 48, 32)


def test_a_spec_is_split_from_its_module(tmp_path: Path) -> None:
    assert split_encoder("vgg") == ("vgg", None)
    assert split_encoder("resnet18@layer1.0") == ("resnet18@layer1.0", "published")
    assert split_encoder(FRONT) == (NAME, "seed:0")
    lite = "packaged:efficientnet-lite0"
    assert split_encoder(f"{lite}@blocks.1") == ("timm:tf_efficientnet_lite0@blocks.1", lite)
    assert file_name_of("timm:tf_efficientnet_lite0@blocks.1") == "tf_efficientnet_lite0-blocks_1"
    assert file_name_of("vgg") == "vgg"
    narrow = tiny_classifier(tmp_path / "classifier.safetensors", 5)
    with pytest.raises(UserError, match="its front serves at width 1 only; give another"):
        split_encoder(f"{narrow}@layer1")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("images") / "source", per_class=6)


@pytest.fixture(scope="module")
def trained(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An autoencoder around the front of a small network of timm."""
    out = tmp_path_factory.mktemp("trained") / "run"
    done = advbn_gen(
        "train-autoencoder", "--encoder", FRONT, "--source", source, "--width", 1 / 16, "--image-size", 64,
        "--batch-size", 4, "--epochs", 1, "--device", "cpu", "--out", out,
    )  # fmt: skip
    assert done.code == 0, done.err
    return out / "autoencoder.safetensors"


def generate(source: Path, autoencoder: Path, out: Path, *more: object, encoder: str = FRONT) -> Any:
    return advbn_gen(
        "imagenet-advbn", "--encoder", encoder, "--source", source, "--autoencoder", autoencoder, "--image-size", 64,
        "--batch-size", 4, "--batches-per-shard", 2, "--device", "cpu", "--threads", 1, "--out", out, *more,
    )  # fmt: skip


@pytest.mark.slow
def test_the_file_says_what_it_is_around(trained: Path) -> None:
    file = load_autoencoder(trained, NAME)
    whole = load_with_weights("timm:test_resnet", "seed:0", None).module[1].state_dict()  # type: ignore[index]
    state = file.module.encoder.state_dict()
    assert {f"front.{name}" for name in whole} > state.keys()
    assert all(torch.equal(value, whole[name.removeprefix("front.")]) for name, value in state.items())
    assert (file.encoder_form, file.summary()["encoder"], file.module.width) == ("seed:0", NAME, 1 / 16)


def tars(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in folder_bytes(folder).items() if name.endswith(".tar")}


@pytest.mark.slow
def test_shards_are_made_gone_on_with_and_rendered_to_the_same_bytes(
    source: Path, trained: Path, tmp_path: Path
) -> None:
    classes = ("--classifier", tiny_classifier(tmp_path / "classifier.safetensors", 1000))
    done = generate(source, trained, tmp_path / "whole", *classes)
    assert done.code == 0, done.err
    config = json.loads((tmp_path / "whole/manifest.json").read_text())["config"]
    assert config["encoder"] == NAME
    # The file holds the encoder's weights: the name alone is enough, and no published ones are looked for.
    parts = generate(source, trained.parent, tmp_path / "parts", *classes, encoder=NAME)
    assert parts.code == 0, parts.err
    for path in (tmp_path / "parts").rglob("*000001*"):
        path.unlink()
    assert generate(source, trained, tmp_path / "parts", *classes).code == 0
    assert advbn_gen("verify", tmp_path / "whole").code == 0
    next((tmp_path / "parts").glob("*000000.tar")).unlink()
    repaired = advbn_gen("verify", tmp_path / "parts", "--repair", "--autoencoder", trained.parent)
    assert repaired.code == 0, repaired.err
    again = advbn_gen(
        "render", tmp_path / "whole/perturbations.h5", "--source", source, "--autoencoder", trained.parent,
        "--out", tmp_path / "again",
    )  # fmt: skip
    assert again.code == 0, again.err
    whole, others, rendered = (tars(tmp_path / name) for name in ("whole", "parts", "again"))
    assert len(whole) > 1
    assert whole == others == rendered


def test_another_front_and_other_weights_are_refused(source: Path, trained: Path, tmp_path: Path) -> None:
    other = generate(source, trained, tmp_path / "out", encoder="timm:test_resnet=seed:1@layer2")
    assert (other.code, "is around other weights of timm:test_resnet (seed:0)" in other.err) == (2, True)
    other = generate(source, trained, tmp_path / "out", encoder="timm:test_resnet=seed:0@layer1")
    assert (other.code, f"has the encoder {NAME}, not timm:test_resnet@layer1" in other.err) == (2, True)
    other = generate(source, trained, tmp_path / "out", "--classifier", "resnet18", encoder="timm:test_resnet@layer1")
    assert (other.code, f"has the encoder {NAME}, not timm:test_resnet@layer1" in other.err) == (2, True)
    twice = ("--encoder-weights", "seed:0", "--source", source, "--out", tmp_path / "out")
    assert "names its weights" in refused("train-autoencoder", "--encoder", FRONT, *twice)
    assert "has no networks for the encoder" in refused("train-autoencoder", "--encoder", FRONT)
    assert not (tmp_path / "out").exists()


def test_features_stay_below_the_six_of_a_relu6() -> None:
    kind = front_kind("mobilenet_v2@features.0")
    assert kind.limits == (0.0, 6.0)
    assert not math.isfinite(encoder_kind("vgg").limits[1])
    with seeded(0):
        assert kind.build(1.0)(torch.rand(1, 3, 16, 16)).shape == (1, 32, 8, 8)
