"""What `abnn attack` left, read back from one folder or several, and as the rows of a report."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from abnn.attacking import FOLDER
from abnn.results import RESULTS
from basics.errors import UserError
from reports.intervals import accuracy
from reports.published_abnn import PUBLISHED, TEST_SAMPLES, published_accuracy

Row = dict[str, Any]
Report = dict[str, Any]

_ORDER = ("clean", "pgd", "adaptive", "transfer", "autoattack", "worst", "roa")
METHODS = ("none", "pgd-at", "oudefend", "abnn")
"""In the order of the paper's tables."""


def read_abnn_results(places: Sequence[Path]) -> list[Row]:
    """Return the line of each network under each attack.

    Args:
        places: run folders, folders of `abnn attack --out`, a `results.jsonl`, or what `--json` printed.

    Raises:
        UserError: there are no such results, or one name stands for two different things.
    """
    found: dict[tuple[str, str], Row] = {}
    for place in places:
        for row in _lines(_file_in(place)):
            before = found.setdefault((row["model"], row["attack"]), row)
            if before["pair"] != row["pair"]:
                raise UserError(
                    f"{row['model']} under {row['attack']} stands for something else in {place} than in other results; "
                    "make tables of them apart, or rename the run folder."
                )
    return sorted(found.values(), key=_place)


def _file_in(place: Path) -> Path:
    if not place.is_dir():
        return place
    inside = [place / RESULTS, place / FOLDER / RESULTS]
    return next((path for path in inside if path.is_file()), inside[0])


def _lines(path: Path) -> list[Row]:
    try:
        text = path.read_text()
        whole = path.suffix != ".jsonl"
        told = json.loads(text)["rows"] if whole else [json.loads(line) for line in text.splitlines()]
        rows = [_checked(row) for row in told]
    except FileNotFoundError as error:
        raise UserError(f"There is no {path}; give run folders or results of `advbn-gen abnn attack`.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"The file {path} does not hold results of `advbn-gen abnn attack`; give others.") from error
    if not rows:
        raise UserError(f"The file {path} holds no results; run `advbn-gen abnn attack` first.")
    return rows


_WORDS = ("model", "task", "defence", "arch", "attack", "weights_sha256", "data_sha256", "pair", "device", "precision")


def _checked(row: Any) -> Row:
    """Return a line that has what reports are made of.

    Raises:
        KeyError, TypeError, ValueError: something is missing.
    """
    if not all(isinstance(row[name], str) for name in _WORDS):
        raise TypeError
    if row["defence"] not in METHODS or row["task"] not in PUBLISHED:
        raise ValueError
    if not 0 <= float(row["accuracy"]) <= 1 or int(row["n"]) < 1:
        raise ValueError
    dict(row["settings"]), dict(row["software"]), float(row["width"]), row["cost"]
    return dict(row)


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["task"], METHODS.index(row["defence"]), row["model"], attack_place(row["attack"])


def attack_place(attack: str) -> tuple[int, int, str]:
    """Return where an attack stands in tables: by kind, then by its steps."""
    kind = attack.replace("(", "-").split("-")[0].strip()
    steps = attack.removeprefix("pgd-").split("x")[0].split(" ")[0]
    number = int(steps) if steps.isdecimal() else 0
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER), number, attack


def abnn_report(results: Iterable[Row]) -> Report:
    """Return what a report tells: `rows`, and of which `tasks`.

    A row has, beside what the line has: `method`, `accuracy_low` and `accuracy_high` (95%), `cost_formula` (the paper's
    count of network passes N), `cost_measured` and `cost_time` (in N as well, by operations and by time, a plain step
    being 2 N), and `published` (the paper's accuracy, and whether it is of the same data, width and attack).

    Args:
        results: see `read_abnn_results`.
    """
    rows = [{**row, **_interval(row), **costs(row["cost"]), "published": _published(row)} for row in results]
    return {"rows": rows, "tasks": list(dict.fromkeys(row["task"] for row in rows))}


def _interval(row: Mapping[str, Any]) -> dict[str, Any]:
    count, right = int(row["n"]), round(row["accuracy"] * row["n"])
    estimate = accuracy(np.arange(count) < right)
    return {"method": row["defence"], "accuracy_low": estimate.low, "accuracy_high": estimate.high}


def costs(cost: Mapping[str, Any] | None) -> dict[str, float | None]:
    """Return a step's cost in network passes N: by the paper's formula, by operations, by time."""
    if cost is None:
        return {"cost_formula": None, "cost_measured": None, "cost_time": None}
    return {
        "cost_formula": cost["passes"],
        "cost_measured": 2 * cost["flops_step"] / cost["flops_plain_step"],
        "cost_time": 2 * cost["seconds_step"] / cost["seconds_plain_step"],
    }


_PAPERS_BALL = {"cifar10": 8 / 255, "ucf101": 1 / 255}


def _published(row: Mapping[str, Any]) -> dict[str, Any] | None:
    value = published_accuracy(row["task"], row["defence"], row["attack"])
    if value is None:
        return None
    whole = row["n"] == TEST_SAMPLES[row["task"]] and row["width"] == 1
    ball = row["settings"].get("eps", _PAPERS_BALL[row["task"]]) == _PAPERS_BALL[row["task"]]
    return {"accuracy": value, "same_setting": whole and ball}
