"""The drawn world's own networks, trained by the code as it is: again only when something that decides them changed."""

import fcntl
import hashlib
import os
import platform
import shutil
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

from pipeline.drawn_networks import CACHE_VARIABLE, drawn_networks
from tests.processes import ROOT, preloaded

ENCODERS = ("vgg", "resnet")
CODE = ("basics", "sources", "training", "networks", "encoders", "decoders", "pipeline/drawn_networks.py")
"""All that takes part in the training."""
LIBRARIES = ("torch", "torchvision", "numpy", "pillow", "lightning-fabric", "scipy")


def trained_networks(kept: Path) -> Path:
    """Return a cache folder ($ADVBN_CACHE) with both encoders' networks, trained now if `kept` does not hold it.

    Args:
        kept: folder that stays between runs; networks that other code has trained are removed from it.
    """
    kept.mkdir(parents=True, exist_ok=True)
    with (kept / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = kept / _digest()
        for other in kept.iterdir():
            if other.is_dir() and other != folder:
                shutil.rmtree(other)
        if not (folder / "all").exists():
            with ProcessPoolExecutor(len(ENCODERS), preloaded()) as pool:
                list(pool.map(_train, ENCODERS, [folder] * len(ENCODERS)))
            (folder / "all").touch()
    return folder


def _train(encoder: str, folder: Path) -> None:
    os.environ[CACHE_VARIABLE] = str(folder)
    drawn_networks(encoder)


def _digest() -> str:
    """Return a checksum of the code and the libraries that decide what the networks become."""
    digest = hashlib.sha256(platform.python_version().encode())
    for library in LIBRARIES:
        digest.update(f"{library} {version(library)}\n".encode())
    for name in CODE:
        files = sorted((ROOT / name).rglob("*.*")) if (ROOT / name).is_dir() else [ROOT / name]
        for path in files:
            if path.suffix in {".py", ".tsv"}:
                digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
