"""Sdist and wheel of the commit that is checked out: built into dist/, and tried with each extra.

    python -m benchmarks.installation                          # without extras, then with each
    python -m benchmarks.installation --extra none --extra s3  # only these

For each extra the wheel is installed into an environment of its own, what the extra brings is used there, away from the
checkout, and the wheel is uninstalled, which must leave nothing behind. Sizes, and the time of `advbn-gen --help`, are
printed. Needs git, a package registry and 10 GB for temporary files. A release has to pass it.
"""

import os
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import click

ROOT = Path(__file__).absolute().parents[1]
NONE = "none"
"""Stands for an installation without extras."""
HELP_RUNS = 30

_IMAGES = """
from pathlib import Path
from PIL import Image

for split in ("train", "test"):
    for name in ("n01440764", "n02102040"):
        folder = Path("images", split, name)
        folder.mkdir(parents=True)
        for number in range(8):
            Image.effect_noise((64, 64), 20 + 10 * number).convert("RGB").save(folder / f"{name}_{number}.png")
"""
_CLIPS = """
from pathlib import Path
import av
import numpy as np

for split in ("train", "test"):
    for name in ("left", "right"):
        folder = Path("clips", split, name)
        folder.mkdir(parents=True)
        for number in range(2):
            with av.open(str(folder / f"{name}_{number}.avi"), "w") as file:
                stream = file.add_stream("mpeg4", rate=25)
                stream.width = stream.height = 64
                for brightness in range(0, 240, 30):
                    pixels = np.full((64, 64, 3), brightness, np.uint8)
                    file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
                file.mux(stream.encode())
"""
_ADDRESS = "from basics.paths import as_path; print(repr(as_path('{}').fs))"
_DASHBOARD = """
from urllib.request import urlopen
from distributed import LocalCluster

if __name__ == "__main__":
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as cluster:
        page = urlopen(cluster.dashboard_link).read().decode()
    assert "bokeh" in page and "Dask needs bokeh" not in page, page
"""
_READERS = """
import wids
from datasets import load_dataset
from timm.data import create_dataset

assert len(wids.ShardListDataset("imagenet-advbn-vgg/wids.json", localname=lambda shard: shard)) == 16
assert len(load_dataset("imagenet-advbn-vgg", split="validation")) == 16
assert len(list(create_dataset("wds/shards", root="imagenet-advbn-vgg", split="validation"))) == 16
"""
_TRAINING = "--source images/train --batch-size 4 --image-size 32 --epochs 1"
_NARROW = "--batch-size 4 --image-size 32 --epochs 1 --width 0.0625"

Command = str | list[str]
FIRST: tuple[Command, ...] = (
    ["python", "-c", _IMAGES],
    f"advbn-gen train-autoencoder --encoder vgg --encoder-weights seed:0 --source images/train {_NARROW} --out decoder",
    f"advbn-gen train-classifier --arch resnet18 --source images/train {_NARROW} --out classifier",
    "advbn-gen imagenet-advbn --encoder vgg --autoencoder decoder/autoencoder.safetensors --classifier classifier "
    "--source images/test --batch-size 4 --image-size 32 --reconstructed",
    "advbn-gen verify imagenet-advbn-vgg",
    "advbn-gen report gap --original images/test --reconstructed imagenet-reconstructed-vgg --advbn imagenet-advbn-vgg "
    "--model classifier --out gap",
)
"""Run in the first environment; the others use the files that it leaves."""
USES: dict[str, tuple[Command, ...]] = {
    NONE: (
        f"advbn-gen finetune --arch resnet18 --init classifier --augment fast-autoaugment {_TRAINING} --out finetuned",
        ["python", "-c", "import advbn_gen; print(*advbn_gen.__all__)"],
    ),
    "test": ("python -m pytest --quiet -m 'not slow' tests/test_cli.py tests/attacks",),
    "docs": ("mkdocs build --strict --quiet",),
    "video": (
        ["python", "-c", _CLIPS],
        "advbn-gen abnn train --task ucf101 --defence none --data clips --arch r3d_18 --frames 4 --image-size 32 "
        "--batch-size 2 --epochs 1 --width 0.0625 --out clip-network",
    ),
    "timm": (f"advbn-gen train-classifier --arch timm:resnet10t {_TRAINING} --out timm-network",),
    "pretrained": ("advbn-gen score --model packaged:efficientnet-lite0 --data noise=images/test --out scores",),
    "autoattack": (
        f"advbn-gen abnn train --task cifar10 --defence none --data images {_NARROW} --out abnn",
        "advbn-gen abnn attack --checkpoint abnn --attack autoattack --data images --limit 4",
    ),
    "s3": (["python", "-c", _ADDRESS.format("s3://bucket/folder")],),
    "gs": (["python", "-c", _ADDRESS.format("gs://bucket/folder")],),
    "hf": (["python", "-c", _ADDRESS.format("hf://datasets/owner/name")],),
    "dashboard": (["python", "-c", _DASHBOARD],),
    "readers": (["python", "-c", _READERS],),
}
"""What is run with each extra."""
_OF_OTHER_ENVIRONMENTS = {"PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV"}
OF_THE_PROJECT = ("test", "docs")
"""Extras for work on the project, whose commands run in the unpacked sdist."""


@click.command()
@click.option("--extra", "chosen", type=click.Choice(list(USES)), multiple=True, help="Only these. [default: all]")
def main(chosen: tuple[str, ...]) -> None:
    """Build, then install, use and uninstall with each extra; say at the end with which of them that failed."""
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder))
        trial.build()
        failed = [extra for extra in chosen or USES if not trial.passes(extra)]
    if failed:
        raise click.ClickException(f"failed: {', '.join(failed)}")
    click.echo("all right")


class Trial:
    """Environments and what is made in them, in one temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.sdist = folder / "sdist"
        self.wheel = folder
        self.work.mkdir()
        self.environment = folder / "environment"

    def build(self) -> None:
        """Build from the files of the commit, whatever else lies in the checkout; leave dist/ with both files alone."""
        commit = self.folder / "commit.tar"
        subprocess.run(["git", "archive", "--output", commit, "HEAD"], cwd=ROOT, check=True)
        _unpack(commit, self.folder / "commit")
        builder = self.folder / "builder"
        subprocess.run([sys.executable, "-m", "venv", builder], check=True)
        self.run("python -m pip install --quiet build", builder)
        self.run(["python", "-m", "build", "--outdir", str(self.folder / "dist"), str(self.folder / "commit")], builder)
        shutil.rmtree(ROOT / "dist", ignore_errors=True)
        (ROOT / "dist").mkdir()
        for path in sorted((self.folder / "dist").iterdir()):
            shutil.copy(path, ROOT / "dist")
            click.echo(f"dist/{path.name}: {path.stat().st_size / 1e6:.2f} MB")
        self.wheel = next((self.folder / "dist").glob("*.whl"))
        _unpack(next((self.folder / "dist").glob("*.tar.gz")), self.sdist)
        self.sdist = next(self.sdist.iterdir())

    def passes(self, extra: str) -> bool:
        """Return whether the wheel passes with an extra; print the fault."""
        try:
            self._check(extra)
        except click.ClickException as error:
            click.echo(f"{extra}: {error.message}")
            return False
        return True

    def _check(self, extra: str) -> None:
        """Install the wheel with an extra, use it, and uninstall it."""
        start = time.monotonic()
        self._new_environment()
        self.run(["python", "-m", "pip", "install", "--quiet", f"{self.wheel}{'' if extra == NONE else f'[{extra}]'}"])
        seconds, size, packages = time.monotonic() - start, _size(_files(self.environment)), self._packages()
        self.run("python -m pip check")
        version = self.wheel.name.split("-")[1]
        if not self.run("advbn-gen --version").startswith(f"advbn-gen {version} "):
            raise click.ClickException(f"advbn-gen --version does not name the version {version}")
        self.run("advbn-gen info --system")
        if extra == NONE:
            self._print_sizes_and_times()
        for command in FIRST if not (self.work / "gap").exists() else ():
            self.run(command)
        for command in USES[extra]:
            self.run(command, folder=self.sdist if extra in OF_THE_PROJECT else self.work)
        self._uninstall()
        click.echo(f"{extra}: {packages} packages, {size / 1e9:.2f} GB, installed in {seconds:.0f} s, used, removed")

    def run(self, command: Command, environment: Path | None = None, folder: Path | None = None) -> str:
        """Run a command with an environment's programs; return what it printed.

        Raises:
            click.ClickException: it failed; the message has all that it printed.
        """
        words = shlex.split(command) if isinstance(command, str) else command
        env = {name: value for name, value in os.environ.items() if name not in _OF_OTHER_ENVIRONMENTS}
        env["PATH"] = f"{(environment or self.environment) / 'bin'}{os.pathsep}{env['PATH']}"
        env |= {"ADVBN_CACHE": str(self.folder / "cache"), "HF_HOME": str(self.folder / "cache")}
        done = subprocess.run(
            words, cwd=folder or self.work, env=env, check=False, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode:
            raise click.ClickException(f"exit code {done.returncode} of {shlex.join(words)}:\n{done.stdout}")
        return done.stdout

    def _new_environment(self) -> None:
        """Make an environment with torch alone. With CUDA's libraries it is most of all files, so these are linked."""
        first = self.folder / "torch"
        if not first.exists():
            subprocess.run([sys.executable, "-m", "venv", first], check=True)
            self.run("python -m pip install --quiet torch torchvision", first)
        shutil.rmtree(self.environment, ignore_errors=True)
        shutil.copytree(first, self.environment, symlinks=True, copy_function=os.link)

    def _packages(self) -> int:
        return len(self.run("python -m pip list --format freeze").splitlines())

    def _print_sizes_and_times(self) -> None:
        own = _size(self._own_files())
        rest = sum(_size(_files(path)) for path in _site_packages(self.environment).glob("nvidia*"))
        click.echo(f"advbn-gen alone: {own / 1e6:.2f} MB installed; CUDA's libraries: {rest / 1e9:.2f} GB")
        seconds, busy = [], []
        for _ in range(HELP_RUNS):
            start, computed = time.perf_counter(), _computed_by_children()
            self.run("advbn-gen --help")
            seconds.append(time.perf_counter() - start)
            busy.append(_computed_by_children() - computed)
        for name, values in (("wall time", seconds), ("processor time", busy)):
            best, median = min(values), statistics.median(values)
            click.echo(f"advbn-gen --help, {HELP_RUNS} runs: {name} best {best:.3f} s, median {median:.3f} s")

    def _own_files(self) -> set[Path]:
        """Return what the installation of the wheel has made, from the list that pip keeps of it."""
        packages = _site_packages(self.environment)
        record = next(packages.glob("advbn_gen-*.dist-info/RECORD"))
        lines = record.read_text(encoding="utf-8").splitlines()
        return {Path(os.path.normpath(packages / line.split(",")[0])) for line in lines}

    def _uninstall(self) -> None:
        """Uninstall the wheel.

        Raises:
            click.ClickException: something of it is left, or something else is gone.
        """
        own, before = self._own_files(), _files(self.environment)
        self.run("python -m pip uninstall --quiet --yes advbn-gen")
        gone = before - _files(self.environment)
        names = {path.name for path in self.sdist.glob("*/__init__.py")} | {"cli.py"}
        left = {path.name for path in _site_packages(self.environment).iterdir()} & names
        # Modules that were compiled on their first use are on no list.
        others = {path for path in gone - own if path.suffix != ".pyc"}
        if left or others or own - gone:
            raise click.ClickException(f"left: {left | (own - gone)}; gone: {others}")


def _computed_by_children() -> float:
    """Return the seconds that processes which have ended have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")


def _site_packages(environment: Path) -> Path:
    return next(environment.glob("lib/python*/site-packages"))


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


if __name__ == "__main__":
    main()
