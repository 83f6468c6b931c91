"""Networks that are trained once for all tests of this package."""

from pathlib import Path

import pytest

from abnn.checkpoint import Checkpoint
from tests.abnn.trained import small_world, trained


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_world(tmp_path_factory.mktemp("small-world"))


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, world: Path) -> dict[str, Checkpoint]:
    """One network of each defence."""
    root = tmp_path_factory.mktemp("runs")
    return {name: trained(world, root / name, name) for name in ("none", "abnn", "pgd-at")}
