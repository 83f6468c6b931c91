"""Charts of a shift report."""

from collections.abc import Mapping
from typing import Any

from downstream.mce import CORRUPTIONS
from downstream.suites import IMAGENET_C
from reports.charts import dots_chart
from reports.shift import Report, batch_norms_of, row_of


def corruption_chart(report: Report) -> str:
    """Draw each model's corruption errors; empty if no corruption is complete."""
    series = {}
    for name, model, which in _named_models(report):
        row = row_of(report, model, which, IMAGENET_C)
        if row is not None:
            series[name] = {each: value for each, value in row["ce"].items() if value is not None}
    rows = [name for name in CORRUPTIONS if any(name in values for values in series.values())]
    return dots_chart("corruptions", rows, series, "corruption error (% of AlexNet's error; lower is better)")


def set_chart(report: Report) -> str:
    """Draw each model's top-1 on each test set that was scored completely."""
    sets = list(dict.fromkeys(row["data"] for row in report["rows"] if "/" not in row["data"]))
    series = {
        name: {data: value for data in sets if (value := _top1(row_of(report, model, which, data))) is not None}
        for name, model, which in _named_models(report)
    }
    rows = [data for data in sets if any(data in values for values in series.values())]
    return dots_chart("sets", rows, series, "top-1 (%; higher is better)")


def _top1(row: Mapping[str, Any] | None) -> float | None:
    return None if row is None or row["top1"] is None else 100 * row["top1"]


def _named_models(report: Report) -> list[tuple[str, str, str | None]]:
    return [
        (model if which is None else f"{model}, {which}", model, which)
        for model in report["models"]
        for which in batch_norms_of(report, model)
    ]
