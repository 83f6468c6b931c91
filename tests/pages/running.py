"""The documentation's blocks, run in order, each page in a folder of its own."""

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.pages.blocks import Block, blocks_of, name_of
from tests.pages.programs import Programs
from tests.pages.reduced import reduced
from tests.pages.world import build_inputs
from tests.processes import Forked, environment, finish

SESSIONS = {"extending": "tests/test_extending.py"}
"""Pages that other tests run as a whole: what they print is compared, too."""
ELSEWHERE = {
    "api": "tests/test_api.py",
    "shards": "tests/test_shard_docs.py",
    "ledger": "tests/test_shard_docs.py",
}
"""Pages whose blocks of Python are run by other tests."""
NOT_RUN = ("dask_jobqueue", "dask_kubernetes")
"""Packages of schedulers that are not at hand: blocks that import them are not run, and their page says so."""
FOLLOWS = {"experiments/abnn-table-3": "experiments/abnn-table-2"}
"""Pages whose commands read what another page's have made, in the same folder."""
FULL_WIDTH = ("finetuning",)
"""Pages that load fine-tuned networks into torchvision's own."""
MADE: Mapping[str, Sequence[str]] = {
    "finetuning": ("autoencoder-vgg.safetensors",),
    "ledger": ("perturbations.h5", "autoencoder-vgg.safetensors"),
    "measurements": ("none",),
    "experiments/advbn-table-8": ("resnet50-advbn",),
    "report": ("autoencoder-vgg.safetensors", "imagenet-advbn-vgg", "imagenet-reconstructed-vgg"),
    "training": ("imagenet-advbn-vgg",),
    "shift": ("imagenet-advbn-vgg", "imagenet-reconstructed-vgg", "resnet50-advbn", "advbn-vgg"),
}
"""What a page takes from others, by its name."""
_MAKE = (
    "import-autoencoder --encoder vgg --encoder-weights vgg_normalised.pth --decoder-weights decoder.pth"
    " --out autoencoder-vgg.safetensors",
    "imagenet-advbn --encoder vgg --source ILSVRC2012_val --autoencoder autoencoder-vgg.safetensors --reconstructed",
    "finetune --arch resnet50 --source ILSVRC2012/train --out resnet50-advbn",
    "imagenet-advbn --encoder vgg --source drawn/val --autoencoder autoencoder-vgg.safetensors --out advbn-vgg"
    " --classifier-weights advbn-0/main.safetensors",
    "abnn train --task ucf101 --defence none --data UCF-101 --out none",
)


class BlockFailedError(Exception):
    """A block did not run."""


@dataclass(frozen=True)
class World:
    """Folders of what users bring, and of what the program has made of it."""

    inputs: Path
    made: Path

    @classmethod
    def build(cls, folder: Path) -> "World":
        """Write the one and make the other; takes half a minute."""
        inputs, made = build_inputs(folder / "inputs"), folder / "made"
        link_all(inputs, made)
        for line in _MAKE:
            process = Forked("cli", reduced(line.split()), folder=made, env=environment())
            code, _, err = finish(process)
            if code:
                raise BlockFailedError(f"advbn-gen {line}: {err}")
        shutil.copy(made / "imagenet-advbn-vgg/perturbations.h5", made / "perturbations.h5")
        return cls(inputs, made)

    def lay_out(self, page: str, folder: Path) -> Path:
        """Fill a page's folder with what it names."""
        link_all(self.inputs, folder)
        for name in MADE.get(page, ()):
            source = self.made / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
        return folder


def link_all(source: Path, folder: Path) -> None:
    """Link every entry of a folder into another, new one."""
    folder.mkdir(parents=True)
    for path in source.iterdir():
        (folder / path.name).symlink_to(path)


def run_page(page: Path, world: World, folder: Path, store: Mapping[str, str]) -> Programs:
    """Run a page's blocks in order; return what was called.

    Args:
        page: the page.
        world: what its commands read.
        folder: a new folder to run in, or that of the page that this one follows.
        store: environment in which `s3://images` holds `ILSVRC2012_val`, and `s3://mine` is empty.

    Raises:
        BlockFailedError: one of them failed; the message has its code and what was called.
    """
    name = name_of(page)
    if not folder.exists():
        world.lay_out(name, folder)
    with Programs(
        folder.parent / f"{name.replace('/', '-')}-programs", shared=folder, full=name in FULL_WIDTH
    ) as programs:
        environment_folder = folder / ".venv"
        environment_folder.mkdir(exist_ok=True)
        (environment_folder / "bin").unlink(missing_ok=True)
        (environment_folder / "bin").symlink_to(programs.folder)
        env = environment(PATH=f"{programs.folder}:/usr/bin:/bin", PYTHONWARNINGS="ignore", **store)
        for block in blocks_of(page):
            if block.language == "bash":
                _run_bash(block, page, programs, folder, env)
            elif name not in ELSEWHERE and not any(package in block.code for package in NOT_RUN):
                _run_python(block, page, folder, env)
    return programs


def _run_bash(block: Block, page: Path, programs: Programs, folder: Path, env: Mapping[str, str]) -> None:
    before = len(programs.called)
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", block.code],
        cwd=folder, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    called = programs.called[before:]
    # Bash does not end at a failure in the background or in a condition.
    if done.returncode or not called or any(call.code for call in called):
        raise BlockFailedError(_message(block, page, done.stdout, done.stderr))


def _run_python(block: Block, page: Path, folder: Path, env: Mapping[str, str]) -> None:
    named = re.match(r"# (\w+\.py)\n", block.code)
    path = folder / (named[1] if named else f"block_{block.line}.py")
    # A small data set has fewer shards, fills a smaller buffer, and has smaller images.
    path.write_text(
        block.code.replace("000031}", "000001}").replace("5000", "50").replace("224)", "64)"), encoding="utf-8"
    )
    if named:  # a later command runs it
        return
    done = subprocess.run([sys.executable, path], cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BlockFailedError(_message(block, page, done.stdout, done.stderr))


def _message(block: Block, page: Path, out: str, err: str) -> str:
    return f"{page}, line {block.line}\n{block.code}\n{out[-2000:]}\n{err[-4000:]}"
