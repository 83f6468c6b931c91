"""The front door: help, exit codes, what is imported when."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

import cli
from basics.errors import UserError, WorkError
from cli import COMMANDS
from cli import advbn_gen as advbn_gen_group
from tests.processes import environment
from tests.support import Outcome, advbn_gen, refused

HEAVY = {
    "torch",
    "torchvision",
    "numpy",
    "h5py",
    "distributed",
    "dask",
    "webdataset",
    "lightning_fabric",
    "PIL",
    "matplotlib",
}


def imported_by(*words: str) -> set[str]:
    """Top-level modules that a real process has imported at its end."""
    code = (
        "import sys, atexit; sys.argv = ['advbn-gen', *sys.argv[1:]]\n"
        "atexit.register(lambda: print('MODULES', *{name.split('.')[0] for name in sys.modules}))\n"
        "import cli; cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment(), check=True
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("words", [("--help",), ("imagenet-advbn", "--help"), ("--version",)])
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    found = imported_by(*words)
    assert "click" in found
    assert not found & HEAVY


def test_help_lists_every_command() -> None:
    outcome = advbn_gen("--help")
    assert outcome.code == 0
    for name in COMMANDS:
        assert f"  {name} " in outcome.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    outcome = advbn_gen(command, "--help")
    assert outcome.code == 0
    assert "Example" in outcome.out
    assert f"advbn-gen {command}" in outcome.out.split("Example")[1]


def test_every_long_command_prints_json_on_request() -> None:
    for name in COMMANDS:
        command = advbn_gen_group.get_command(click.Context(advbn_gen_group), name)
        inner = list(command.commands) if isinstance(command, click.Group) else [None]
        for word in inner:
            words = [name] if word is None else [name, word]
            assert "--json" in advbn_gen(*words, "--help").out, words


def test_the_version_is_the_packages() -> None:
    from importlib.metadata import version

    assert version("advbn-gen") in advbn_gen("--version").out


def test_an_unknown_command_is_refused() -> None:
    assert "'generate'" in refused("generate")


def test_a_missing_option_is_refused() -> None:
    assert "--encoder" in refused("imagenet-advbn")


def test_the_module_of_each_command_exists() -> None:
    for place in COMMANDS.values():
        module = place.split(":")[0]
        assert (Path(cli.__file__).parent / module.replace(".", "/")).with_suffix(".py").is_file(), place


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """What becomes of an error inside a command."""

    @click.command()
    def fails() -> None:
        raise error

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *_: fails)
    return advbn_gen("info")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "the same command goes on"),
        (click.exceptions.Abort(), 130, "the same command goes on"),
        (UserError("The size is odd."), 2, "Error: The size is odd."),
        (WorkError("One shard failed."), 1, "Failed: One shard failed."),
    ],
)
def test_each_kind_of_end_has_its_exit_code(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = raising(error, monkeypatch)
    assert outcome.code == code
    assert said in outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        raising(ZeroDivisionError(), monkeypatch)
