"""The documentation says what the code does."""

import importlib.util
import re
from pathlib import Path

import pytest

from cli import COMMANDS

ROOT = Path(__file__).parents[1]


def generated_page() -> str:
    spec = importlib.util.spec_from_file_location("generate_cli_page", ROOT / "docs/generate_cli_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text: str = module.page()
    return text


def test_the_cli_page_is_up_to_date() -> None:
    assert (ROOT / "docs/cli.md").read_text() == generated_page(), "run `make docs`"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented_with_an_example(command: str) -> None:
    section = generated_page().split(f"## advbn-gen {command}\n")[1].split("\n## ")[0]
    assert "Example" in section


def test_every_page_is_in_the_navigation_and_in_the_readme() -> None:
    navigation, readme = (ROOT / "mkdocs.yml").read_text(), (ROOT / "README.md").read_text()
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}
    assert {page for page in pages if f": {page}\n" not in navigation} == set()
    assert {page for page in pages if f"](docs/{page})" not in readme} == {"index.md", "cli.md"}


def test_the_glossary_has_one_meaning_for_each_word() -> None:
    rows = re.findall(
        r"^\| (?!word \|)([^|-][^|]*) \| ([^|]+) \|$", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE
    )
    words = [word for names, _ in rows for word in names.split(", ")]
    assert len(words) > 50
    assert len(set(words)) == len(words)


def test_every_module_that_pages_name_is_there() -> None:
    rooms = "|".join(path.parent.name for path in ROOT.glob("*/__init__.py"))
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        for name in re.findall(rf"`((?:{rooms}|benchmarks|tests|docs)/[\w/]+\.py)", page.read_text()):
            assert (ROOT / name).is_file(), f"{page.name} names {name}"
