"""Accuracy under shift (Tables 4 to 7): models on the paper's test sets, beside the published numbers.

Everything in this module is computed from the lines that `evaluate` wrote; no network runs.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from basics.errors import UserError
from downstream.auxiliary import SETS
from downstream.result_store import Row
from downstream.suites import IMAGENET, IMAGENET_C, PUBLISHED_BATCH_NORM, SKETCH, STYLE
from downstream.summaries import summary_rows
from reports.published_table_8 import STANDARD_TRAINING
from reports.published_tables_4_to_7 import SAMPLES, published_row_names, set_scores, table_4_row, table_5_errors

Report = Mapping[str, Any]


def shift_report(results: Sequence[Row], published: Mapping[str, str]) -> dict[str, Any]:
    """Return the report as JSON values.

    Args:
        results: lines of `evaluate` without summaries (see `reports.shift_results.read_results`).
        published: model -> its row in the paper, where a user named one.

    Returns:
        `rows`: a line for each model (and batch-norm set) on each subset, and summaries of ImageNet-C and
        ImageNet-Instagram, each with `published` (null where the paper has no number for it); `same_data`: test set ->
        whether it is complete and as large as the published one.

    Raises:
        UserError: `published` names a model without results, or a row that the paper does not have.
    """
    models = list(dict.fromkeys(row["model"] for row in results))
    _refuse_unknown(published, models)
    rows = [*results, *summary_rows(results)]
    same_data = _same_data(rows)
    methods = {row["model"]: STANDARD_TRAINING for row in results if _is_standard(row)} | dict(published)
    return {
        "report": "accuracy under shift",
        "models": models,
        "published_rows": methods,
        "same_data": same_data,
        "rows": [{**row, "published": _published(row, methods.get(row["model"]), same_data)} for row in rows],
    }


def batch_norms_of(report: Report, model: str) -> list[str | None]:
    """Return the batch-norm sets that a model was scored with, main before auxiliary; None stands for its only one."""
    found = {row["batch_norm"] for row in report["rows"] if row["model"] == model}
    return [which for which in (None, *SETS) if which in found]


def row_of(report: Report, model: str, which: str | None, data: str) -> Mapping[str, Any] | None:
    """Return a model's row on a subset, or its summary of a set with parts; None if there is none."""
    for row in report["rows"]:
        if (row["model"], row["batch_norm"], row["data"]) == (model, which, data):
            found: Mapping[str, Any] = row
            return found
    return None


def published_choice(report: Report, model: str, suite: str) -> str | None:
    """Return which of a model's batch-norm sets the paper uses on a test set; None for a model with only one."""
    own = batch_norms_of(report, model)
    return PUBLISHED_BATCH_NORM[suite] if None not in own else None


def published_metric(row: Mapping[str, Any] | None) -> float | None:
    """Return the paper's number for a row in per cent: mCE for ImageNet-C, else top-1; None where it is incomplete."""
    if row is None:
        return None
    if row["data"] == IMAGENET_C:
        mce: float | None = row["mce"]
        return mce
    return None if row["top1"] is None else 100 * row["top1"]


def _refuse_unknown(published: Mapping[str, str], models: Sequence[str]) -> None:
    for model, method in published.items():
        if model not in models:
            raise UserError(f"--published names the model {model}, which is none of {', '.join(models)}.")
        if method not in published_row_names():
            raise UserError(
                f"--published {model}={method} names no row; give one of {', '.join(published_row_names())}."
            )


def _is_standard(row: Mapping[str, Any]) -> bool:
    """Whether a row belongs to the one model whose weights are known to be the paper's."""
    return (row["arch"], row["weights"], row["batch_norm"]) == ("resnet50", "published", None)


def _same_data(rows: Sequence[Row]) -> dict[str, bool]:
    """Return for each test set whether every model was scored on all of its images."""
    complete: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        if row.get("summary"):
            complete[row["suite"]].append(not row["missing"] and "decision" not in row)
        else:
            complete[row["suite"]].append(row["imagenet"] and row["n"] >= SAMPLES and "decision" not in row)
    return {suite: all(each) for suite, each in complete.items()}


def _published(row: Mapping[str, Any], method: str | None, same_data: Mapping[str, bool]) -> dict[str, Any] | None:
    values = {} if method is None else _published_values(row, method)
    return {"method": method, "same_data": same_data[row["suite"]], **values} if values else None


def _published_values(row: Mapping[str, Any], method: str) -> dict[str, Any]:
    is_set = row.get("summary", False) or row["suite"] in {IMAGENET, SKETCH, STYLE}
    if not is_set:
        return _published_error(row, method)
    value = _published_score(row, method)
    if row["suite"] != IMAGENET_C:
        return {} if value is None else {"top1": _share(value)}
    table_4 = table_4_row(method) if row["published_choice"] else None
    return {
        **({} if value is None else {"mce": value}),
        **({} if table_4 is None else {"ce": dict(table_4.ce)}),
    }


def _published_score(row: Mapping[str, Any], method: str) -> float | None:
    """Return the paper's value on a complete test set: that of Table 7, else that of the set's published choice."""
    tables = [set_scores(method, row["batch_norm"]), set_scores(method) if row["published_choice"] else None]
    values = (scores.of(row["suite"]) for scores in tables if scores is not None)
    return next((value for value in values if value is not None), None)


def _published_error(row: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Return Table 5's value on a part of ImageNet-C."""
    errors = table_5_errors(method)
    if errors is None or row["suite"] != IMAGENET_C or not row["published_choice"]:
        return {}
    _, corruption, severity = row["data"].split("/")
    return {"top1": _share(100 - errors[corruption, int(severity)])}


def _share(per_cent: float) -> float:
    return round(per_cent / 100, 6)
