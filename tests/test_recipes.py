"""The shell recipes of docs/experiments: every command in them is one that the program takes."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cli import advbn_gen

ROOT = Path(__file__).parents[1]
RECIPES = sorted(path.name for path in (ROOT / "docs/experiments").glob("*.sh"))


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def commands_of(recipe: str, folder: Path) -> list[list[str]]:
    """Run a recipe with programs that only write down how they are called."""
    tools, log = folder / "bin", folder / "log"
    tools.mkdir()
    program(tools / "advbn-gen", f'printf "%s\\n" advbn-gen "$@" "" >> {log}')
    # The modules are looked for from the recipe's own folder, as the real program would.
    look = f'{sys.executable} -c "import importlib.util, sys; assert importlib.util.find_spec(sys.argv[1])"'
    program(
        tools / "python",
        f'{look} "$2" || exit 3; printf "%s\\n" python "$@" "" >> {log}; mkdir -p shifted.tmp; echo 0.01',
    )
    for number in range(20):
        for split in ("train", "val"):
            image = folder / f"my images/{split}/n01440764/{number}.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            image.touch()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{tools}:{environment['PATH']}"
    work = folder / "work"
    work.mkdir()
    subprocess.run(
        ["bash", ROOT / "docs/experiments" / recipe, folder / "my images", folder / "my others"], cwd=work, check=True,
        env=environment, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return [block.split("\n") for block in log.read_text().rstrip("\n").split("\n\n")]


def parse(words: list[str]) -> None:
    """Let click parse a command to its end, and not call it.

    Raises:
        click.UsageError: there is no such command or option, or a value is of another kind.
    """
    command: click.Command = advbn_gen
    # With the group's own settings: a command keeps the help option that it is first asked for.
    context = click.Context(command, info_name="advbn-gen", **command.context_settings)
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = found, click.Context(found, info_name=name, parent=context)
    command.make_context(context.info_name, list(words), parent=context.parent)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_command_of_a_recipe_is_taken(recipe: str, tmp_path: Path) -> None:
    commands = commands_of(recipe, tmp_path)
    ours = [words for name, *words in commands if name == "advbn-gen"]
    assert len(ours) > 4
    for words in ours:
        parse(words)
    for words in ours:
        assert not any(word in {"images/train", "others"} for word in words), "a path with a space was split"


def test_every_system_of_the_status_page_has_a_full_scale_command() -> None:
    text = (ROOT / "docs/experiments/status.md").read_text()
    systems = {int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    with_command: set[int] = set()
    for comment in re.findall(r"^# (\d.*)\nadvbn-gen ", text, re.MULTILINE):
        numbers = [int(number) for number in re.findall(r"\d+", comment.partition(":")[0])]
        with_command.update(range(numbers[0], numbers[-1] + 1))
    assert len(systems) > 20
    assert systems == with_command


def test_images_that_a_choice_is_made_on_are_not_trained_on(tmp_path: Path) -> None:
    commands_of("finetuning.sh", tmp_path)
    train, chosen_on = (
        {path.name for path in (tmp_path / "work/part" / name).rglob("*.jpg")} for name in ("train", "chosen-on")
    )
    assert (len(train), len(chosen_on)) == (18, 2)
    assert train.isdisjoint(chosen_on)


def test_a_recipe_with_an_unknown_option_would_be_found() -> None:
    with pytest.raises(click.UsageError, match="nowhere"):
        parse(["abnn", "train", "--nowhere", "x"])
