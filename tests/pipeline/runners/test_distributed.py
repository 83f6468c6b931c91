"""Several processes at once give the bytes of one."""

import json
import os
import re
import signal
from pathlib import Path

import pytest

from basics.errors import UserError
from pipeline.config import GenerationConfig
from pipeline.runners import cluster as cluster_module
from pipeline.runners.cluster import workers_for
from tests.cluster import cluster
from tests.pipeline.world import PER_CLASS, SHARDS, World, broken_image, wherever
from tests.processes import finish, start, wait_until
from tests.support import folder_bytes, image_folder, refused


@pytest.mark.slow
def test_three_workers_give_the_bytes_of_one(world: World, tmp_path: Path, finished: Path) -> None:
    out = tmp_path / "out"
    code, stdout, stderr = finish(start(*world.words(out, "--json", workers=3)))
    assert code == 0, stderr
    assert json.loads(stdout)["made"] == SHARDS
    assert folder_bytes(out) == folder_bytes(finished)
    shards = [json.loads(line)["shard"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert sorted(shards) == list(range(SHARDS))


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
    assert wherever(folder_bytes(out)) == wherever(folder_bytes(finished))


@pytest.mark.slow
def test_ctrl_c_reaches_workers_and_the_next_run_completes(world: World, tmp_path: Path, finished: Path) -> None:
    out = tmp_path / "out"
    process = start(*world.words(out, workers=2))
    assert wait_until(lambda: any(out.glob("stats/*.json")), process)
    os.killpg(process.pid, signal.SIGINT)
    code, _, stderr = finish(process)
    assert code == 130, stderr
    assert "Traceback" not in stderr
    assert world.make(out).code == 0
    assert folder_bytes(out) == folder_bytes(finished)


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
        # It finishes what it was at, and only then finds out that nobody waits for it.
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
        told = re.search(rf"(\d+) of {SHARDS} shards could not be made", stderr)
        assert told
        # The workers finish what they are at, be it after the client has counted.
        kept = SHARDS - int(told[1])
        assert 2 <= kept <= marks(out) < SHARDS
        started.start_scheduler()
        started.add_worker()
        code, stdout, stderr = finish(start(*world.words(out, "--json", scheduler=started.address, **LONG)))
    assert code == 0, stderr
    assert json.loads(stdout)["made"] <= SHARDS - kept
    assert folder_bytes(out) == folder_bytes(uninterrupted)


@pytest.mark.slow
def test_of_mixed_workers_those_with_a_gpu_are_asked(world: World, tmp_path: Path, finished: Path) -> None:
    """The others would never be given the question."""
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
def test_an_unlike_worker_and_a_missing_gpu_are_refused_before_work(world: World, tmp_path: Path) -> None:
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


def test_a_scheduler_without_workers_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "_ARRIVAL", 0.5)
    config = GenerationConfig(encoder="vgg", source=None, autoencoder=None)
    with (
        cluster(tmp_path, 0) as started,
        pytest.raises(UserError, match="has no worker, also after"),
        workers_for(config, started.address),
    ):
        pass


def test_workers_here_and_a_scheduler_s_are_not_mixed(world: World, tmp_path: Path) -> None:
    said = refused(*world.words(tmp_path / "out", workers=2, scheduler="tcp://127.0.0.1:1"))
    assert "give one of the two" in said
    assert not (tmp_path / "out").exists()
