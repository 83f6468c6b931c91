"""What is aimed at on a GPU, and whether the measurements of `benchmarks.gpu` hold it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import gpu_stages as stages
from benchmarks.gpu_workload import MissingError, Results

Value = float | bool


@dataclass(frozen=True)
class Goal:
    """A value that is aimed at."""

    name: str
    aim: str
    """The aim in words."""
    measured: Callable[[Results], Value]
    """Returns the value; raises KeyError, TypeError or MissingError if it was not measured."""
    holds: Callable[[Value], bool]

    def judged(self, results: Results, *, judge: bool) -> dict[str, Any]:
        """Return the goal with what was measured, and whether it holds; None without a value or if it is not judged."""
        try:
            value: Value | None = self.measured(results)
        except (KeyError, TypeError, MissingError):
            value = None
        holds = self.holds(value) if judge and value is not None else None
        return {"name": self.name, "goal": self.aim, "measured": value, "holds": holds}


def goals_of(encoders: tuple[str, ...]) -> list[Goal]:
    """Return the goals of a run with these encoders; of the first, all."""
    return [
        *(goal for encoder in encoders for goal in _speed_goals(encoder)),
        Goal(
            "times as fast as the plain reference",
            "at least 5",
            lambda results: float(results[stages.REFERENCE]["ratio"]),
            lambda value: value >= 5,
        ),
        Goal(
            "share of the cores that decoding and encoding need",
            "less than 1",
            lambda results: float(results[stages.CODING]["threads_needed"] / results[stages.CODING]["cores"]),
            lambda value: value < 1,
        ),
        Goal(
            "share of the time that all coding threads are busy",
            "less than 1",
            lambda results: float(results[stages.CODING]["share_of_all_threads"]),
            lambda value: value < 1,
        ),
        _true("a shard made twice has the same bytes", stages.BYTES, "same_twice"),
        _true("batches begun ahead give the same bytes", stages.BYTES, "same_ahead"),
        _true("copies that nobody waits for give the same bytes", stages.BYTES, "same_as_with_plain_copies"),
        _true("micro-batches give the same pixels in fp64", stages.DOUBLE, "identical"),
    ]


def _speed_goals(encoder: str) -> list[Goal]:
    return [
        Goal(
            f"{encoder}: share of the bf16 matrix rate in the fastest bf16 mode",
            "at least 0.4",
            lambda results: float(stages.fastest_ascent(results, encoder, "bf16")["share_of_matrix_rate"]),
            lambda value: value >= 0.4,
        ),
        Goal(
            f"{encoder}: images/s end to end",
            "at least 300",
            lambda results: float(stages.best_run(results, encoder)["images_per_s"]),
            lambda value: value >= 300,
        ),
        Goal(
            f"{encoder}: share of the time that the computation waits",
            "at most 0.05",
            lambda results: float(stages.best_run(results, encoder)["waiting_share"]),
            lambda value: value <= 0.05,
        ),
    ]


def _true(name: str, stage: str, key: str) -> Goal:
    return Goal(name, "true", lambda results: bool(results[stage][key]), bool)
