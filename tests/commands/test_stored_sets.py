"""Data sets in an object store, scored, evaluated and reported on where they are."""

import json
import re
from pathlib import Path

import pytest

from tests.s3 import S3Server
from tests.shifted import CLASSES, corrupted
from tests.support import advbn_gen, refused, tiny_classifier
from tests.trio import Trio


@pytest.fixture
def stored(trio: Trio, s3: S3Server) -> Trio:
    """Reconstructions and AdvBN versions in a bucket; the originals are on the disk."""
    bucket = s3.new_bucket()
    addresses = {name: s3.upload(getattr(trio, name), f"{bucket}/{name}") for name in ("advbn", "reconstructed")}
    return Trio(**vars(trio) | addresses)


@pytest.mark.slow
def test_the_report_is_that_of_a_disk(trio: Trio, stored: Trio, s3: S3Server, tmp_path: Path) -> None:
    local, remote = (advbn_gen(*each.words(tmp_path / name, "--json")) for each, name in ((trio, "h"), (stored, "t")))
    assert (local.code, remote.code) == (0, 0), remote.err
    for before, after in zip(local.result["rows"], remote.result["rows"], strict=True):
        assert {name for name in after if after[name] != before[name]} <= {"data_address"}
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in "ht"]
    assert reports[0]["gaps"] == reports[1]["gaps"]
    read = [path for method, path in s3.requests if method == "GET" and re.search(r"advbn/.*000003\.tar", path)]
    assert read  # through the network, not from a copy


@pytest.mark.slow
def test_a_damaged_shard_is_found_without_reading_it(stored: Trio, s3: S3Server, tmp_path: Path) -> None:
    name, content = next((name, value) for name, value in s3.files(str(stored.advbn)).items() if "000003.tar" in name)
    s3.put(str(stored.advbn), {name: content[:-1]})
    message = refused("score", "--model", stored.attacked, "--data", f"a={stored.advbn}", "--out", tmp_path / "out")
    assert re.search(r"is damaged \(.*000003\.tar: the checksum is not the one recorded", message)
    assert not [path for method, path in s3.requests if method == "GET" and ".tar" in path]


@pytest.mark.slow
def test_a_store_that_does_not_answer_is_no_other_kind_of_source(
    stored: Trio, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("basics.remote.RESPONSE_TIMEOUT", 2.0)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3.fail("SlowDown", path="manifest", times=1000)
    message = refused("score", "--model", stored.attacked, "--data", f"a={stored.advbn}", "--out", tmp_path / "out")
    assert "cannot be reached" in message


@pytest.mark.slow
def test_a_test_set_in_a_store(s3: S3Server, tmp_path: Path) -> None:
    folder = corrupted(tmp_path / "c", corruptions=("fog", "snow"), severities=(1, 2))
    address = s3.upload(folder, s3.new_bucket() + "/c")
    model = tiny_classifier(tmp_path / "three.safetensors", len(CLASSES))
    words = ["evaluate", "--model", model, "--device", "cpu", "--json"]
    local, remote = (
        advbn_gen(*words, "--imagenet-c", address_or_folder, "--out", tmp_path / name)
        for name, address_or_folder in (("h", folder), ("t", address))
    )
    assert (local.code, remote.code) == (0, 0), remote.err
    results = [
        [(row["data"], row["n"], row["top1"]) for row in map(json.loads, text.splitlines())]
        for text in ((tmp_path / name / "results.jsonl").read_text() for name in "ht")
    ]
    assert results[0] == results[1]
    assert len(results[0]) == 5  # four subsets and their mean


def test_a_test_set_that_is_not_there(trio: Trio, s3: S3Server) -> None:
    message = refused("evaluate", "--model", trio.attacked, "--imagenet-c", s3.new_bucket() + "/nothing")
    assert "is not an existing folder" in message
