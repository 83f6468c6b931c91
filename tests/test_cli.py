"""The command line as a whole: help, exit codes, what is imported when."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

import cli
from basics.errors import UserError, WorkError
from cli import COMMANDS
from cli import advbn_gen as advbn_gen_group
from tests.processes import ROOT, environment, finish, start, wait_until
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
    "rich",
    "fsspec",
    "upath",
    "asyncio",
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


def run_with_path(*folders: Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run `advbn-gen --help` as an installed command does, from `cwd`, with these folders first on the path."""
    paths = os.pathsep.join(map(str, (*folders, ROOT)))
    return subprocess.run(
        [sys.executable, "-P", "-m", "cli", "--help"],
        capture_output=True, text=True, check=False, cwd=cwd, env=environment() | {"PYTHONPATH": paths},
    )  # fmt: skip


def test_the_guard_knows_every_package_of_the_project() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert set(cli.PACKAGES) == packages - {"tests", "benchmarks"}
    # A type checker sees into installed packages with `py.typed`, but never into single modules.
    assert [path.stem for path in ROOT.glob("*.py")] == ["cli"]


@pytest.mark.parametrize("name", ["pipeline/__init__.py", "basics/__init__.py", "reports.py"])
def test_a_foreign_package_of_the_same_name_is_named_with_the_mend(name: str, tmp_path: Path) -> None:
    foreign = tmp_path / "other project" / name
    foreign.parent.mkdir(parents=True)
    foreign.write_text("raise AssertionError('imported')")
    done = run_with_path(tmp_path / "other project", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: The package ")
    assert done.stderr.count("\n") == 1
    assert str(foreign) in done.stderr
    assert "environment of its own" in done.stderr


def test_folders_with_names_of_packages_do_no_harm(tmp_path: Path) -> None:
    """Data lies in folders such as `sources/`, which Python takes for packages where there is no other."""
    for name in cli.PACKAGES:
        (tmp_path / name).mkdir()
    done = run_with_path(tmp_path, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_folder_does_not_hide_the_packages_of_an_editable_install(tmp_path: Path) -> None:
    """Such an install is a finder that comes after sys.path, in which the current folder may stand."""
    (tmp_path / "sources").mkdir()
    code = (
        "import importlib.machinery, importlib.util, sys\n"
        "class Finder:\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        file = {str(ROOT)!r} + ('/cli.py' if name == 'cli' else f'/{{name}}/__init__.py')\n"
        "        ours = name in ('cli', 'basics', 'sources')\n"
        "        return importlib.util.spec_from_file_location(name, file) if ours else None\n"
        "sys.meta_path.insert(sys.meta_path.index(importlib.machinery.PathFinder) + 1, Finder)\n"
        "import cli\n"
        "assert importlib.util.find_spec('sources').origin is None\n"
        "assert cli.foreign_package() is None\n"
        "import sources.base\n"
    )
    paths = os.pathsep.join(path for path in sys.path if path and Path(path) != ROOT)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_package_that_is_missing_is_named(tmp_path: Path) -> None:
    shutil.copy(ROOT / "cli.py", tmp_path)
    (tmp_path / "basics").mkdir()
    (tmp_path / "basics/__init__.py").touch()
    (tmp_path / "click").symlink_to(Path(click.__file__).parent)
    # Without site-packages, in which advbn-gen may be installed whole.
    done = subprocess.run(
        [sys.executable, "-S", "-m", "cli", "--help"],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: The package sources is missing beside ")


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

    expected = rf"advbn-gen {version('advbn-gen')} \(data format \d+, revision \d+ of the arithmetic\)\n"
    assert re.fullmatch(expected, advbn_gen("--version").out)


def test_a_machine_is_described_for_reports_of_faults() -> None:
    found = advbn_gen("info", "--system", "--json").result
    assert found["packages"]["torch"].startswith("2.")
    assert found["cores"] >= 1
    assert found["auto"]["precision"] in {"fp32", "tf32"}
    assert "OMP_WAIT_POLICY" in found["environment"]


@pytest.mark.parametrize("words", [(), ("somewhere", "--system")])
def test_either_a_path_or_the_machine_is_described(words: tuple[str, ...]) -> None:
    assert "Give either the path of what is to be described, or --system." in refused("info", *words)


def test_an_unknown_command_is_refused() -> None:
    assert "'generate'" in refused("generate")


def test_a_missing_option_is_refused() -> None:
    assert "--encoder" in refused("imagenet-advbn")


def test_the_module_of_each_command_exists() -> None:
    for command in COMMANDS.values():
        module = command.split(":")[0]
        assert (Path(cli.__file__).parent / module.replace(".", "/")).with_suffix(".py").is_file(), command


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """What becomes of an error inside a command."""

    @click.command()
    def fails() -> None:
        raise error

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *_: fails)
    return advbn_gen("info")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "the same command goes on"),
        (click.exceptions.Abort(), 130, "the same command goes on"),
        (UserError("The size is odd."), 2, "Error: The size is odd."),
        (WorkError("One shard failed."), 1, "Failed: One shard failed."),
    ],
)
def test_each_kind_of_end_has_its_exit_code(
    error: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = raising(error, monkeypatch)
    assert outcome.code == code
    assert message in outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        raising(ZeroDivisionError(), monkeypatch)


@pytest.mark.slow
def test_sample_data_writes_every_set_and_says_how_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sources.drawn import shifts
    from sources.drawn import source as drawn

    for split, count in (("train", 2), ("val", 1)):
        monkeypatch.setitem(drawn.PER_CLASS, split, count)
    monkeypatch.setitem(shifts.MOST_PER_CLASS, "imagenet-sketch", 1)
    outcome = advbn_gen("sample-data", tmp_path / "w", "--size", 16, "--json")
    assert outcome.code == 0
    expected = {
        "train": 24,
        "val": 12,
        "imagenet-c": 900,
        "imagenet-instagram": 240,
        "imagenet-sketch": 12,
        "imagenet-style": 12,
        "cue-conflict": 144,
    }
    assert outcome.result == {"out": str(tmp_path / "w"), **expected}
    assert {name: len(list((tmp_path / "w" / name).rglob("*.png"))) for name in expected} == expected
    assert "1344/1344 images" in outcome.err
    again = advbn_gen("sample-data", tmp_path / "w", "--size", 16)
    assert again.code == 0
    lines = [f"{name}: {count} images" for name, count in expected.items()]
    assert again.out.splitlines() == [*lines, str(tmp_path / "w")]
    assert "another seed or size" in refused("sample-data", tmp_path / "w", "--size", 16, "--seed", 1)


@pytest.mark.slow
def test_sample_data_draws_clips_as_a_data_set_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sources.drawn import clips

    for split in clips.CLIPS_PER_CLASS:
        monkeypatch.setitem(clips.CLIPS_PER_CLASS, split, 1)
    monkeypatch.setattr(clips, "CLIP_FRAMES", 2)
    outcome = advbn_gen("sample-data", tmp_path / "w", "--clips", "--size", 16)
    assert outcome.code == 0
    assert outcome.out.splitlines() == ["clips: 16 clips", "clips-pretraining: 16 clips", str(tmp_path / "w")]
    assert "32/32 clips" in outcome.err
    assert len(list((tmp_path / "w" / "clips" / "test").rglob("*.avi"))) == 8


@pytest.mark.parametrize(("options", "message"), [(("--size", 8), "at least 16"), (("--seed", -1), "negative")])
def test_sample_data_refuses_what_cannot_be_drawn(options: tuple[object, ...], message: str, tmp_path: Path) -> None:
    assert message in refused("sample-data", tmp_path / "w", *options)
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_sample_data_stops_at_once_and_leaves_whole_images(tmp_path: Path) -> None:
    process = start("sample-data", tmp_path / "w", "--size", 16)
    assert wait_until((tmp_path / "w/train/bolt/bolt-train-0050.png").exists, process)
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert (code, out) == (130, "")
    assert "the same command goes on" in err
    there = list((tmp_path / "w").rglob("*.png"))
    assert 200 < len(there) < 15312
    assert not list((tmp_path / "w").rglob("*.tmp"))
    assert all(path.read_bytes().endswith(b"IEND\xaeB`\x82") for path in there)


@pytest.mark.slow
def test_a_path_that_the_locale_cannot_read_is_refused_with_the_mend(tmp_path: Path) -> None:
    """It would end in a traceback where the path is written to a manifest."""
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = [sys.executable, "-m", "cli", "info", str(tmp_path / "Straße")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment(**ascii_only))
    assert done.returncode == 2
    assert done.stderr.startswith("Error: A path of this command is not ascii (")
    assert done.stderr.endswith("set PYTHONUTF8=1 or another locale, such as LC_ALL=C.UTF-8.\n")
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment(PYTHONUTF8="1"))
    assert "Straße" in done.stderr, "with the mend the path is read"
