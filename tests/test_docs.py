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


def test_every_module_that_pages_name_is_there() -> None:
    rooms = "|".join(path.parent.name for path in ROOT.glob("*/__init__.py"))
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        for name in re.findall(rf"`((?:{rooms}|benchmarks|tests|docs)/[\w/]+\.py)", page.read_text()):
            assert (ROOT / name).is_file(), f"{page.name} names {name}"
