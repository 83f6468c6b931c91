"""Several processes of one machine make the bytes of one process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.world import SHARDS, World
from tests.processes import LONGEST, environment, finish, start, wait_until
from tests.support import folder_bytes


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


SCRIPT = """
import sys
from advbn_gen import GenerationConfig, generate

source, autoencoder, classifier, out = sys.argv[1:]
generate(
    GenerationConfig(
        encoder="vgg", source=source, autoencoder=autoencoder, classifier_weights=classifier, image_size=16,
        batch_size=4, batches_per_shard=1, limit=8, threads=1, device="cpu", workers=1,
    ),
    out,
)
"""


@pytest.mark.slow
def test_a_script_without_a_guard_is_refused_in_one_sentence(world: World, tmp_path: Path) -> None:
    """A real script: what its worker process imports is the subject."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    words = map(str, (world.source, world.autoencoder, world.classifier, tmp_path / "out"))
    ended = subprocess.run(
        [sys.executable, str(script), *words], env=environment(), capture_output=True, text=True, timeout=LONGEST,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("basics.errors.UserError: Worker processes import the script that starts them")
    assert 'put the call under `if __name__ == "__main__":`' in last
    assert ended.stderr.count("Traceback") == 1
    assert not list((tmp_path / "out").glob("*.tar"))
