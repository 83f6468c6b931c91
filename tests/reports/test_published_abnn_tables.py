"""The published numbers of the paper on ABNN, compared with its own text where that is at hand."""

from pathlib import Path

import pytest

from reports.published_abnn_tables import PublishedMethod, published_attack, published_methods

NAMES = {"No Defense": "none", "PGD-AT": "pgd-at", "OUDefend": "oudefend", "ABNN": "abnn"}


@pytest.fixture
def text(shared_data: Path) -> str:
    return (shared_data.parent / "papers/abnn.txt").read_text()


@pytest.mark.parametrize(
    ("number", "task", "attack"), [(1, "cifar10", "pgd"), (2, "ucf101", "pgd"), (3, "ucf101", "roa")]
)
def test_every_table(text: str, number: int, task: str, attack: str) -> None:
    lines = text.split(f"\nTable {number}. ")[1].splitlines()[1:]
    rows = [line.split("\t") for line in lines if "\t" in line][1:4]
    printed = {
        NAMES[name.partition(" [")[0].partition(" (")[0]]: (float(clean), float(under), cost)
        for name, clean, under, cost in rows
    }
    methods = published_methods(task)
    assert list(printed) == list(methods)
    for name, method in methods.items():
        assert printed[name] == (method.accuracy["clean"], method.accuracy[attack], f"{method.passes}N")


def test_costs_are_the_formulas() -> None:
    passes = {name: method.passes for task in ("cifar10", "ucf101") for name, method in published_methods(task).items()}
    assert passes == {"none": 2, "abnn": 3, "pgd-at": 2 * (5 + 1), "oudefend": 4 * (5 + 1)}


def test_what_the_paper_does_not_have() -> None:
    none: dict[str, PublishedMethod] = {}
    assert published_methods("imagenet") == none
    assert published_attack("imagenet", "clean", {}) is None
    assert published_attack("cifar10", "cleaner", {}) is None
