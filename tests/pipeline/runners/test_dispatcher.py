"""What is submitted to a scheduler, and results whose event is lost."""

import os
import pickle
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from pipeline.job import Job
from tests.pipeline.runners.shard_functions import Scripted, make_shards
from tests.pipeline.world import SHARDS


@pytest.mark.slow
def test_results_whose_event_is_lost_are_fetched(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when they are lost with their worker, and that was the only one that they were submitted for."""
    subscribe, killed = Client.subscribe_topic, list[str]()

    def subscribe_and_lose_results(client: Client, topic: str, handler: Callable[[Any], None]) -> None:
        def on_event(event: Any) -> None:
            if not isinstance(event[1], bytes):
                handler(event)
            elif retried := re.search(r"-0*(\d+)-\d+$", pickle.loads(event[1]).key):
                worker = (tmp_path / retried[1]).read_text()
                if not killed:
                    killed.append(worker)
                    os.kill(int(worker), signal.SIGKILL)

        subscribe(client, topic, on_event)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(Client, "subscribe_topic", subscribe_and_lose_results)
    results, _ = make_shards(job, Scripted(tmp_path, first_differs=True), SHARDS, workers=2)
    assert killed
    assert sorted(result.shard for result in results if result.done) == list(range(SHARDS))


def test_what_is_submitted_for_a_shard_is_small(job: Job) -> None:
    # Ten thousand bytes of it are the names of 1,000 classes.
    assert max(len(pickle.dumps(job.part(shard))) for shard in range(SHARDS)) < 16_000
    part = pickle.loads(pickle.dumps(job.part(7)))
    for index in range(28, 32):
        assert part.source.read(part.records[index]) == job.source.read(job.records[index])
        assert part.keys[index] == job.keys[index]
    with pytest.raises(KeyError):
        part.records[27]
