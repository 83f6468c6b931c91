"""Reads the results of `abnn attack`, from one folder or several."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from abnn.kept_clips import KeptClips, read_clips
from abnn.results import RESULTS_FOLDER
from basics.errors import UserError
from basics.files import canonical_json
from basics.progress import say
from basics.reading import unreadable
from downstream.result_store import RESULTS, Key, Row, key_of
from reports.shift_results import ambiguous_name, require_unambiguous

_TEXTS = (
    "model", "task", "defence", "arch", "weights_sha256", "data", "data_sha256", "attack", "device", "precision",
    "recipe",
)  # fmt: skip
_MODEL = ("weights_sha256", "task", "defence", "arch", "width", "recipe", "seed")
"""Fields that one model's lines have in common."""
_SAME = {
    "weights_sha256": "weights", "data_sha256": "test samples", "n": "numbers of samples", "settings": "settings",
    "accuracy": "accuracies",
}  # fmt: skip
"""Fields in which two lines of one model and attack must not differ -> their names in messages."""
_STRENGTH = (
    "norm", "eps", "area", "height", "width", "steps", "step_size", "restarts", "weights", "stride", "over",
)  # fmt: skip
"""Settings on which the strength of an attack depends."""
_MEASURED = ("flops_step", "flops_plain_step", "seconds_step", "seconds_plain_step", "batch")


def read_abnn_results(paths: Sequence[Path]) -> list[Row]:
    """Return the line of each model under each attack; a line that several folders have counts once.

    Args:
        paths: `results.jsonl`, folders that hold one, run folders with their `attacks`, or JSON files with `rows`.

    Raises:
        UserError: a folder has no results, two lines of one name belong to different models, or models were evaluated
            under an attack on different samples or with different strength.
    """
    found: dict[tuple[str, str], Row] = {}
    for path in paths:
        for row in _lines(path):
            before = found.setdefault((row["model"], row["attack"]), row)
            _require_same(before, row)
            if before["cost"] is None:
                before["cost"] = row["cost"]
    rows = list(found.values())
    rows = _without_uneven_worst(rows)
    require_unambiguous(rows, "model", _MODEL)
    _require_one_cost(rows)
    _require_comparable(rows)
    return rows


def read_kept_clips(paths: Sequence[Path], rows: Iterable[Row]) -> dict[Key, KeptClips]:
    """Return the clips that are kept beside results, by (attack, model); most results have none.

    Args:
        paths: as for `read_abnn_results`.
        rows: the lines that it returned.

    Raises:
        UserError: a file with clips is damaged, or cannot be read.
    """
    found: dict[Key, KeptClips] = {}
    folders = list(dict.fromkeys(_file_of(path).parent for path in paths))
    for row in rows:
        if "pair" in row:
            clips = next(filter(None, (read_clips(folder, row) for folder in folders)), None)
            if clips:
                found[key_of(row)] = clips
    return found


def _without_uneven_worst(rows: list[Row]) -> list[Row]:
    """Return rows without the worst case over several attacks, if those were not the same for every model of a task."""
    over = {(row["task"], canonical_json(row["settings"]["over"])) for row in rows if "over" in row["settings"]}
    tasks = [task for task, _ in over]
    uneven = {task for task in tasks if tasks.count(task) > 1}
    if uneven:
        say("The worst case is left out: it is over other attacks for one model than for another.")
    return [row for row in rows if "over" not in row["settings"] or row["task"] not in uneven]


def _lines(path: Path) -> list[Row]:
    try:
        rows = [{"cost": None, **row} for row in _parsed(_file_of(path).read_text(encoding="utf-8"))]
        valid = all(_is_valid(row) and canonical_json(row) for row in rows)  # which has no NaN
    except FileNotFoundError as error:
        raise UserError(f"There are no results of `advbn-gen abnn attack` in {path}; give its --out.") from error
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, OverflowError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} does not hold results of `advbn-gen abnn attack`; give its --out.") from error
    if not rows or not valid:
        raise UserError(f"{path} holds no complete results; give the --out of `advbn-gen abnn attack`.")
    return rows


def _file_of(path: Path) -> Path:
    files = (path / RESULTS, path / RESULTS_FOLDER / RESULTS) if path.is_dir() else (path,)
    return next((file for file in files if file.exists()), files[0])


def _parsed(text: str) -> list[Any]:
    """Return the values of JSON lines, or the rows of one JSON object that has them.

    Raises:
        ValueError: it is neither.
    """
    try:
        value = json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    rows: list[Any] = value["rows"] if isinstance(value, dict) and "rows" in value else [value]
    return rows


def _is_valid(row: Row) -> bool:
    """Whether a line has all fields that reports need, with values of the right types.

    Raises:
        KeyError: something is missing.
    """
    texts = all(isinstance(row[name], str) for name in _TEXTS) and bool(row["model"]) and bool(row["attack"])
    facts = all(isinstance(row[name], dict) for name in ("settings", "software"))
    numbers = _is_positive(row["width"]) and _is_number(row["seconds"]) and _is_share(row["accuracy"])
    counts = _is_count(row["n"]) and _is_positive(row["n"]) and (row["seed"] is None or _is_count(row["seed"]))
    return texts and facts and numbers and counts and (row["cost"] is None or _is_cost(row["cost"]))


def _is_cost(cost: Mapping[str, Any]) -> bool:
    measured = [cost.get(name) for name in _MEASURED]
    return _is_positive(cost["passes"]) and all(value is None or _is_positive(value) for value in measured)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require_same(before: Row, row: Row) -> None:
    """Refuse two lines of one model and attack that differ.

    Raises:
        UserError: see above.
    """
    for fact, name in _SAME.items():
        if before[fact] != row[fact]:
            raise UserError(
                f"The model {row['model']} under {row['attack']} is in these results with different {name}; "
                "report on them separately."
            )


def _require_one_cost(rows: Iterable[Row]) -> None:
    """Refuse models that have two costs; their times may differ.

    Raises:
        UserError: see above.
    """
    costs = [{**row["cost"], "model": row["model"]} for row in rows if row["cost"] is not None]
    measured = [{name: cost.get(name) for name in ("model", "passes", *_MEASURED[:2])} for cost in costs]
    model = ambiguous_name(measured, "model", ("passes", *_MEASURED[:2]))
    if model is not None:
        raise UserError(f"The model {model} has two different costs of training in these results; attack it again.")


def _require_comparable(rows: Iterable[Row]) -> None:
    """Refuse an attack that was not the same test for all models: a column of a table is on the same samples.

    Raises:
        UserError: see above.
    """
    columns = [
        {
            **row,
            "column": f"{row['attack']} ({row['task']})",
            **{f"setting_{name}": row["settings"].get(name) for name in _STRENGTH},
        }
        for row in rows
    ]
    column = ambiguous_name(columns, "column", ("data_sha256", "n"))
    if column is not None:
        raise UserError(f"There are results under {column} on different test samples; report on them separately.")
    column = ambiguous_name(columns, "column", [f"setting_{name}" for name in _STRENGTH])
    if column is not None:
        raise UserError(
            f"There are results under {column} with different strength (norm, eps, area, steps, ...); report on them "
            "separately."
        )
