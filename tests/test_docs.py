"""The documentation says what the code does."""

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

from cli import COMMANDS
from docs import generate_cli_page, generate_reference_page
from tests.pages.blocks import blocks_of, name_of, pages
from tests.test_recipes import parse, program

ROOT = Path(__file__).parents[1]


def test_the_cli_page_is_up_to_date() -> None:
    assert (ROOT / "docs/cli.md").read_text() == generate_cli_page.page(), "run `make docs`"


def test_the_python_reference_is_up_to_date() -> None:
    assert (ROOT / "docs/reference.md").read_text() == generate_reference_page.page(), "run `make docs`"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented_with_an_example(command: str) -> None:
    section = generate_cli_page.page().split(f"## advbn-gen {command}\n")[1].split("\n## ")[0]
    assert "Example" in section


def test_every_page_is_in_the_navigation_and_in_the_readme() -> None:
    navigation, readme = (ROOT / "mkdocs.yml").read_text(), (ROOT / "README.md").read_text()
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}
    assert {page for page in pages if f": {page}\n" not in navigation} == set()
    # The README leads to the status page, and that to the pages of the papers' tables.
    tables = {page for page in pages if re.fullmatch(r"experiments/\w+-table-\d\.md", page)}
    status = (ROOT / "docs/experiments/status.md").read_text()
    assert len(tables) == 9
    assert {page for page in tables if f"]({Path(page).name})" not in status} == set()
    assert {page for page in pages - tables if f"](docs/{page})" not in readme} == {"index.md", "cli.md"}


def test_the_glossary_has_one_meaning_for_each_word() -> None:
    rows = re.findall(
        r"^\| (?!word \|)([^|-][^|]*) \| ([^|]+) \|$", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE
    )
    words = [word for names, _ in rows for word in names.split(", ")]
    assert len(words) > 50
    assert len(set(words)) == len(words)


def test_every_module_that_pages_name_is_there() -> None:
    packages = "|".join(path.parent.name for path in ROOT.glob("*/__init__.py"))
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")):
        for name in re.findall(rf"`((?:{packages}|benchmarks|tests|docs)/[\w/]+\.py)", page.read_text()):
            assert (ROOT / name).is_file(), f"{page.name} names {name}"


def commands_of(page: Path, tools: Path) -> list[list[str]]:
    """Words of each `advbn-gen` and `python` command in a page's blocks, as bash calls them: loops and all.

    The blocks are given to bash with stand-ins for the two programs, which write down their words. There are no others,
    so that nothing else that stands in a block is carried out.
    """
    log = tools / "log"
    for name in ("advbn-gen", "python"):
        program(tools / name, f'printf "%s\\n" {name} "$@" "" >> {log}')
    (tools / "bash").symlink_to("/bin/bash")
    for block in blocks_of(page):
        if block.language == "bash" and ("advbn-gen " in block.code or "-m benchmarks." in block.code):
            words = [str(tools / "bash"), "-c", block.code]
            subprocess.run(words, env={"PATH": str(tools)}, cwd=tools, check=False, capture_output=True)
    return [each.split("\n") for each in log.read_text().rstrip("\n").split("\n\n")] if log.exists() else []


# Those of the other pages are run, in small (tests/pages).
@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in pages() if name_of(page).startswith("experiments/")], ids=name_of)
def test_every_command_of_a_page_of_results_is_taken(page: Path, tmp_path: Path) -> None:
    commands = commands_of(page, tmp_path)
    # What bash cannot read would not be looked at.
    expected = [line for block in blocks_of(page) for line in block.code.splitlines() if line.startswith("advbn-gen ")]
    assert len(commands) >= len(expected)
    for name, *words in commands:
        if name == "advbn-gen":
            parse(words)
        elif words[:1] == ["-m"]:
            assert importlib.util.find_spec(words[1]), f"{page.name} names {words[1]}"


def test_every_block_with_a_command_is_marked_as_code() -> None:
    """Blocks of other kinds are not run."""
    for page in pages():
        for language, code in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            assert language, f"a block of {page.name} has no language"
            if language not in {"bash", "python"}:
                assert not re.search(r"^(advbn-gen|pip|python3?|make|bash|dask) ", code, re.MULTILINE), code
