"""`advbn-gen render` on Dask workers, and with ledger and output in an object store."""

import shutil
from pathlib import Path

import pytest

from tests.cluster import cluster
from tests.pipeline.world import NAME, SHARDS, World, without_addresses
from tests.processes import finish, start
from tests.s3 import S3Server
from tests.support import advbn_gen, folder_bytes

LEDGER = "perturbations.h5"


def words(ledger: object, world: World, out: object, *more: object) -> list[object]:
    return [
        "render", ledger, "--source", world.source, "--autoencoder", world.autoencoder, "--out", out, "--json", *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_from_a_store_and_to_it(world: World, s3: S3Server, finished: Path) -> None:
    bucket = s3.new_bucket()
    published = s3.upload(finished, f"{bucket}/published")
    s3.recover()
    done = advbn_gen(*words(f"{published}/{LEDGER}", world, f"{bucket}/again"))
    assert done.code == 0, done.err
    assert (done.result["made"], done.result["bytes_equal"]) == (SHARDS, True)
    before, after = s3.files(published), s3.files(f"{bucket}/again")
    tars = {name for name in before if name.endswith(".tar")}
    assert len(tars) == SHARDS
    assert all(after[name] == before[name] for name in (*tars, LEDGER))
    assert s3.count("GET", r"published/.*\.tar") == 0
    assert advbn_gen("verify", f"{bucket}/again").code == 0


@pytest.mark.slow
def test_the_ledger_is_not_overwritten_in_a_store(world: World, s3: S3Server, finished: Path) -> None:
    published = s3.upload(finished, s3.new_bucket() + "/published")
    refused = advbn_gen(*words(f"{published}/{LEDGER}", world, published, "--overwrite"))
    assert (refused.code, "which --overwrite would empty" in refused.err) == (2, True)


@pytest.mark.slow
def test_on_workers_of_this_machine_and_of_a_scheduler(world: World, tmp_path: Path, finished: Path) -> None:
    ledger = shutil.copy(finished / LEDGER, tmp_path / "published.h5")
    with cluster(tmp_path, 2) as started:
        runs = {
            name: finish(start(*words(ledger, world, tmp_path / name / NAME, *more)))
            for name, more in (("local", ("--workers", 2)), ("remote", ("--scheduler", started.address)))
        }
        assert len([line for line in started.logs().splitlines() if "Register worker addr" in line]) == 2
    for name, (code, _, stderr) in runs.items():
        assert code == 0, stderr
        assert (
            without_addresses(folder_bytes(tmp_path / name / NAME)).keys()
            == without_addresses(folder_bytes(finished)).keys()
        )
        for tar in finished.glob("*.tar"):
            assert (tmp_path / name / NAME / tar.name).read_bytes() == tar.read_bytes()


@pytest.mark.slow
def test_a_worker_with_other_software_is_refused_before_work(world: World, tmp_path: Path, finished: Path) -> None:
    other = tmp_path / "other/pillow-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: pillow\nVersion: 0.0.1\n")
    with cluster(tmp_path, 0) as started:
        started.add_worker(PYTHONPATH=str(other.parent))
        command = words(finished / LEDGER, world, tmp_path / "out", "--scheduler", started.address)
        code, _, stderr = finish(start(*command))
    assert code == 2, stderr
    assert "software.pillow" in stderr
    assert not (tmp_path / "out").exists()
