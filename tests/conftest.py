"""Fixtures for all tests."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.disk import mounted_disk

if TYPE_CHECKING:
    from tests.trio import Trio

# As the command line does, before anything imports torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; tests that use it are skipped where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ADVBN_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is absent (ADVBN_SHARED_DATA names another folder)")
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """As many as the processes that tests start beside: sums of more threads round otherwise."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def trio(tmp_path_factory: pytest.TempPathFactory) -> "Trio":
    """Originals, reconstructions and AdvBN versions of a small world; tests must not change them."""
    from tests.trio import Trio

    return Trio.build(tmp_path_factory.mktemp("trio"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of its own (`tests.disk.resize` gives it its size)."""
    with mounted_disk(tmp_path / "disk") as folder:
        yield folder
