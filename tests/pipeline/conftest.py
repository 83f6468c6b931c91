"""A small world, and a finished data set made from it."""

import shutil
from pathlib import Path

import pytest

from tests.pipeline.world import World
from tests.s3 import s3, s3_server

__all__ = ["s3", "s3_server"]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Images and networks; tests must not change them."""
    return World.build(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def finished(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set that was made without interruption; tests must not change it."""
    out = tmp_path_factory.mktemp("finished") / "imagenet-advbn-vgg"
    done = world.make(out)
    assert done.code == 0, done.err
    return out


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished data set, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "copied"))
