"""Run the documentation's blocks: `python -m tests.pages NEW_FOLDER [PAGE...]`; pages are `README`, `tour`, ..."""

import sys
import time
from pathlib import Path

import click

from tests.pages.blocks import name_of, pages
from tests.pages.running import FOLLOWS, SESSIONS, BlockFailedError, World, run_page
from tests.pages.store import lent_store


def main(folder: Path, names: list[str]) -> int:
    """Run the named pages, or all; print each command with its seconds, and what failed. Return how many failed."""
    world, failed = World.build(folder / "world"), 0
    with lent_store(world) as store:
        for page in pages():
            name = name_of(page)
            if names and name not in names:
                continue
            if name in SESSIONS:
                click.echo(f"{name}: run by {SESSIONS[name]}")
                continue
            begin = time.monotonic()
            try:
                programs = run_page(page, world, folder / "pages" / FOLLOWS.get(name, name).replace("/", "-"), store)
            except BlockFailedError as error:
                failed += 1
                click.echo(f"{name}: FAILED\n{error}")
                continue
            for called in programs.called:
                click.echo(f"{called.seconds:6.1f} s  {' '.join(called.words)}")
            click.echo(f"{name}: {len(programs.called)} calls, {time.monotonic() - begin:.0f} s")
    return failed


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
