"""The workers of a running scheduler make the bytes of one process, also when some or the scheduler are lost."""

import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from distributed import Client

from basics.errors import UserError, WorkError
from pipeline.config import GenerationConfig
from pipeline.job import Job
from pipeline.run import run
from pipeline.runners import remote_cluster
from pipeline.runners.dask_runner import DaskRunner
from pipeline.runners.remote_cluster import RemoteClusterRunner, needed_resources
from pipeline.runners.selection import select_runner
from pipeline.worker import own_environment
from tests.cluster import cluster
from tests.pipeline.runners.shard_functions import DelayedMarks
from tests.pipeline.world import PER_CLASS, SHARDS, World, broken_image, without_addresses
from tests.processes import finish, start, wait_until
from tests.support import folder_bytes, image_folder, refused, tiny_autoencoder

LONG = {"image_size": 48, "steps": 6}
"""Makes a shard last long enough to be hit."""


def marks(out: Path) -> int:
    return len(list(out.glob("stats/*.json")))


def attempts(out: Path) -> set[str]:
    """Folders of shards that are in work, or were when their process ended."""
    return {path.name for path in out.glob("working-*")}


@pytest.fixture(scope="module")
def uninterrupted(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted") / "out"
    done = world.make(out, **LONG)
    assert done.code == 0, done.err
    return out


@pytest.mark.slow
def test_a_running_scheduler_gives_the_same_bytes_also_after_a_failure(
    world: World, tmp_path: Path, finished: Path
) -> None:
    source = image_folder(tmp_path / "source", per_class=PER_CLASS)
    whole = broken_image(source / "n01440764/n01440764_0.JPEG")
    own = World(source=source, autoencoder=world.autoencoder, classifier=world.classifier)
    out = tmp_path / "out"
    with cluster(tmp_path, 2) as started:
        code, _, stderr = finish(start(*own.words(out, scheduler=started.address)))
        logs = started.logs()
        assert code == 1, stderr + logs
        assert "n01440764_0.JPEG" in stderr
        assert "Traceback" not in stderr
        assert len(list(out.glob("*.tar"))) == SHARDS - 1
        assert len(set(re.findall(r"Register worker addr: (tcp://[\d.:]+)", logs))) == 2
        (source / "n01440764/n01440764_0.JPEG").write_bytes(whole)
        code, stdout, stderr = finish(start(*own.words(out, "--json", scheduler=started.address)))
    assert code == 0, stderr
    assert json.loads(stdout)["made"] == 1
    assert without_addresses(folder_bytes(out)) == without_addresses(folder_bytes(finished))


@pytest.mark.slow
def test_a_killed_worker_and_a_hung_one_change_no_byte(world: World, tmp_path: Path, uninterrupted: Path) -> None:
    """One of three is killed in mid-shard, one is stopped, taken for dead, and goes on beside its replacement."""
    out = tmp_path / "out"
    with cluster(tmp_path, 3, DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="15s") as started:
        assert wait_until(lambda: started.logs().count("Register worker") == 3, started.scheduler)
        process = start(*world.words(out, scheduler=started.address, **LONG))
        assert wait_until(lambda: len(attempts(out)) == 3, process), finish(process)
        started.workers[0].kill()
        os.kill(started.workers[1].pid, signal.SIGSTOP)
        assert marks(out) < SHARDS - 3
        code, _, stderr = finish(process)
        assert code == 0, stderr + started.logs()
        assert "Traceback" not in stderr
        held = attempts(out)
        assert len(held) == 2, "both have left a shard half made"
        os.kill(started.workers[1].pid, signal.SIGCONT)
        # It finishes its shard, and only then finds out that nobody waits for it.
        assert wait_until(lambda: len(attempts(out)) == 1, started.scheduler)
    assert len(attempts(out)) == 1
    again = world.make(out, "--json", **LONG)
    assert again.result["made"] == 0
    assert folder_bytes(out) == folder_bytes(uninterrupted)


@pytest.mark.slow
def test_a_lost_scheduler_costs_only_what_was_in_work(world: World, tmp_path: Path, uninterrupted: Path) -> None:
    out = tmp_path / "out"
    with cluster(tmp_path, 2) as started:
        process = start(*world.words(out, scheduler=started.address, **LONG))
        assert wait_until(lambda: marks(out) >= 2, process)
        started.scheduler.kill()
        code, _, stderr = finish(process)
        assert code == 1, stderr
        assert "scheduler was lost" in stderr
        assert "Traceback" not in stderr
        failed = re.search(rf"(\d+) of {SHARDS} shards could not be made", stderr)
        assert failed
        # The workers finish their shards, possibly after the client has counted.
        kept = SHARDS - int(failed[1])
        assert 2 <= kept <= marks(out) < SHARDS
        started.start_scheduler()
        started.add_worker()
        code, stdout, stderr = finish(start(*world.words(out, "--json", scheduler=started.address, **LONG)))
    assert code == 0, stderr
    assert json.loads(stdout)["made"] <= SHARDS - kept
    assert folder_bytes(out) == folder_bytes(uninterrupted)


@pytest.mark.slow
def test_of_mixed_workers_only_those_with_a_gpu_are_checked(world: World, tmp_path: Path, finished: Path) -> None:
    """The others would never get the call."""
    with cluster(tmp_path, 1) as started:
        started.add_worker("--resources", "GPU=1")
        assert wait_until(lambda: started.logs().count("Register worker") == 2, started.scheduler)
        code, _, stderr = finish(start(*world.words(tmp_path / "out", scheduler=started.address, device="auto")))
    assert code == 0, stderr
    made, expected = folder_bytes(tmp_path / "out"), folder_bytes(finished)
    assert json.loads(made.pop("manifest.json"))["config"]["device"] == "auto"
    del expected["manifest.json"]
    assert made == expected


@pytest.mark.slow
def test_a_worker_that_differs_and_a_missing_gpu_are_refused_before_work(world: World, tmp_path: Path) -> None:
    other = tmp_path / "other/pillow-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: pillow\nVersion: 0.0.1\n")
    out = tmp_path / "out"
    with cluster(tmp_path, 1) as started:
        started.add_worker(PYTHONPATH=str(other.parent))
        assert wait_until(lambda: started.logs().count("Register worker") == 2, started.scheduler)
        code, _, stderr = finish(start(*world.words(out, scheduler=started.address)))
        assert code == 2, stderr
        assert re.search(r"worker tcp://\S+ differs .*software\.pillow: \S+ -> 0\.0\.1", stderr)
        code, _, stderr = finish(start(*world.words(out, scheduler=started.address, device="cuda")))
        assert code == 2, stderr
        assert "No worker offers a GPU" in stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("device", "resources", "message"),
    [
        ("cuda:1", {"GPU": 1}, "give cuda, with which each worker uses its own"),
        ("cuda:1", {}, "No worker offers a GPU"),
    ],
)
def test_a_gpu_cannot_be_named_by_its_number(device: str, resources: dict[str, float], message: str) -> None:
    client: Any = SimpleNamespace(scheduler_info=lambda **_: {"workers": {"tcp://a": {"resources": resources}}})
    with pytest.raises(UserError, match=message):
        needed_resources(client, GenerationConfig(encoder="vgg", source=None, autoencoder=None, device=device))


@pytest.mark.slow
@pytest.mark.parametrize("who", ["worker", "scheduler"])
def test_machines_without_our_code_are_refused_before_work(world: World, tmp_path: Path, who: str) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['pipeline'] = None")
    lacking, out = {"PYTHONPATH": str(tmp_path)}, tmp_path / "out"
    with cluster(tmp_path, 1, **(lacking if who == "scheduler" else {})) as started:
        if who == "worker":
            started.add_worker(**lacking)
            assert wait_until(lambda: started.logs().count("Register worker") == 2, started.scheduler)
        code, _, stderr = finish(start(*world.words(out, scheduler=started.address)))
    assert code == 2, stderr
    assert "install the same advbn-gen there" in stderr
    assert not out.exists()


@pytest.mark.slow
def test_a_scheduler_without_workers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_cluster, "_FIRST_WORKER_TIMEOUT", 0.5)
    config = GenerationConfig(encoder="vgg", source=None, autoencoder=None)
    with (
        cluster(tmp_path, 0) as started,
        pytest.raises(UserError, match="has no worker, also after"),
        select_runner(config, started.address),
    ):
        pass


def test_an_address_with_tls_needs_its_settings(world: World, tmp_path: Path) -> None:
    message = refused(*world.words(tmp_path / "out", scheduler="tls://127.0.0.1:1"))
    assert "distributed.comm.tls" in message
    assert "No Dask scheduler answers at ''" in refused(*world.words(tmp_path / "out", scheduler=""))


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 60])
def test_marks_that_are_seen_late_are_waited_for(
    job: Job, tmp_path: Path, seconds: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(remote_cluster, "_MARKS_TIMEOUT", seconds)
    with cluster(tmp_path, 2) as started, Client(started.address) as client:  # type: ignore[no-untyped-call]
        client.wait_for_workers(2, timeout=60)
        runner = RemoteClusterRunner(DaskRunner(client, shard_function=DelayedMarks()))
        if seconds:
            assert run(job, runner).made == SHARDS
        else:
            with pytest.raises(WorkError, match="it was removed or changed while"):
                run(job, runner)
            assert "cannot be seen here after 0 s; check that all machines" in capsys.readouterr().err


def test_a_worker_reports_the_files_as_they_are_now(job: Job, world: World, tmp_path: Path) -> None:
    path = tmp_path / "autoencoder.safetensors"
    config = replace(job.config, autoencoder=str(shutil.copy(world.autoencoder, path)))
    before = own_environment(config, classes=1000)["autoencoder"]
    tiny_autoencoder(path, seed=77)
    assert own_environment(config, classes=1000)["autoencoder"] != before
