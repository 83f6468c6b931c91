"""Every block of code in README and docs/ is run, in small."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.pages.blocks import blocks_of, name_of, pages
from tests.pages.running import SESSIONS, World, run_page
from tests.pages.store import lent_store

# Dozens of small trainings.
pytestmark = pytest.mark.slow
EXPERIMENTS = "experiments/"
"""Pages of results: with their loops over seeds they are run by `python -m tests.pages`, and here only parsed."""
GUIDES = [
    page
    for page in pages()
    if blocks_of(page) and name_of(page) not in SESSIONS and not name_of(page).startswith(EXPERIMENTS)
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.build(tmp_path_factory.mktemp("pages") / "world")


@pytest.fixture(scope="module")
def store(world: World) -> Iterator[Mapping[str, str]]:
    with lent_store(world) as environment:
        yield environment


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_a_page_runs_as_it_is_written(page: Path, world: World, store: Mapping[str, str], tmp_path: Path) -> None:
    run_page(page, world, tmp_path / "page", store)
