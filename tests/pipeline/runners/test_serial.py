"""Attempts and progress of the serial runner."""

from collections.abc import Callable

import pytest

from pipeline.job import Job
from pipeline.outcome import Outcome, ShardResult
from pipeline.runners import serial
from pipeline.runners.serial import SerialRunner


@pytest.mark.parametrize(
    ("outcome", "attempts", "reported"),
    [
        (Outcome.DONE, 1, Outcome.DONE),
        (Outcome.FAILED, 1, Outcome.FAILED),
        (Outcome.TRANSIENT, 3, Outcome.TRANSIENT),
        # Another machine would be needed, and there is none.
        (Outcome.MACHINE_FAULT, 1, Outcome.MACHINE_FAULT),
        (Outcome.FATAL, 1, Outcome.FATAL),
        (Outcome.WRONG_ENVIRONMENT, 1, Outcome.FATAL),
    ],
)
def test_only_transient_faults_are_retried(
    job: Job, monkeypatch: pytest.MonkeyPatch, outcome: Outcome, attempts: int, reported: Outcome
) -> None:
    calls: list[int] = []

    def make(_: Job, shard: int, on_batch: Callable[[int], None]) -> ShardResult:
        calls.append(shard)
        on_batch(3)
        on_batch(1)
        return ShardResult(shard=shard, outcome=outcome, reason="" if outcome is Outcome.DONE else "the reason")

    monkeypatch.setattr(serial, "generate_shard", make)
    progress: list[tuple[int, int]] = []
    results = list(SerialRunner().results(job, [7], lambda shard, images: progress.append((shard, images))))
    assert calls == [7] * attempts
    assert [result.outcome for result in results] == [reported]
    assert ("the reason" in results[0].reason) == (outcome is not Outcome.DONE)
    assert progress == [(7, 3), (7, 4)] * attempts, "each attempt counts from the beginning"
