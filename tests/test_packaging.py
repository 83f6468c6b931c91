"""The sdist and the wheel: they build, hold what they should, install, and leave nothing behind."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path
from shutil import copy2, copytree, ignore_patterns

import pytest

from tests.processes import ROOT

pytestmark = pytest.mark.slow

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGES = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
BESIDE_PACKAGES = ("benchmarks", "docs", "tests")
FILES = {
    "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "Makefile", "README.md", "cli.py",
    "mkdocs.yml", "pyproject.toml",
}  # fmt: skip
STRAY = (
    "demo/report.html", "shared/data/images.tar", "attacks/__pycache__/old.cpython-311.pyc", "sources/photograph.jpg",
    "tests/__pycache__/old.cpython-311.pyc",
)  # fmt: skip
"""Files that work leaves in a checkout, and that no distribution holds."""
BUILD = """
import os, sys, tarfile
from pathlib import Path
from setuptools import build_meta

out = Path(sys.argv[1])
sdist = build_meta.build_sdist(str(out))
build_meta.build_wheel(str(out / "of the checkout"))
with tarfile.open(out / sdist) as archive:
    archive.extractall(out, filter="data")
os.chdir(out / sdist.removesuffix(".tar.gz"))
build_meta.build_wheel(str(out / "of the sdist"))
"""
"""Builds without isolation, which would ask a package registry for setuptools."""


@dataclass(frozen=True)
class Built:
    """What the build of a copy of this tree has left."""

    sdist: dict[str, bytes]
    wheel: dict[str, bytes]
    wheel_of_the_sdist: dict[str, bytes]
    path: Path

    @property
    def metadata(self) -> Message:
        """The wheel's METADATA."""
        return Parser().parsestr(self.wheel[f"{self.dist_info}/METADATA"].decode())

    @property
    def dist_info(self) -> str:
        """Folder of the wheel's metadata."""
        return f"advbn_gen-{PROJECT['version']}.dist-info"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    tree = folder / "checkout"
    tree.mkdir()
    for name in FILES:
        copy2(ROOT / name, tree)
    for name in {*PACKAGES, *BESIDE_PACKAGES}:
        copytree(ROOT / name, tree / name, ignore=ignore_patterns("__pycache__"))
    for name in STRAY:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    done = subprocess.run(
        [sys.executable, "-c", BUILD, folder], capture_output=True, text=True, check=False, cwd=tree, env=plain()
    )
    assert done.returncode == 0, done.stderr
    path = folder / "of the checkout" / f"advbn_gen-{PROJECT['version']}-py3-none-any.whl"
    return Built(
        sdist_content(folder / f"advbn_gen-{PROJECT['version']}.tar.gz"),
        wheel_content(path),
        wheel_content(folder / "of the sdist" / path.name),
        path,
    )


def plain() -> dict[str, str]:
    """The test's environment, in which Python finds only what is installed, and keeps compiled modules."""
    left_out = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}
    return {name: value for name, value in os.environ.items() if name not in left_out}


def sdist_content(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        files = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        return {name.partition("/")[2]: file.read() for name, file in files.items() if file is not None}


def wheel_content(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def tree_content(*folders: str) -> dict[str, bytes]:
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    own = [path for path in paths if "__pycache__" not in path.parts]
    return {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in own}


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(built: Built) -> None:
    own = {name: content for name, content in built.wheel.items() if not name.startswith(f"{built.dist_info}/")}
    assert own == tree_content(*PACKAGES) | {"cli.py": (ROOT / "cli.py").read_bytes()}
    assert {name.removeprefix(f"{built.dist_info}/") for name in set(built.wheel) - set(own)} == {
        "METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt",
    }  # fmt: skip
    assert set(built.wheel[f"{built.dist_info}/top_level.txt"].decode().split()) == {*PACKAGES, "cli"}


def test_type_checkers_see_into_every_package(built: Built) -> None:
    assert "Typing :: Typed" in built.metadata.get_all("Classifier", [])
    assert {f"{name}/py.typed" for name in PACKAGES} <= set(built.wheel)


def test_the_sdist_holds_what_builds_and_tests_need(built: Built) -> None:
    made = {name for name in built.sdist if re.match(r"PKG-INFO$|setup\.cfg$|advbn_gen\.egg-info/", name)}
    own = {name: content for name, content in built.sdist.items() if name not in made}
    expected = tree_content(*PACKAGES, *BESIDE_PACKAGES)
    assert own == expected | {name: (ROOT / name).read_bytes() for name in FILES}


def test_a_wheel_of_the_sdist_is_that_of_the_checkout(built: Built) -> None:
    assert built.wheel_of_the_sdist == built.wheel


def test_the_metadata_is_the_projects(built: Built) -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert built.metadata["Version"] == PROJECT["version"]
    assert f"\nversion: {PROJECT['version']}\n" in citation
    assert built.metadata["License-Expression"] == "MIT"
    assert set(built.metadata.get_all("Provides-Extra", [])) == set(PROJECT["optional-dependencies"])
    extras = [each for packages in PROJECT["optional-dependencies"].values() for each in packages]
    assert len(built.metadata.get_all("Requires-Dist", [])) == len([*PROJECT["dependencies"], *extras])


def test_every_extra_that_messages_and_pages_name_is_there() -> None:
    texts = [*tree_content(*PACKAGES, "docs").values(), (ROOT / "README.md").read_bytes()]
    named = {name.decode() for text in texts for name in re.findall(rb"advbn-gen\[(\w+)\]", text)}
    assert len(named) >= 6
    assert named <= set(PROJECT["optional-dependencies"])


def test_the_wheel_installs_runs_and_leaves_nothing_behind(built: Built, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv")
    packages = next((tmp_path / "venv/lib").glob("python*/site-packages"))
    program = tmp_path / "venv/bin/advbn-gen"
    before = set(packages.rglob("*")), set(program.parent.iterdir())

    pip(tmp_path, "install", "--no-index", "--no-deps", "--no-compile", built.path)
    assert {path.name for path in packages.iterdir()} == {*PACKAGES, "cli.py", built.dist_info}
    # What advbn-gen needs is found where this test found it, behind what the wheel has brought.
    libraries = packages / "libraries.pth"
    libraries.write_text("\n".join(path for path in sys.path if Path(path).name == "site-packages"), encoding="utf-8")
    done = subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=False, cwd=tmp_path, env=plain()
    )
    assert done.stdout.startswith(f"advbn-gen {PROJECT['version']} (data format "), done.stderr
    assert (packages / "__pycache__").exists(), "compiled modules, which go as well"

    libraries.unlink()
    pip(tmp_path, "uninstall", "--yes", "advbn-gen")
    assert (set(packages.rglob("*")), set(program.parent.iterdir())) == before


def pip(folder: Path, *words: object) -> None:
    """Run this environment's pip on the virtual environment in `folder`."""
    command: list[object] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        folder / "venv/bin/python",
        "--disable-pip-version-check",
    ]
    done = subprocess.run(
        list(map(str, [*command, *words])), capture_output=True, text=True, check=False, cwd=folder, env=plain()
    )
    assert done.returncode == 0, done.stderr
