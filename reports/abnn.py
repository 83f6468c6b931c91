"""Accuracy under attack (Tables 1 to 3 of the paper on ABNN), and the cost of training, of each defence.

Everything in this module is computed from the lines that `abnn attack` wrote; no network runs.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from abnn.results import PLAIN_PASSES
from basics.files import canonical_json
from downstream.result_store import Row
from reports.intervals import proportion
from reports.published_abnn_tables import is_published_network, published_attack, published_methods

KIND = "accuracy under attack"
METHODS = {"none": "no defence", "pgd-at": "PGD-AT", "oudefend": "OUDefend", "abnn": "ABNN"}
"""Defences in the order of the tables -> their names in the paper."""
TASKS = {"cifar10": "CIFAR-10", "ucf101": "UCF-101"}
GROUP = ("task", "method", "arch", "width", "recipe", "cost_formula")
"""Fields that are equal for models of one method that was trained several times."""

_ATTACKS = ("clean", "pgd", "adaptive", "transfer", "autoattack", "roa", "worst")
"""Beginnings of the attacks' names, in the order of the columns."""
_OWN_SETTINGS = {"seed", "twin", "twin_sha256"}
"""Settings in which models of one mean may differ: for each seed there may be another surrogate (stored as `twin`)."""

Report = Mapping[str, Any]


def abnn_report(results: Sequence[Row]) -> dict[str, Any]:
    """Return the report as JSON values.

    Args:
        results: lines of `abnn attack` (see `reports.abnn_results.read_abnn_results`).

    Returns:
        `rows`: each line with its 95% interval, its cost in network passes N (`cost_formula`, and measured by FLOPs and
        by time), and `published`: the paper's accuracy where the attack is the paper's, else null;
        `published_same_setting` is true if network and test set are the paper's as well. `means`: over models that
        differ only in their seed; with `group_models` where names would be the same. `costs`: of each method, as
        multiples of a plain step. `attacks`: task -> columns.
    """
    costs = {row["model"]: row["cost"] for row in reversed(results) if row["cost"] is not None}
    rows = sorted((_row({**row, "cost": costs.get(row["model"])}) for row in results), key=_row_order)
    return {
        "report": KIND,
        "attacks": {task: _attacks(of_task) for (task,), of_task in grouped(rows, "task").items()},
        "rows": rows,
        "means": _named_apart([(group, mean) for group in grouped(rows, *GROUP).values() for mean in _means(group)]),
        "costs": [_cost(group) for group in grouped(rows, *GROUP).values() if group[0]["cost"] is not None],
    }


def grouped(rows: Iterable[Mapping[str, Any]], *names: str) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
    """Return rows grouped by the values of some fields; groups are in order of their first row."""
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        found[tuple(row[name] for name in names)].append(row)
    return dict(found)


def differ_in_seed_only(group: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the models of a group's rows differ only in their seed, as far as results show."""
    models = {row["model"]: row for row in group}.values()
    seeds, weights = ({row[name] for row in models} for name in ("seed", "weights_sha256"))
    return len(seeds) == len(weights) == len(models) and None not in seeds


def settings_differ(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether an attack's settings differ between its rows, except in what belongs to each model."""
    shared = (
        {name: each[name] for name in each if name not in _OWN_SETTINGS} for each in (row["settings"] for row in rows)
    )
    return len({canonical_json(settings) for settings in shared}) > 1


def accuracies_of(report: Report, task: str) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Return the accuracies of a benchmark's methods: means over seeds, or else those of each model.

    Returns:
        Name -> attack -> accuracy, and the ends of its range: lowest and highest seed, or the 95% interval.
    """
    found: dict[str, dict[str, tuple[float, float, float]]] = defaultdict(dict)
    means = {(model, mean["attack"]): mean for mean in report["means"] for model in mean["models"]}
    for row in report["rows"]:
        if row["task"] == task:
            mean = means.get((row["model"], row["attack"]))
            name = model_label(row) if mean is None else mean_name(mean)
            ends = ("accuracy_low", "accuracy_high") if mean is None else ("accuracy_lowest", "accuracy_highest")
            low, high = ((mean or row)[end] for end in ends)
            found[name][row["attack"]] = ((mean or row)["accuracy"], low, high)
    return dict(found)


def model_label(row: Mapping[str, Any]) -> str:
    """Return the name of a model in tables: with its method."""
    return f"{_method_name(row)}: {row['model']}"


def mean_name(mean: Mapping[str, Any]) -> str:
    """Return the name of the mean over a group's seeds in tables; with its models, if another group has this name."""
    models = f"; {', '.join(mean['group_models'])}" if "group_models" in mean else ""
    return f"{_method_name(mean)}: mean of {mean['group_size']} seeds ({_network(mean)}{models})"


def group_name(group: Mapping[str, Any]) -> str:
    """Return the name of a group in tables: its method with its network."""
    return f"{_method_name(group)} ({_network(group)})"


def _method_name(row: Mapping[str, Any]) -> str:
    method: str = row["method"]
    return METHODS.get(method, method)


def _network(row: Mapping[str, Any]) -> str:
    return f"{row['arch']}, width {row['width']:g}"


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    interval = proportion(round(row["accuracy"] * row["n"]), row["n"])
    column = published_attack(row["task"], row["attack"], row["settings"])
    method = published_methods(row["task"]).get(row["defence"])
    per_cent = None if method is None or column is None else method.accuracy[column]
    cost = row["cost"] or {}
    return {
        **row,
        "method": row["defence"],
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
        "cost_formula": cost.get("passes"),
        "cost_measured": _in_passes(cost, "flops"),
        "cost_time": _in_passes(cost, "seconds"),
        "published": None if per_cent is None else round(per_cent / 100, 6),
        "published_attack": column,
        "published_same_setting": per_cent is not None and is_published_network(row),
    }


def _in_passes(cost: Mapping[str, Any], what: str) -> float | None:
    """Return a measured cost in network passes, of which a plain step has two; None if it was not measured."""
    step, plain = cost.get(f"{what}_step"), cost.get(f"{what}_plain_step")
    return None if step is None or plain is None else float(PLAIN_PASSES * step / plain)


def _attacks(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted({row["attack"] for row in rows}, key=_attack_order)


def _attack_order(attack: str) -> tuple[int, list[int], str]:
    kind = attack.lower().partition("-")[0].partition(" ")[0]
    return _position(kind, _ATTACKS), [int(number) for number in re.findall(r"[0-9]{1,9}", attack)], attack


def _row_order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    task, method = (
        (_position(row["task"], list(TASKS)), row["task"]),
        (_position(row["method"], list(METHODS)), row["method"]),
    )
    seed = -1 if row["seed"] is None else row["seed"]
    return task, method, row["arch"], row["width"], seed, row["model"], _attack_order(row["attack"])


def _position(name: str, known: Sequence[str]) -> int:
    return known.index(name) if name in known else len(known)


def _means(group: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a group's mean under each attack that has results of two or more of its models with equal settings."""
    if not differ_in_seed_only(group):
        return []
    size = len({row["model"] for row in group})
    means = []
    for (attack,), rows in grouped(group, "attack").items():
        if len(rows) > 1 and not settings_differ(rows):
            values = [row["accuracy"] for row in rows]
            means.append(
                {
                    **{name: rows[0][name] for name in GROUP},
                    "attack": attack,
                    "models": [row["model"] for row in rows],
                    "group_size": size,
                    "n": rows[0]["n"],
                    "accuracy": sum(values) / len(values),
                    "accuracy_lowest": min(values),
                    "accuracy_highest": max(values),
                }
            )
    return means


def _named_apart(
    found: Sequence[tuple[Sequence[Mapping[str, Any]], dict[str, Any]]],
) -> list[dict[str, Any]]:
    """Return means, with the models of their groups (`group_models`) where several groups would have the same name.

    They differ in their recipe alone: such as how long they were trained, beside which substitute, on how many frames.

    Args:
        found: groups, each with one of its means.
    """
    groups: dict[tuple[str, str], set[str]] = defaultdict(set)
    for group, mean in found:
        groups[mean["task"], mean_name(mean)].add(group[0]["model"])
    return [
        {**mean, "group_models": list(dict.fromkeys(row["model"] for row in group))}
        if len(groups[mean["task"], mean_name(mean)]) > 1
        else mean
        for group, mean in found
    ]


def _cost(group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a method's cost as multiples of a plain step, measured ones as the mean over its models."""
    models = list({row["model"]: row for row in group}.values())
    method = published_methods(group[0]["task"]).get(group[0]["method"])
    return {
        **{name: group[0][name] for name in GROUP},
        "models": [row["model"] for row in models],
        "formula": group[0]["cost_formula"] / PLAIN_PASSES,
        "flops": _spread(row["cost_measured"] for row in models),
        "time": _spread(row["cost_time"] for row in models),
        "published": None if method is None else method.passes / PLAIN_PASSES,
        "batches": sorted({row["cost"]["batch"] for row in models if row["cost"].get("batch") is not None}),
        "devices": sorted({row["cost"]["device"] for row in models if row["cost"].get("device") is not None}),
    }


def _spread(passes: Iterable[float | None]) -> dict[str, float] | None:
    values = [value / PLAIN_PASSES for value in passes if value is not None]
    if not values:
        return None
    return {"mean": sum(values) / len(values), "lowest": min(values), "highest": max(values)}
