"""A small world, and a finished data set made from it."""

import shutil
from pathlib import Path

import pytest

from pipeline.config import GenerationConfig
from pipeline.job import Job, prepare, products_of
from tests.pipeline.world import World
from tests.s3 import S3Server, forget_connections, s3, s3_server

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


@pytest.fixture(scope="module")
def uploaded(world: World, s3_server: S3Server) -> dict[str, bytes]:
    """A finished data set as a run left it in a store: name -> content."""
    address = s3_server.new_bucket() + "/sets/vgg"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        forget_connections()
        done = world.make(address)
    assert done.code == 0, done.err
    forget_connections()
    return s3_server.files(address)


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished data set, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "copied"))


@pytest.fixture
def job(world: World, tmp_path: Path) -> Job:
    """Twelve shards to be made; nothing of them is there."""
    config = GenerationConfig(
        encoder="vgg", source=str(world.source), autoencoder=str(world.autoencoder), limit=48, image_size=16,
        classifier_weights=str(world.classifier), batch_size=4, batches_per_shard=1, threads=1, device="cpu",
    )  # fmt: skip
    return prepare(config, products_of(config, tmp_path / "out", "x"))
