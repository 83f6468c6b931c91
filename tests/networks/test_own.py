"""Networks of a user's own: state dicts as classifier files, and modules as classifiers."""

from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models import GoogLeNet, squeezenet1_1

from basics.errors import UserError
from networks.classifiers import load_classifier, save_classifier
from networks.normalise import IMAGENET_COLOURS, PIXELS, Colours, checked_colours
from networks.own import OwnModel, classes_at, import_classifier, own_classifier, own_view
from networks.specs import load_model
from sources.base import ClassMap
from sources.classes import imagenet_map, named_classes
from sources.decode import View
from tests.support import WNIDS, close, seeded

COLOURS = Colours((0.5, 0.25, 0.125), (0.25, 0.5, 1.0))
VIEW = View(crop=32, resize=40)


def image(side: int = 32) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def normalised(pixels: Tensor, colours: Colours = COLOURS) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (colours.mean, colours.std))
    return (pixels - mean) / std


def beasts(count: int = 3) -> ClassMap:
    return named_classes(["ant", "bee", "cat", "dog"][:count], "the test")


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    with seeded(0):
        network: nn.Module = squeezenet1_1(num_classes=3).eval()
    return network


@pytest.fixture(scope="module")
def weights(plain: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.save({"state_dict": plain.state_dict(), "epoch": 3}, path)
    return path


@pytest.mark.parametrize("as_pair", [False, True])
def test_an_imported_file_says_classes_view_and_colours(
    as_pair: bool, plain: nn.Module, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.safetensors"
    assert import_classifier("squeezenet1_1", weights, beasts(), VIEW, COLOURS, out) == COLOURS
    found = load_model(f"squeezenet1_1={out}" if as_pair else str(out))
    assert (found.outputs, found.view, found.mean_std, found.given_colours) == (beasts(), VIEW, COLOURS, COLOURS)
    with torch.no_grad():
        assert close(found.module(image()), plain(normalised(image())))
    assert found.summary()["colours"] == {"mean": [0.5, 0.25, 0.125], "std": [0.25, 0.5, 1.0]}
    assert capsys.readouterr().err == ""


def test_the_usual_colours_are_no_colours_of_its_own(
    plain: nn.Module, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its results are those of the state dict itself, which may have been scored before."""
    out = tmp_path / "mine.safetensors"
    assert import_classifier("squeezenet1_1", weights, beasts(), VIEW, None, out) == IMAGENET_COLOURS
    assert "No colours were given: mean 0.485 0.456 0.406, std 0.229 0.224 0.225 are taken" in capsys.readouterr().err
    found = load_model(str(out))
    assert (found.given_colours, found.mean_std) == (None, IMAGENET_COLOURS)
    assert "colours" not in found.summary()
    with torch.no_grad():
        assert close(found.module(image()), plain(normalised(image(), IMAGENET_COLOURS)))


@pytest.mark.slow
def test_a_network_of_timm_is_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with seeded(0):
        theirs: Any = timm.create_model("test_resnet", num_classes=3).eval()
    torch.save(theirs.state_dict(), tmp_path / "mine.pth")
    given, usual = tmp_path / "given.safetensors", tmp_path / "usual.safetensors"
    import_classifier("timm:test_resnet", tmp_path / "mine.pth", beasts(), VIEW, COLOURS, given)
    own = import_classifier("timm:test_resnet", tmp_path / "mine.pth", beasts(), VIEW, None, usual)
    assert (own.mean, own.std) == (theirs.default_cfg["mean"], theirs.default_cfg["std"])
    with torch.no_grad():
        for path, colours, recorded in ((given, COLOURS, COLOURS), (usual, own, None)):
            found = load_model(str(path))
            assert (found.view, found.outputs, found.given_colours) == (VIEW, beasts(), recorded)
            assert close(found.module(image()), theirs(normalised(image(), colours)))
    assert "does not say" not in capsys.readouterr().err
    load_model(f"timm:test_resnet={tmp_path / 'mine.pth'}")
    said = capsys.readouterr().err
    assert "160 px from 168 px and the colours of timm:test_resnet (mean 0.5 0.5 0.5, std 0.5 0.5 0.5)" in said


@pytest.mark.slow
def test_given_colours_are_all_that_googlenet_gets(tmp_path: Path) -> None:
    """From a plain file it prepares colours further, as for torchvision's weights."""
    with seeded(0):
        plain = GoogLeNet(num_classes=3, init_weights=False, transform_input=False).eval()
    torch.save(plain.state_dict(), tmp_path / "mine.pth")
    out = tmp_path / "mine.safetensors"
    with pytest.raises(UserError, match="give --mean and --std"):
        import_classifier("googlenet", tmp_path / "mine.pth", beasts(), VIEW, None, out)
    import_classifier("googlenet", tmp_path / "mine.pth", beasts(), VIEW, IMAGENET_COLOURS, out)
    found = load_model(str(out))
    with torch.no_grad():
        assert close(found.module(image()), plain(normalised(image(), IMAGENET_COLOURS)), relative=1e-4)


def test_a_file_that_says_these_things_is_not_imported_again(plain: nn.Module, weights: Path, tmp_path: Path) -> None:
    done, again = tmp_path / "mine.safetensors", tmp_path / "again.safetensors"
    import_classifier("squeezenet1_1", weights, beasts(), VIEW, None, done)
    with pytest.raises(UserError, match=r"mine\.safetensors says already how images are prepared for it: it is a SPEC"):
        import_classifier("squeezenet1_1", done, beasts(), VIEW, None, again)
    named = tmp_path / "named.safetensors"
    save_classifier(named, "squeezenet1_1", plain, beasts(), 1.0)
    with pytest.raises(UserError, match="says already that it has other classes"):
        import_classifier("squeezenet1_1", named, named_classes(WNIDS, "the test"), VIEW, COLOURS, again)
    assert not again.exists()
    assert import_classifier("squeezenet1_1", named, beasts(), VIEW, COLOURS, again) == COLOURS


def test_what_does_not_fit_is_not_imported(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    with pytest.raises(UserError, match=r"have 3 outputs, but --classes names 4 classes \(ant, bee, cat, \.\.\.\)"):
        import_classifier("squeezenet1_1", weights, beasts(4), VIEW, COLOURS, out)
    with pytest.raises(UserError, match="do not fit the classifier squeezenet1_0"):
        import_classifier("squeezenet1_0", weights, beasts(), VIEW, COLOURS, out)
    with pytest.raises(UserError, match="does not take images of 8 px"):
        import_classifier("squeezenet1_1", weights, beasts(), View(crop=8, resize=8), COLOURS, out)
    with pytest.raises(UserError, match="takes clips, not images"):
        import_classifier("r3d_18", weights, beasts(), VIEW, COLOURS, out)
    with pytest.raises(UserError, match="There is no weights file"):
        import_classifier("squeezenet1_1", Path("seed:0"), beasts(), VIEW, COLOURS, out)
    assert not out.exists()


def test_classes_come_from_a_list_or_from_folders(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\ufeffdog\n cat \r\nÄffchen\n\n", encoding="utf-8")
    assert classes_at(tmp_path / "names.txt").names == ("dog", "cat", "Äffchen")
    for name in ("images/b", "images/a", "images/.hidden"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "images/c.txt").touch()
    assert classes_at(tmp_path / "images").names == ("a", "b")
    (tmp_path / "all.txt").write_text("\n".join(imagenet_map().names))
    assert classes_at(tmp_path / "all.txt") is imagenet_map()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "names no classes"),
        (b"cat\ndog\ncat\n", "names the class cat twice"),
        (b"cat\n\ndog\n", "line 2 of .* is empty"),
        (b"0\n1\n10\n2\n3\n4\n5\n6\n7\n8\n9\n", "in another order"),
        (b"\xff\xfe\x00", r"is no text \(UTF-8\)"),
        (None, r"cannot be read \(No such file or directory\)"),
    ],
)
def test_a_list_that_names_no_classes_is_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        classes_at(path)


def test_a_folder_without_class_folders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder without class folders"):
        classes_at(tmp_path)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.5, 0.5), (0.5, 0.5, 0.5), "mean of colours has 2 values"),
        ((0.5, 0.5, 0.5), (0.5,), "std of colours has 1 values"),
        ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4), "divided by 255"),
        ((0.5, 0.5, 0.5), (0.5, 0.0, 0.5), "std 0.5 0 0.5"),
        ((0.5, float("nan"), 0.5), (0.5, 0.5, 0.5), "mean 0.5 nan 0.5"),
    ],
)
def test_colours_of_other_pixels_are_refused(mean: list[float], std: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        checked_colours(mean, std)


def test_sizes_that_do_not_fit_are_refused() -> None:
    assert own_view(64, None, squash=True) == View(crop=64, resize=64, squash=True)
    with pytest.raises(UserError, match="The image size is 0"):
        own_view(0, None, squash=False)
    with pytest.raises(UserError, match="resized to 63 px, which is less than the 64 px"):
        own_view(64, 63, squash=False)


def test_an_own_module_is_a_classifier_and_stays_as_it_is(plain: nn.Module) -> None:
    plain.train()
    mine = OwnModel(plain, classes=WNIDS, image_size=32, resize=40, mean=COLOURS.mean, std=COLOURS.std)
    found = own_classifier(mine, "mine")
    assert plain.training
    assert all(weight.requires_grad for weight in plain.parameters())
    plain.eval()
    with torch.no_grad():
        assert close(found.module(image()), plain(normalised(image())))
    assert (found.name, found.view, found.outputs.names) == ("SqueezeNet", VIEW, WNIDS)
    assert (found.mean_std, found.given_colours) == (COLOURS, COLOURS)
    grey = own_classifier(OwnModel(plain, classes=WNIDS, image_size=32, mean=0.5, std=0.25), "mine")
    assert grey.mean_std == Colours((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    cubic = own_classifier(OwnModel(plain, classes=WNIDS, image_size=32, interpolation="bicubic"), "mine")
    assert cubic.view == View(crop=32, resize=32, interpolation="bicubic")
    assert own_classifier(OwnModel(plain, classes=WNIDS, image_size=32), "mine").mean_std == PIXELS


def test_an_own_module_has_the_checksum_of_its_weights(plain: nn.Module, weights: Path) -> None:
    """As the same weights in a file have: a report sees that they were attacked."""
    mine = OwnModel(nn.DataParallel(plain), classes=WNIDS, image_size=32)
    before = own_classifier(mine, "mine")
    assert before.checksum == load_classifier("squeezenet1_1", str(weights)).checksum
    bias = cast("nn.Conv2d", plain.get_submodule("classifier.1")).bias
    assert bias is not None
    with torch.no_grad():
        bias += 1
    after = own_classifier(mine, "mine")
    with torch.no_grad():
        bias -= 1
    assert after.checksum != before.checksum


class Printed(nn.Flatten):
    """Prints an attribute, and an address that differs in each process."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale, self.thing = scale, object()

    def extra_repr(self) -> str:
        return f"{self.scale}, {self.thing!r}"


def test_what_an_own_module_prints_says_which_network_it_is() -> None:
    names = [f"class {index}" for index in range(12)]
    first, same, other = (
        own_classifier(OwnModel(Printed(scale), classes=names, image_size=2), "mine").structure for scale in (1, 1, 2)
    )
    assert first == same != other


class Pair(nn.Module):
    """Gives more than logits."""

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return pixels, pixels


@pytest.mark.parametrize(
    ("module", "changed", "message"),
    [
        (nn.Flatten(), {}, r"The model mine gives \(768,\) for an image, but 2 classes are named"),
        (Pair(), {}, "The model mine gives a tuple; give a network that returns its logits alone"),
        (nn.Linear(3, 2), {}, "The model mine does not take images of 16 px"),
        (nn.Linear(3, 2).weight, {}, "give a torch.nn.Module"),
        (nn.Flatten(), {"classes": "cat"}, "give a list of names"),
        (nn.Flatten(), {"classes": ["cat", "cat"]}, "An own model names the class cat twice"),
        (nn.Flatten(), {"classes": [0, 1]}, r"are \[0, 1\]; give a list of names"),
        (nn.Flatten(), {"classes": None}, "are None; give a list of names"),
        (nn.Flatten(), {"image_size": 0}, "The image size is 0"),
        (nn.Flatten(), {"image_size": "24"}, "image_size of an own model is '24'; give a whole number of pixels"),
        (nn.Flatten(), {"image_size": 24.0}, "image_size of an own model is 24.0; give a whole number of pixels"),
        (nn.Flatten(), {"resize": 32.5}, "resize of an own model is 32.5; give a whole number of pixels"),
        (nn.Flatten(), {"interpolation": "nearest"}, "no interpolation 'nearest'; give one of bilinear, bicubic"),
        (nn.Flatten(), {"mean": "0.5", "std": 0.5}, "mean of an own model's colours is '0.5'; give three numbers"),
        (nn.Flatten(), {"mean": 0.5, "std": [0.5, None, 1]}, "std of an own model's colours is .*give three numbers"),
        (nn.Flatten(), {"mean": [0.5, 0.5, 0.5]}, "one is missing; give both, or neither"),
        (nn.Flatten(), {"mean": [5, 5, 5], "std": [1, 1, 1]}, "divided by 255"),
    ],
)
def test_an_own_module_that_does_not_fit_is_refused(module: Any, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        own_classifier(OwnModel(module, **{"classes": ["cat", "dog"], "image_size": 16, **changed}), "mine")


def test_a_module_that_cannot_be_copied_is_refused() -> None:
    module: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2, device="meta"))
    with pytest.raises(UserError, match=r"The module of mine cannot be copied .*meta"):
        own_classifier(OwnModel(module, classes=["cat", "dog"], image_size=16), "mine")
    module = nn.Flatten()
    module.result = torch.ones(2, requires_grad=True) * 2
    with pytest.raises(UserError, match="The module of mine cannot be copied"):
        own_classifier(OwnModel(module, classes=["cat", "dog"], image_size=16), "mine")
