"""The numbers that the second paper prints (Tables 1 to 3), to stand beside ours."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PublishedMethod:
    """A row of the tables; accuracies in per cent, by the attack's name."""

    accuracy: Mapping[str, float]
    passes: float
    """Training cost of a step, in network passes N."""
    called: str
    """The paper's name of it."""


PUBLISHED: dict[str, dict[str, PublishedMethod]] = {
    "cifar10": {
        "none": PublishedMethod(accuracy={"clean": 93.4, "pgd-5": 0.0}, passes=2, called="No Defense"),
        "pgd-at": PublishedMethod(accuracy={"clean": 83.3, "pgd-5": 51.6}, passes=12, called="PGD-AT"),
        "abnn": PublishedMethod(accuracy={"clean": 87.5, "pgd-5": 31.5}, passes=3, called="ABNN"),
    },
    "ucf101": {
        "none": PublishedMethod(accuracy={"clean": 93.0, "pgd-5": 0.0, "roa": 7.0}, passes=2, called="No Defense"),
        "oudefend": PublishedMethod(accuracy={"clean": 62.0, "pgd-5": 58.6, "roa": 13.6}, passes=24, called="OUDefend"),
        "abnn": PublishedMethod(accuracy={"clean": 68.3, "pgd-5": 43.4, "roa": 24.4}, passes=3, called="ABNN"),
    },
}
"""Task -> defence -> its row. The attacks are white box, over the whole framework."""

TEST_SAMPLES = {"cifar10": 10_000, "ucf101": 3783}
"""What accuracies were measured on: the whole test set (of UCF-101, that of split 1)."""


def published_accuracy(task: str, defence: str, attack: str) -> float | None:
    """Return the paper's accuracy (a share, 0 to 1) of a method under an attack; None where it prints none."""
    row = PUBLISHED.get(task, {}).get(defence)
    value = None if row is None else row.accuracy.get(attack)
    return None if value is None else value / 100
