"""Earlier names of options still work, and `--help` does not show them."""

from pathlib import Path

import click
import pytest

from cli import advbn_gen

CASES = [
    (("score",), ("--model", "m", "--data", "d=p"), ("--again",), "overwrite", True),
    (("evaluate",), ("--model", "m"), ("--again",), "overwrite", True),
    (
        ("report", "gap"),
        ("--original", "o", "--reconstructed", "r", "--advbn", "a", "--model", "m", "--out", "x"),
        ("--again",),
        "overwrite",
        True,
    ),
    (
        ("abnn", "attack"),
        ("--checkpoint", "c", "--attack", "pgd", "--data", "d"),
        ("--twin", "other"),
        "surrogate",
        Path("other"),
    ),
    (("abnn", "sanity"), ("--checkpoint", "c", "--data", "d"), ("--twin", "other"), "surrogate", Path("other")),
]
every_case = pytest.mark.parametrize(
    ("names", "words", "alias", "parameter", "value"), CASES, ids=[" ".join(case[0]) for case in CASES]
)


# A command keeps the help option of its first context; this one has the names that all commands have.
FRONT_DOOR = click.Context(advbn_gen, **advbn_gen.context_settings)


def command_of(names: tuple[str, ...]) -> click.Command:
    command: click.Command = advbn_gen
    for name in names:
        assert isinstance(command, click.Group)
        found = command.get_command(FRONT_DOOR, name)
        assert found is not None
        command = found
    return command


@every_case
def test_an_earlier_name_sets_the_same_parameter(
    names: tuple[str, ...], words: tuple[str, ...], alias: tuple[str, ...], parameter: str, value: object
) -> None:
    command = command_of(names)
    assert not command.make_context("x", [*words], parent=FRONT_DOOR).params[parameter]
    for option in (alias[0], f"--{parameter}"):
        assert command.make_context("x", [*words, option, *alias[1:]], parent=FRONT_DOOR).params[parameter] == value


@every_case
def test_help_shows_the_present_name_alone(
    names: tuple[str, ...], words: tuple[str, ...], alias: tuple[str, ...], parameter: str, value: object
) -> None:
    del words, value
    command = command_of(names)
    shown = command.get_help(click.Context(command, parent=FRONT_DOOR))
    assert f"--{parameter}" in shown
    assert alias[0] not in shown
