"""Backoff of workers that fail, and what becomes of refused workers that die."""

import time

import pytest

from pipeline.runners.worker_pool import WorkerPool


def test_the_backoff_of_a_worker_doubles_with_each_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pool = WorkerPool()
    pool.update({"a": 1, "b": 2}, ["a", "b"])
    for expected in (10, 20, 40, 80, 160, 320, 600, 600):
        assert pool.record_failure("a", 0) == expected
        assert pool.record_failure("a", 1) == 0
        assert pool.available() == {"b": 2}
        assert pool.candidates(0) == pool.candidates(1) == ["b"]
        now += expected + 1
        assert pool.available() == {"a": 1, "b": 2}
        assert pool.candidates(0) == ["b"]
        assert pool.candidates(2) == ["a", "b"]
    pool.record_success("a")
    assert pool.record_failure("a", 0) == 10
    assert pool.record_failure("b", 0) == 10
    assert pool.candidates(2) == []
    now += 11
    assert pool.candidates(0) == ["a", "b"]


def test_a_refused_worker_that_dies_may_come_back_repaired() -> None:
    pool = WorkerPool()
    both = {"a": 1, "b": 1}
    pool.update(both, both)
    assert [pool.refuse("a"), pool.refuse("a")] == [True, False]
    pool.update(both, both)
    assert pool.slots == {"b": 1}
    pool.update({"b": 1}, ["b"])
    pool.update(both, ["b"])
    assert pool.slots == {"b": 1}
    pool.update(both, both)
    assert pool.slots == both
