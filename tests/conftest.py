"""Fixtures for all tests."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.disk import mounted_disk

if TYPE_CHECKING:
    from xdist.scheduler import Scheduling

    from tests.trio import Trio

# Importing everything leaves next to no garbage to collect; see `pytest_collection_finish`.
gc.disable()
# As the command line does, before anything imports torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Other cores are for other tests. Processes that tests start have one, too, and sums of more threads round otherwise.
os.environ.setdefault("OMP_NUM_THREADS", "1")

MOST_PROCESSES = 5
"""Each needs a gigabyte and takes seconds to import everything."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes `--numprocesses auto` starts; 0 to run all tests in this one.

    Two more than there are cores: tests of clusters and of stores wait for others most of the time.
    """
    cores = len(os.sched_getaffinity(0))
    return min(cores + 2, MOST_PROCESSES) if cores > 1 else 0


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> "Scheduling":
    """Share tests out by file."""
    from tests.parallel import ByFile

    return ByFile(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes long, where several processes share the tests."""
    if hasattr(config, "workerinput"):
        from tests.parallel import slow_first

        items[:] = slow_first(items)


def pytest_collection_finish() -> None:
    """Collect garbage seldom, and leave the million objects of all modules out of it: it took 5% of all time."""
    gc.freeze()
    gc.set_threshold(5_000, 10, 50)
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Take back the number of threads that an earlier test's run has chosen for its process, which is this one."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; tests that use it are skipped where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ADVBN_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is absent (ADVBN_SHARED_DATA names another folder)")
    return folder


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
