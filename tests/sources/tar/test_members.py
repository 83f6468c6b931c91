"""Names of members: cleaned, and hidden ones left out."""

import tarfile
from pathlib import Path

import pytest

from sources.storage import open_random_access
from sources.tar.headers import TarScan
from sources.tar.members import Member
from tests.sources.tar.built import LONG, add, build


def test_leading_dots_and_slashes_are_dropped(tmp_path: Path) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        for name in ("./a/1", "b//2", "c/./3", "d/4", "/e/5", "../f/6", "x/../g/7", "../../h/../i/8"):
            add(tar, name)

    path = build(tmp_path / "x.tar", fill)
    assert [member.name for member in TarScan(open_random_access(path))] == [
        "a/1", "b/2", "c/3", "d/4", "e/5", "f/6", "g/7", "i/8",
    ]  # fmt: skip


@pytest.mark.slow
def test_hidden_files_are_left_out_and_names_cleaned_among_many(tmp_path: Path) -> None:
    """More than are read at once, with unusual ones among them."""

    def fill(tar: tarfile.TarFile) -> None:
        for number in range(10_000):
            add(tar, f"a/{number}.png", b"x" * (number % 700))
        for name in ("._1.png", "a/.hidden/1.png", ".DS_Store", "b//1.png", LONG):
            add(tar, name)

    path = build(tmp_path / "x.tar", fill)
    with tarfile.open(path) as tar:
        expected = [Member(m.name, m.offset_data, m.size) for m in tar]
    shown = [member for member in expected if "/." not in member.name and not member.name.startswith(".")]
    assert len(shown) == 10_002
    expected_names = [member.name.replace("//", "/") for member in shown]
    found = list(TarScan(open_random_access(path)))
    assert [member.name for member in found] == expected_names
    assert [member[1:] for member in found] == [member[1:] for member in shown]
