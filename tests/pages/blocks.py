"""Code blocks of the documentation's pages."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.processes import ROOT

_BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One of a page's blocks."""

    language: str
    """`bash` or `python`; output and diagrams are `text`, and no blocks of this kind."""
    code: str
    line: int
    """Line of its first line of code, from 1."""


def pages() -> list[Path]:
    """Return README and the pages of docs/, without the generated one."""
    return [ROOT / "README.md", *(page for page in sorted(ROOT.glob("docs/**/*.md")) if page.name != "cli.md")]


def name_of(page: Path) -> str:
    """Return a page's name: its path from docs/ without the suffix."""
    return page.stem if page.parent == ROOT else page.relative_to(ROOT / "docs").with_suffix("").as_posix()


def blocks_of(page: Path) -> list[Block]:
    """Return a page's blocks of code, in order."""
    text = page.read_text(encoding="utf-8")
    return [Block(found[1], found[2], text.count("\n", 0, found.start(2)) + 1) for found in _BLOCK.finditer(text)]
