"""Progress of long work: a bar on a terminal, plain lines elsewhere; always on stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console

SECONDS_BETWEEN_LINES = 15.0


class Advance(Protocol):
    """A function that reports progress."""

    def __call__(self, amount: int = 1, detail: str = "") -> None:
        """Report that `amount` more units are done; `detail` is shown behind the bar."""
        ...


def say(message: str) -> None:
    """Print one line of log to stderr (stdout is for results)."""
    print(message, file=sys.stderr, flush=True)  # noqa: T201


def counted(number: int, noun: str) -> str:
    """Return `1 shard`, `2 shards`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@contextmanager
def progress(title: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Show the progress of `total` units of work, `done` of which were finished before.

    Rate and remaining time count only the work of this run.
    """
    # Imported here, because every command imports this module, also for `--help`.
    from rich.console import Console

    console = Console(stderr=True)
    shown = _bar(console, title, total, unit, done) if console.is_terminal else _lines(title, total, unit, done)
    with shown as advance:
        yield advance


@contextmanager
def _bar(console: "Console", title: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total, completed=done, rate="", detail="")
        finished, start = 0, time.monotonic()

        def advance(amount: int = 1, detail: str = "") -> None:
            nonlocal finished
            finished += amount
            rate = finished / max(time.monotonic() - start, 1e-9)
            bar.update(task, advance=amount, rate=f"{rate:.1f} {unit}/s", detail=detail)

        yield advance


@contextmanager
def _lines(title: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    finished, start, last = 0, time.monotonic(), time.monotonic()

    def advance(amount: int = 1, detail: str = "") -> None:
        nonlocal finished, last
        finished += amount
        now = time.monotonic()
        reached = done + finished
        if now - last < SECONDS_BETWEEN_LINES and reached < total:
            return
        last = now
        rate = finished / max(now - start, 1e-9)
        eta = (total - reached) / max(rate, 1e-9)
        say(f"{title}: {reached}/{total} {unit}, {rate:.1f} {unit}/s, {eta:.0f} s left {detail}".rstrip())

    yield advance
