"""The AdvBN authors' layout, written down by hand from their naming, against torchvision's."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torchvision.models import resnet18, resnet50

from networks.classifiers import load_classifier
from networks.published_advbn import ADVERSARIAL, CLEAN, is_published_advbn, plain_state
from tests.authors import authors_state, networks_with_other_batch_norm
from tests.support import advbn_gen, refused


def write(path: Path, main: nn.Module, auxiliary: nn.Module, cut: int = 1) -> Path:
    content = {"epoch": 20, "arch": "resnet50", "state_dict": authors_state(main, auxiliary, cut), "best_prec1": 77.0}
    torch.save(content, path)
    return path


def same_answers(path: Path, network: nn.Module, arch: str) -> bool:
    image = torch.rand(2, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = network((image - mean[:, None, None]) / std[:, None, None])
        return torch.allclose(load_classifier(arch, str(path)).module(image), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("build", "arch", "cut"), [(resnet50, "resnet50", 1), (resnet18, "resnet18", 2)])
def test_an_import_gives_both_sets_as_plain_state_dicts(
    build: type[nn.Module], arch: str, cut: int, tmp_path: Path
) -> None:
    main, auxiliary = networks_with_other_batch_norm(build, cut)
    theirs = write(tmp_path / "advbn.pth.tar", main, auxiliary, cut)
    done = advbn_gen("import-finetuned", "--weights", theirs, "--arch", arch, "--out", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    for name, network in (("main", main), ("auxiliary", auxiliary)):
        path = Path(done.result[name])
        assert path == tmp_path / f"run/{name}.safetensors"
        plain = build(num_classes=6)
        plain.load_state_dict(load_file(path))
        assert same_answers(path, network, arch)
    assert not same_answers(tmp_path / "run/auxiliary.safetensors", main, arch)


@pytest.mark.slow
def test_the_file_itself_is_read_with_main_batch_norm(tmp_path: Path) -> None:
    main, auxiliary = networks_with_other_batch_norm(resnet50)
    assert same_answers(write(tmp_path / "advbn.pth", main, auxiliary), main, "resnet50")


@pytest.mark.slow
def test_names_are_torchvisions() -> None:
    main, auxiliary = networks_with_other_batch_norm(resnet50)
    theirs = {name.removeprefix("module."): value for name, value in authors_state(main, auxiliary).items()}
    assert is_published_advbn(theirs)
    assert not is_published_advbn(main.state_dict())
    for norm, network in ((CLEAN, main), (ADVERSARIAL, auxiliary)):
        plain = plain_state(theirs, norm)
        assert plain.keys() == network.state_dict().keys()
        for name, value in network.state_dict().items():
            assert name.endswith("num_batches_tracked") or torch.equal(plain[name], value), name


@pytest.mark.slow
def test_what_cannot_be_imported_is_refused(tmp_path: Path) -> None:
    main, auxiliary = networks_with_other_batch_norm(resnet18)
    plain = tmp_path / "plain.pth"
    torch.save(main.state_dict(), plain)
    words = ["import-finetuned", "--arch", "resnet18", "--out", tmp_path / "run", "--weights"]
    assert "need no import" in refused(*words, plain)
    theirs = write(tmp_path / "advbn.pth", main, auxiliary)
    said = refused("import-finetuned", "--weights", theirs, "--out", tmp_path / "run")
    assert "resnet50" in said
    assert not (tmp_path / "run").exists()
    assert "is no empty folder" in refused(*words[:3], "--out", plain, "--weights", theirs)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    assert "is no empty folder" in refused(*words[:3], "--out", tmp_path / "full", "--weights", theirs)
