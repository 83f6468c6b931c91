"""Reads the results of `evaluate`, from one folder or several."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from basics.errors import UserError
from basics.reading import unreadable
from downstream.auxiliary import AUXILIARY, MAIN
from downstream.predictions import IDENTIFYING
from downstream.result_store import RESULTS, Key, Row, key_of, model_name
from downstream.suites import CUE_CONFLICT, IMAGENET_C, INSTAGRAM


def read_results(folders: Sequence[Path]) -> list[Row]:
    """Return the line of each model (and batch-norm set) on each subset, without the summaries, which follow from them.

    A line that several folders have counts once.

    Raises:
        UserError: a folder has no results of `evaluate`, or one name belongs to different models or data sets.
    """
    found: dict[Key, Row] = {}
    for folder in folders:
        for row in _lines(folder):
            before = found.setdefault(key_of(row), row)
            if before["pair"] != row["pair"]:
                raise UserError(
                    f"{model_name(row)} on {row['data']} is another result in {folder} than in another folder; "
                    "report on them separately."
                )
    rows = [found[key] for key in sorted(found)]
    require_unambiguous(rows, "data", IDENTIFYING)
    require_unambiguous([{**row, "name": model_name(row)} for row in rows], "name", ("weights_sha256",))
    return rows


def _lines(folder: Path) -> list[Row]:
    path = folder / RESULTS
    try:
        rows: list[Row] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        wanted = [row for row in rows if not row.get("summary")]
        parts = [{**row, "n": int(row["n"]), "top1": float(row["top1"]), "top5": float(row["top5"])} for row in wanted]
        valid = all(_is_valid(row) for row in parts)
    except FileNotFoundError as error:
        raise UserError(f"The folder {folder} has no {RESULTS}; give one that `advbn-gen evaluate` wrote.") from error
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"The file {path} does not hold results of `advbn-gen evaluate`; give its --out.") from error
    if not parts or not valid:
        raise UserError(f"The file {path} holds no results; give the --out of `advbn-gen evaluate`.")
    return parts


_TEXTS = (
    "data", "model", "suite", "pair", "arch", "weights", "weights_sha256", "transform", "precision", "device",
    *IDENTIFYING,
)  # fmt: skip
_PARTS = {IMAGENET_C: 3, INSTAGRAM: 2}
"""Test set -> number of parts between slashes in the names of its subsets."""


def _is_valid(row: Row) -> bool:
    """Whether a line has all fields that reports need, with values of the right types.

    Raises:
        KeyError: something is missing.
    """
    parts = row["data"].count("/") + 1 == _PARTS.get(row["suite"], 1)
    texts = all(isinstance(row[name], str) for name in _TEXTS)
    cues = row["suite"] != CUE_CONFLICT or {"shape_bias", "either"} <= row["cue_conflict"].keys()
    return (
        texts
        and parts
        and cues
        and isinstance(row["imagenet"], bool)
        and row["batch_norm"] in {None, MAIN, AUXILIARY}
        and (isinstance(row["samples_there"], int) and isinstance(row["software"], dict))
    )


def require_unambiguous(rows: Iterable[Mapping[str, Any]], name: str, fields: Sequence[str]) -> None:
    """Refuse rows of one name that differ in fields which are equal for all rows of a name.

    Raises:
        UserError: see above.
    """
    found = ambiguous_name(rows, name, fields)
    if found is not None:
        what = "data sets" if name == "data" else "models"
        raise UserError(f"Two different {what} are called {found} in these results; report on them separately.")


def ambiguous_name(rows: Iterable[Mapping[str, Any]], name: str, fields: Sequence[str]) -> str | None:
    """Return the first name whose rows differ in some fields; None if there is none."""
    first: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        called: str = row[name]
        before = first.setdefault(called, row)
        if any(before[field] != row[field] for field in fields):
            return called
    return None
