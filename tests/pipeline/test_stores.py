"""Data sets in an object store: a real server that speaks S3, with faults."""

import hashlib
import json
import random
import re
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.cluster import cluster
from tests.pipeline.world import BATCH, NAME, World
from tests.processes import finish, start, wait_until
from tests.s3 import SECRET, S3Server
from tests.support import Outcome, advbn_gen

# Each takes a data set to a store, or several.
pytestmark = pytest.mark.slow

SHARDS = 6


@pytest.fixture(scope="module")
def world(world: World) -> World:
    return world.half()


@pytest.fixture(scope="module")
def finished(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same data set on a disk."""
    out = tmp_path_factory.mktemp("finished") / NAME
    done = world.make(out)
    assert done.code == 0, done.err
    return out


KEPT_NOWHERE = {"log.jsonl"}
"""Nothing can be appended in a store."""


@pytest.fixture
def out(s3: S3Server) -> str:
    """Address of a data set that is not there yet."""
    return s3.new_bucket() + "/sets/vgg"


def checksums(content: dict[str, bytes]) -> dict[str, str]:
    """SHA-256 of the files whose bytes do not depend on where they are: all but manifest and marks."""
    return {
        name: hashlib.sha256(value).hexdigest()
        for name, value in content.items()
        if not name.endswith("manifest.json") and not re.fullmatch(r"stats/\d+\.json", name)
    }


def on_disk(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in KEPT_NOWHERE)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def made(outcome: Outcome) -> int:
    assert outcome.code == 0, outcome.err
    return int(outcome.result["made"])


def test_the_bytes_are_those_of_a_disk(world: World, s3: S3Server, out: str, finished: Path) -> None:
    assert made(world.make(out, "--json")) == SHARDS
    stored = s3.files(out)
    assert checksums(stored) == checksums(on_disk(finished))
    assert stored.keys() == on_disk(finished).keys()
    for shard in range(SHARDS):
        on_disk_mark = json.loads((finished / f"stats/{shard:06d}.json").read_text())
        in_store = json.loads(stored[f"stats/{shard:06d}.json"])
        assert in_store["stored"] == on_disk_mark["md5"]  # the ETag of what was uploaded in one piece
        differing = {name for name in on_disk_mark if on_disk_mark[name] != in_store[name]}
        assert differing == {"stored", "sha256_of_the_rest"}
    assert SECRET.encode() not in b"".join(stored.values())


def test_the_mark_is_uploaded_last(world: World, s3: S3Server, out: str) -> None:
    world.make(out)
    puts = [path.partition("?")[0] for method, path in s3.requests if method == "PUT"]
    for shard in range(SHARDS):
        tar, rows, mark = (
            next(position for position, path in enumerate(puts) if path.endswith(name))
            for name in (f"{NAME}-val-{shard:06d}.tar", f"stats/{shard:06d}.h5", f"stats/{shard:06d}.json")
        )
        assert tar < rows < mark


def test_going_on_and_a_quick_check_download_no_shard(
    world: World, s3: S3Server, out: str, uploaded: dict[str, bytes]
) -> None:
    s3.put(out, uploaded)
    assert made(world.make(out, "--json")) == 0
    assert advbn_gen("verify", out, "--quick").code == 0
    assert s3.count("GET", r"\.tar") == 0
    assert advbn_gen("verify", out).code == 0
    assert s3.count("GET", r"\.tar") >= SHARDS


def test_what_is_lost_or_changed_is_found_and_made_again(
    world: World, s3: S3Server, out: str, finished: Path, uploaded: dict[str, bytes]
) -> None:
    s3.put(out, uploaded)
    whole = uploaded[f"{NAME}-val-000004.tar"]
    s3.client.delete_object(Bucket=out.split("/")[2], Key=f"sets/vgg/{NAME}-val-000003.tar")
    s3.put(out, {f"{NAME}-val-000004.tar": whole[:-1] + b"x"})
    outcome = advbn_gen("verify", out, "--quick", "--json")
    assert outcome.code == 1
    assert [text.partition(":")[0] for text in outcome.result["problems"]] == [
        f"{NAME}-val-00000{shard}.tar" for shard in (3, 4)
    ]
    assert made(world.make(out, "--json")) == 2
    assert checksums(s3.files(out)) == checksums(on_disk(finished))
    s3.put(out, {f"{NAME}-val-000005.tar": whole})
    assert advbn_gen("verify", out, "--repair").code == 0
    assert checksums(s3.files(out)) == checksums(on_disk(finished))


def test_errors_of_the_server_and_cut_uploads_are_got_over(
    world: World, s3: S3Server, out: str, finished: Path
) -> None:
    s3.fail("InternalError", method="PUT", path=r"000002\.tar", times=2)
    s3.fail("SlowDown", method="PUT", path=r"stats/000003\.json", times=2)
    s3.fail("InternalError", method="HEAD", path=r"000004\.tar", times=1)
    s3.cut_upload(500, path=r"000005\.tar", times=2)
    s3.cut_upload(100, path=r"perturbations\.h5")
    assert made(world.make(out, "--json")) == SHARDS
    assert s3.count("PUT", r"000002\.tar") >= 3
    assert s3.count("PUT", r"000005\.tar") >= 3
    assert checksums(s3.files(out)) == checksums(on_disk(finished))


def test_a_shard_of_real_size_goes_up_in_parts_with_faults(s3: S3Server, tmp_path: Path) -> None:
    """The published size, 1,568 images, is uploaded in several parts, each of which may fail."""
    from basics.files import commit
    from basics.paths import as_path

    (tmp_path / "shard.tar").write_bytes(random.Random(0).randbytes(110 * 2**20))
    out = s3.new_bucket() + "/sets"
    s3.cut_upload(10_000_000, path="partNumber=2", times=2)
    s3.fail("InternalError", method="PUT", path="partNumber=3", times=2)
    commit(tmp_path / "shard.tar", as_path(f"{out}/shard.tar"))
    assert s3.count("PUT", "partNumber=[23]") >= 6
    assert s3.files(out) == {"shard.tar": (tmp_path / "shard.tar").read_bytes()}
    s3.fail("ExpiredToken", method="PUT", path="partNumber=3", times=10_000)
    with pytest.raises(PermissionError, match="credentials have expired"):
        commit(tmp_path / "shard.tar", as_path(f"{out}/again.tar"))
    assert s3.files(out).keys() == {"shard.tar"}
    assert "Uploads" not in s3.client.list_multipart_uploads(Bucket=out.split("/")[2]), "half a file is paid for"


def test_expired_credentials_end_the_run_and_new_ones_go_on(
    world: World, s3: S3Server, out: str, finished: Path
) -> None:
    s3.fail("ExpiredToken", method="PUT", path=r"00000[4-9]|00001[01]", times=10_000)
    failed = world.make(out)
    assert failed.code == 1
    assert "credentials have expired" in failed.err
    assert SECRET not in failed.err
    assert "Traceback" not in failed.err
    s3.recover()
    assert made(world.make(out, "--json")) == SHARDS - 4
    assert checksums(s3.files(out)) == checksums(on_disk(finished))


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidAccessKeyId"])
def test_an_address_that_cannot_be_written_is_reported_first(world: World, s3: S3Server, out: str, code: str) -> None:
    s3.fail(code, times=10_000)
    refused = world.make(out)
    assert refused.code == 2, refused.err
    assert "credentials" in refused.err
    assert SECRET not in refused.err


@pytest.mark.usefixtures("s3")
def test_a_missing_bucket_is_reported_before_work(world: World) -> None:
    refused = world.make("s3://no-such-bucket/x")
    assert refused.code == 2, refused.err
    assert "bucket" in refused.err


def test_another_run_is_refused_and_a_user_s_files_are_left_alone(
    world: World, s3: S3Server, out: str, uploaded: dict[str, bytes]
) -> None:
    s3.put(out, {"mine.txt": b"mine"})
    assert "not this data set's" in world.make(out).err
    assert s3.files(out) == {"mine.txt": b"mine"}
    other = s3.put(s3.new_bucket() + "/other", uploaded)
    refused = world.make(other, eps=0.5)
    assert (refused.code, "attack.eps: 1.1 -> 0.5" in refused.err) == (2, True)
    assert s3.files(other) == uploaded
    s3.put(other, {"mine.txt": b"mine"})
    assert world.make(other, "--overwrite", eps=0.5).code == 0
    assert s3.files(other)["mine.txt"] == b"mine"
    assert advbn_gen("info", other, "--json").result["identity"]["attack"]["eps"] == 0.5


def test_two_clients_on_one_output_end_in_the_same_bytes(
    world: World,
    s3: S3Server,
    out: str,
    finished: Path,
) -> None:
    clients = [start(*world.words(out)) for _ in range(2)]
    codes = [finish(client) for client in clients]
    assert {code for code, _, _ in codes} <= {0, 2}, codes
    assert 0 in {code for code, _, _ in codes}
    assert checksums(s3.files(out)) == checksums(on_disk(finished))
    assert advbn_gen("verify", out).code == 0


def test_of_two_clients_with_other_settings_one_is_refused(world: World, out: str) -> None:
    """Both find the folder empty; the first manifest decides."""
    met = threading.Barrier(2, timeout=60)
    outcomes: list[str] = []
    from pipeline.dataset.manifest import write_manifest

    def together(*words: object) -> None:
        if words[-1] is None:
            met.wait()
        write_manifest(*words)  # type: ignore[arg-type]

    def run(eps: float) -> None:
        from attacks.statistics import AdvBNConfig
        from basics.errors import UserError
        from basics.paths import as_path
        from pipeline.config import GenerationConfig
        from pipeline.job import prepare, products_of
        from pipeline.run import run as make

        config = GenerationConfig(
            encoder="vgg", source=str(world.source), autoencoder=str(world.autoencoder), image_size=16, device="cpu",
            classifier_weights=str(world.classifier), batch_size=BATCH, batches_per_shard=1, limit=world.images,
            attack=AdvBNConfig(eps=eps, steps=2), threads=1,
        )  # fmt: skip
        try:
            make(prepare(config, products_of(config, as_path(out), NAME)))
            outcomes.append(f"made {eps}")
        except UserError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=run, args=(eps,)) for eps in (1.1, 0.5)]
    with mock.patch("pipeline.claim.write_manifest", together):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    made_by = [text for text in outcomes if text.startswith("made")]
    assert len(made_by) == 1, outcomes
    assert any("Another run is writing" in text for text in outcomes)
    assert advbn_gen("verify", out).code == 0
    assert advbn_gen("info", out, "--json").result["identity"]["attack"]["eps"] == float(made_by[0].split()[1])


@pytest.mark.parametrize("gone", [True, False])
def test_the_probe_of_another_client_is_no_obstacle(world: World, out: str, gone: bool) -> None:
    """A client tries whether it may write; another may see that file, or see it go."""
    from basics.paths import as_path
    from pipeline import claim

    check_owner, probe = claim._check_owner, as_path(out) / "working-0760ca90ba37de19.tmp"
    probe.write_bytes(b"")

    def look(*words: Any, **options: Any) -> None:
        if gone:
            probe.unlink()
        check_owner(*words, **options)

    with mock.patch("pipeline.claim._check_owner", look):
        assert made(world.make(out, "--json")) == SHARDS


def test_workers_write_to_a_store_with_faults(
    world: World, s3: S3Server, out: str, tmp_path: Path, finished: Path
) -> None:
    s3.fail("InternalError", method="PUT", path=r"\.tar", times=5)
    s3.cut_upload(500, path=r"stats/000007\.h5", times=2)
    source = s3.upload(world.source, s3.new_bucket() + "/images")
    with cluster(tmp_path, 2) as started:
        assert wait_until(lambda: started.logs().count("Register worker") == 2, started.scheduler)
        code, _, stderr = finish(start(*world.words(out, scheduler=started.address, source=source)))
    assert code == 0, stderr + started.logs()
    assert checksums(s3.files(out)) == checksums(on_disk(finished))
    assert SECRET not in stderr + started.logs()
