"""A devkit in the layout of the real one, whose labels are compared with those of torchvision's parser."""

import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchvision.datasets import imagenet

from basics.errors import UserError
from sources.devkit import find_devkit, is_devkit, read_devkit

NAME = "ILSVRC2012_devkit_t12"
MakeDevkit = Callable[..., Path]


def pack(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, NAME)
    return archive


@pytest.mark.slow
def test_the_wnids_are_those_that_torchvision_reads(
    tmp_path: Path, make_devkit: MakeDevkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_devkit(tmp_path / "made", [1000, 1, 500, 1, 77])
    archive = pack(folder, tmp_path / f"{NAME}.tar.gz")
    # torchvision insists on the checksum of the one real archive.
    monkeypatch.setattr(imagenet, "check_integrity", lambda *_: True)
    imagenet.parse_devkit_archive(tmp_path)
    _, expected = torch.load(tmp_path / imagenet.META_FILE, weights_only=True)
    assert len(set(expected)) == 4
    assert read_devkit(archive) == expected
    assert read_devkit(folder) == expected
    assert read_devkit(folder / "data") == expected
    assert read_devkit(folder.parent) == expected


@pytest.mark.slow
def test_the_ids_are_not_the_indices(tmp_path: Path, make_devkit: MakeDevkit) -> None:
    assert read_devkit(make_devkit(tmp_path, [1])) != ["n01440764"]


def test_it_is_found_in_the_first_folder_that_has_it(tmp_path: Path) -> None:
    (tmp_path / "b" / NAME).mkdir(parents=True)
    (tmp_path / f"{NAME}.tar.gz").touch()
    assert find_devkit([tmp_path / "a", tmp_path / "b", tmp_path]) == tmp_path / "b" / NAME
    assert find_devkit([tmp_path / "a", tmp_path]) == tmp_path / f"{NAME}.tar.gz"
    assert find_devkit([tmp_path / "a"]) is None


def test_folders_and_archives_are_devkits_and_texts_are_not(tmp_path: Path) -> None:
    assert is_devkit(tmp_path)
    assert is_devkit(Path(f"{NAME}.tar.gz"))
    assert not is_devkit(Path("labels.txt"))


def test_a_folder_without_the_ground_truth_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no ILSVRC2012 devkit: it has no data/ILSVRC2012_validation"):
        read_devkit(tmp_path)


@pytest.mark.slow
def test_an_incomplete_devkit_is_refused(tmp_path: Path, make_devkit: MakeDevkit) -> None:
    folder = make_devkit(tmp_path / "made", [1])
    (folder / "data/meta.mat").unlink()
    archive = pack(folder, tmp_path / "x.tar.gz")
    with pytest.raises(UserError, match=r"x\.tar\.gz is no ILSVRC2012 devkit: it lacks"):
        read_devkit(archive)
    with pytest.raises(UserError, match=r"The devkit .* cannot be read .*meta\.mat.*download it again"):
        read_devkit(folder)


@pytest.mark.slow
def test_a_damaged_devkit_is_refused(tmp_path: Path, make_devkit: MakeDevkit) -> None:
    (tmp_path / "x.tar.gz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"The devkit .*x\.tar\.gz cannot be read"):
        read_devkit(tmp_path / "x.tar.gz")
    folder = make_devkit(tmp_path / "made", [1])
    (folder / "data/meta.mat").write_bytes(b"no matrix" * 100)
    with pytest.raises(UserError, match=r"meta\.mat of the devkit .* cannot be read"):
        read_devkit(folder)


@pytest.mark.slow
@pytest.mark.parametrize(("text", "line"), [("1\n0\n", 2), ("1\n1001\n", 2), ("x\n", 1), ("", 1)])
def test_a_wrong_ground_truth_is_refused(tmp_path: Path, make_devkit: MakeDevkit, text: str, line: int) -> None:
    folder = make_devkit(tmp_path, [1])
    (folder / "data/ILSVRC2012_validation_ground_truth.txt").write_text(text)
    with pytest.raises(UserError, match=rf"Line {line} of ILSVRC2012_validation_ground_truth\.txt in the devkit"):
        read_devkit(folder)


@pytest.mark.slow
def test_without_scipy_the_mend_is_said(
    tmp_path: Path, make_devkit: MakeDevkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_devkit(tmp_path, [1])
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(UserError, match=r"needs SciPy, which is not installed; run `pip install scipy` or"):
        read_devkit(folder)
