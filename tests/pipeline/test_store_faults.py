"""Faults of an object store say nothing about its content: nothing is lost, and the fault is reported."""

import json
from pathlib import Path
from typing import Any

import pytest

from basics.files import commit
from basics.remote import file_system
from pipeline import shard as making
from tests.pipeline.world import NAME, World
from tests.s3 import SECRET, S3Server
from tests.support import advbn_gen

# Each takes a data set to a store, or several.
pytestmark = pytest.mark.slow

SHARDS = 6


@pytest.fixture(scope="module")
def world(world: World) -> World:
    return world.half()


EXPIRED = "credentials have expired"
LEDGER = "perturbations.h5"


@pytest.fixture
def out(s3: S3Server, uploaded: dict[str, bytes]) -> str:
    """Address of a copy of the finished data set."""
    return s3.put(s3.new_bucket() + "/sets/vgg", uploaded)


def test_expired_credentials_are_reported_by_every_command(
    world: World, s3: S3Server, out: str, tmp_path: Path
) -> None:
    s3.fail("ExpiredToken", times=10_000)
    rendering = ["--source", world.source, "--autoencoder", world.autoencoder, "--out", tmp_path / "rendered"]
    for words in (
        world.words(out),
        ["verify", out],
        ["export", out, tmp_path / "exported"],
        ["info", out],
        ["info", f"{out}/{LEDGER}"],
        ["render", f"{out}/{LEDGER}", *rendering],
        ["score", "--model", world.classifier, "--data", f"a={out}", "--out", tmp_path / "scores"],
    ):
        outcome = advbn_gen(*words)
        assert outcome.code == 2, outcome
        assert EXPIRED in outcome.err
        assert SECRET not in outcome.err
        assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("code", "path"),
    [("ExpiredToken", r"\.tar"), ("AccessDenied", r"000003\.tar"), ("AccessDenied", r"stats/000003\.h5"),
     ("AccessDenied", r"stats/000003\.json"), ("ExpiredToken", r"perturbations"), ("ExpiredToken", r"wids")],
)  # fmt: skip
@pytest.mark.parametrize("quick", [True, False])
def test_what_cannot_be_read_is_not_taken_for_lost(
    s3: S3Server, out: str, uploaded: dict[str, bytes], code: str, path: str, quick: bool
) -> None:
    """Or a repair would take the marks off sound shards."""
    s3.fail(code, method="GET|HEAD", path=path, times=10_000)
    outcome = advbn_gen("verify", out, "--repair", *(["--quick"] if quick else []))
    assert outcome.code == 1
    assert "could not be checked to the end" in outcome.err
    assert "missing" not in outcome.err
    s3.recover()
    assert s3.files(out) == uploaded
    assert advbn_gen("verify", out, "--quick").code == 0


def test_a_mark_that_is_not_given_out_changes_nothing(
    world: World, s3: S3Server, out: str, uploaded: dict[str, bytes]
) -> None:
    s3.fail("AccessDenied", method="GET", path=r"stats/000003\.json", times=10_000)
    outcome = world.make(out)
    assert (outcome.code, "access is denied" in outcome.err) == (1, True)
    s3.recover()
    assert s3.files(out) == uploaded


def test_a_quick_check_compares_rows_of_the_ledger_too(s3: S3Server, out: str) -> None:
    s3.put(out, {"stats/000004.h5": b"x"})
    outcome = advbn_gen("verify", out, "--quick", "--json")
    assert [text.partition(":")[0] for text in outcome.result["problems"]] == ["000004.h5"]
    assert s3.count("GET", r"\.tar") == 0


def test_a_run_that_is_overtaken_stops_and_harms_nothing(
    world: World, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first works, a second starts anew in its folder with --overwrite, and ends."""
    address, finish = s3.new_bucket() + "/sets/vgg", making._finish
    second: list[int] = []

    def overtaken(dataset: Any, plan: Any, *more: Any) -> None:
        if plan.shard == 3 and not second:
            second.append(0)
            second[0] = world.make(address, "--overwrite", eps=0.5).code
        finish(dataset, plan, *more)

    monkeypatch.setattr(making, "_finish", overtaken)
    first = world.make(address)
    assert (first.code, "Another run is writing" in first.err, second) == (2, True, [0])
    assert s3.count("PUT", r"000004\.tar") == 1, "the first gave up at once"
    assert advbn_gen("verify", address).code == 0
    assert advbn_gen("info", address, "--json").result["identity"]["attack"]["eps"] == 0.5


def test_what_an_overtaken_run_uploads_last_is_noticed(
    world: World, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its last look and the end of an upload there is time for another to begin and to end."""
    address = s3.new_bucket() + "/sets/vgg"

    def slow(temporary: Any, path: Any) -> None:
        commit(temporary, path)
        if path.name.endswith("000005.json"):
            s3.put(address, {f"{NAME}-val-000002.tar": b"of the first run"})

    monkeypatch.setattr(making, "commit", slow)
    outcome = world.make(address)
    assert (outcome.code, "shard 2: it was removed or changed" in outcome.err) == (1, True)
    monkeypatch.undo()
    again = world.make(address, "--json")
    assert (again.code, again.result["made"]) == (0, 1)
    assert advbn_gen("verify", address).code == 0


def test_without_checksums_of_the_store_shards_are_read_when_a_run_goes_on(world: World) -> None:
    from basics.paths import as_path, is_remote

    folder = as_path("memory://no-checksums/vgg")
    assert is_remote(folder)
    assert world.make(str(folder)).code == 0
    tar = folder / f"{NAME}-val-000004.tar"
    content = tar.read_bytes()
    assert json.loads((folder / "stats/000004.json").read_text())["stored"] == ""
    file_system(tar).pipe_file(tar.path, content[:-1] + b"x")
    again = world.make(str(folder), "--json")
    assert (again.code, again.result["made"], again.result["shards"]) == (0, 1, SHARDS)
    assert tar.read_bytes() == content
