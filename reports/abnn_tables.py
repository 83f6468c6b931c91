"""Tables of a report on accuracy under attack, and notes on them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from abnn.results import PLAIN_PASSES
from basics.files import canonical_json
from reports.abnn import (
    GROUP,
    METHODS,
    TASKS,
    Report,
    accuracies_of,
    differ_in_seed_only,
    group_name,
    grouped,
    mean_name,
    model_label,
    settings_differ,
)
from reports.published_abnn_tables import TABLES, published_methods
from reports.tables import NO_VALUE, Cell, Line, Table, percent_cell

_COSTS = {"cost_formula": "cost, formula", "cost_measured": "cost by FLOPs", "cost_time": "cost by time"}
_CHECKSUM_SHOWN = 12
_SHOWN_SETTINGS = {"twin": "surrogate", "twin_sha256": "surrogate sha256"}
"""Settings that tables show under another name than the stored one."""

Rows = Sequence[Mapping[str, Any]]


def abnn_tables(report: Report) -> list[Table]:
    """Return accuracies by task, then costs, if any were measured, and the settings of the attacks."""
    tables = accuracy_tables(report)
    if report["costs"]:
        tables.append(_costs(report))
    if any(row["settings"] for row in report["rows"]):
        tables.append(_settings(report))
    return tables


def accuracy_tables(report: Report) -> list[Table]:
    """Return a table for each task: methods by attacks, with the cost of training."""
    return [_accuracies(report, task) for task in report["attacks"]]


def task_name(task: str) -> str:
    """Return the paper's name of a benchmark."""
    return TASKS.get(task, task)


def abnn_notes(report: Report) -> list[str]:
    """Return a sentence on everything that keeps numbers of these tables from being compared or averaged."""
    return [*_sample_notes(report), *_settings_notes(report), *_cut_notes(report), *_seed_notes(report)]


def accuracy_sentences(report: Report) -> list[str]:
    """Return a sentence on each method's accuracy: clean, under the paper's PGD, and the lowest one."""
    return [
        f"{task_name(task)}, {name}: {_sentence(report, task, accuracies)}."
        for task in report["attacks"]
        for name, accuracies in accuracies_of(report, task).items()
    ]


def _sentence(report: Report, task: str, accuracies: Mapping[str, tuple[float, float, float]]) -> str:
    published = {row["attack"] for row in report["rows"] if row["task"] == task and row["published_attack"]}
    per_cent = {attack: 100 * value for attack, (value, _, _) in accuracies.items()}
    parts = [
        f"{value:.1f}% {'' if attack == 'clean' else 'under '}{attack}"
        for attack, value in per_cent.items()
        if attack in published
    ]
    lowest = min(per_cent, key=lambda attack: per_cent[attack])
    if lowest not in published:
        parts.append(f"{per_cent[lowest]:.1f}% under {lowest}{', the lowest' if len(per_cent) > 1 else ''}")
    return ", ".join(parts)


def _accuracies(report: Report, task: str) -> Table:
    rows = [row for row in report["rows"] if row["task"] == task]
    attacks = {attack: [row for row in rows if row["attack"] == attack] for attack in report["attacks"][task]}
    known = published_methods(task)
    methods = [*METHODS, *(row["method"] for row in rows if row["method"] not in METHODS)]
    lines = []
    for method in dict.fromkeys(methods):
        own = [row for row in rows if row["method"] == method]
        for group in grouped(own, *GROUP).values():
            lines += [_model_line(of_model, list(attacks)) for of_model in grouped(group, "model").values()]
            lines += _mean_lines(report, group, list(attacks))
        if method in known:
            lines.append(_published_line(task, method, attacks, own or rows))
    return Table(
        title=f"{task_name(task)} ({TABLES[task]})" if task in TABLES else task_name(task),
        first="method: model",
        head=[*(f"{attack} (n = {of_attack[0]['n']})" for attack, of_attack in attacks.items()), *_COSTS.values()],
        lines=lines,
        note="Accuracy in per cent with 95% intervals; for means, the lowest and the highest seed. Cost of a "
        "training step in network passes N: a plain step has two, by FLOPs and by time as well.",
    )


def _model_line(rows: Rows, attacks: Sequence[str]) -> Line:
    by_attack = {row["attack"]: row for row in rows}
    cells = [_accuracy_cell(by_attack.get(attack)) for attack in attacks]
    return Line(model_label(rows[0]), [*cells, *(Cell(_passes(rows[0][name])) for name in _COSTS)])


def _accuracy_cell(row: Mapping[str, Any] | None) -> Cell:
    return Cell(NO_VALUE) if row is None else percent_cell(row["accuracy"], row["accuracy_low"], row["accuracy_high"])


def _mean_lines(report: Report, group: Rows, attacks: Sequence[str]) -> list[Line]:
    """Return the line of a group's means; none if there are none."""
    means = {mean["attack"]: mean for mean in report["means"] if all(mean[name] == group[0][name] for name in GROUP)}
    if not means:
        return []
    (cost,) = [each for each in report["costs"] if all(each[name] == group[0][name] for name in GROUP)] or [{}]
    measured = [_passes(PLAIN_PASSES * cost[name]["mean"] if cost.get(name) else None) for name in ("flops", "time")]
    cells = [_mean_cell(means.get(attack)) for attack in attacks]
    name = mean_name(next(iter(means.values())))
    return [Line(name, [*cells, Cell(_passes(group[0]["cost_formula"])), *map(Cell, measured)])]


def _mean_cell(mean: Mapping[str, Any] | None) -> Cell:
    if mean is None:
        return Cell(NO_VALUE)
    value, low, high = (100 * mean[name] for name in ("accuracy", "accuracy_lowest", "accuracy_highest"))
    seeds = len(mean["models"])
    fewer = f"; {seeds} seeds" if seeds < mean["group_size"] else ""
    return Cell(f"{value:.1f}", f"({low:.1f} to {high:.1f}{fewer})")


def _published_line(task: str, method: str, attacks: Mapping[str, Rows], own: Rows) -> Line:
    """Return a method's line of the paper, marked unless all results beside it were obtained as published."""
    known = published_methods(task)[method]
    beside = [row["published_same_setting"] for row in own if row["published_attack"]]
    where = "" if beside and all(beside) else ", in another setting"
    cells = [Cell(_published_value(known.accuracy, rows)) for rows in attacks.values()]
    costs = [Cell(f"{known.passes}N"), Cell(NO_VALUE), Cell(NO_VALUE)]
    return Line(f"published: {METHODS[method]}{where}", [*cells, *costs], published=True)


def _published_value(accuracy: Mapping[str, float], rows: Rows) -> str:
    columns = {row["published_attack"] for row in rows}
    return str(accuracy[columns.pop()]) if len(columns) == 1 and None not in columns else NO_VALUE


def _passes(value: float | None) -> str:
    return NO_VALUE if value is None else f"{value:.2f}".rstrip("0").rstrip(".") + "N"


def _costs(report: Report) -> Table:
    lines = []
    names = [(cost["task"], group_name(cost)) for cost in report["costs"]]
    for cost, (task, name) in zip(report["costs"], names, strict=True):
        # Groups of one name differ in their recipe, which is too long for a table.
        models = f": {', '.join(cost['models'])}" if names.count((task, name)) > 1 else ""
        cells = [Cell(_times(cost["published"])), Cell(_times(cost["formula"])), _spread(cost["flops"])]
        where = Cell(", ".join([*cost["devices"], *(f"batch {batch}" for batch in cost["batches"])]) or NO_VALUE)
        lines.append(Line(f"{task_name(task)}: {name}{models}", [*cells, _spread(cost["time"]), where]))
    return Table(
        title="Cost of a training step, as a multiple of a plain one",
        first="method",
        head=["published", "formula", "measured by FLOPs", "measured by time", "measured on"],
        lines=lines,
        note="The formula counts network passes and takes target and substitute for equally large; FLOPs and seconds "
        "are those of one real step beside one of the same network without defence. Of several models the mean, with "
        "the lowest and the highest.",
    )


def _times(value: float | None) -> str:
    return NO_VALUE if value is None else f"{value:.2f}".rstrip("0").rstrip(".")


def _spread(values: Mapping[str, float] | None) -> Cell:
    if values is None:
        return Cell(NO_VALUE)
    ends = [_times(values[name]) for name in ("lowest", "highest")]
    return Cell(_times(values["mean"]), f"({' to '.join(ends)})" if ends[0] != ends[1] else "")


def _settings(report: Report) -> Table:
    """Return a line for each set of settings of an attack; models are named where there are several."""
    names = list(dict.fromkeys(name for row in report["rows"] for name in row["settings"]))
    lines = []
    for (task, attack), rows in _columns(report).items():
        ways: dict[bytes, list[Mapping[str, Any]]] = {}
        for row in rows:
            ways.setdefault(canonical_json(row["settings"]), []).append(row)
        for alike in ways.values():
            models = f" ({', '.join(row['model'] for row in alike)})" if len(ways) > 1 else ""
            cells = [Cell(_setting_text(alike[0]["settings"].get(name))) for name in names]
            published = Cell("yes" if alike[0]["published_attack"] else "no")
            lines.append(Line(f"{task_name(task)}: {attack}{models}", [published, Cell(str(alike[0]["n"])), *cells]))
    return Table(
        title="Settings of the attacks",
        first="attack",
        head=["as published", "samples", *(_SHOWN_SETTINGS.get(name, name.replace("_", " ")) for name in names)],
        lines=lines,
        note="As published: the attack has what the paper states, which is silent on step sizes and starts; the "
        "published code draws ROA's position in each frame.",
    )


def _columns(report: Report) -> dict[tuple[str, str], Rows]:
    """Return rows by task and attack, in the order of the tables."""
    found = grouped(report["rows"], "task", "attack")
    return {(task, attack): found[task, attack] for task, attacks in report["attacks"].items() for attack in attacks}


def _setting_text(value: Any) -> str:
    """Return the text of a setting; multiples of 1/255 are written as fractions."""
    if value is None:
        return NO_VALUE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and _is_fraction(value):
        return f"{round(value * 255, 2):g}/255"
    if isinstance(value, int | float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(_setting_text, value))
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text[:_CHECKSUM_SHOWN] if _is_checksum(text) else text


def _is_fraction(value: float) -> bool:
    """Whether a number is a multiple of 1/255, or of a quarter of it: steps of small balls are as short."""
    parts = value * 255 * (4 if value < 1 / 255 else 1)
    return 0 < value < 1 and abs(parts - round(parts)) < 1e-6


def _is_checksum(text: str) -> bool:
    return len(text) == 64 and not set(text) - set("0123456789abcdef")


def _sample_notes(report: Report) -> list[str]:
    notes = []
    for task, attacks in report["attacks"].items():
        data = {row["data_sha256"] for row in report["rows"] if row["task"] == task}
        if len(data) > 1:
            notes.append(
                f"{task_name(task)}: not all of {', '.join(attacks)} were evaluated on the same test samples; compare "
                "accuracies within a column."
            )
    return notes


def _settings_notes(report: Report) -> list[str]:
    return [
        f"{task_name(task)}: {attack} does not have the same settings for every model; see the table of settings."
        for (task, attack), rows in _columns(report).items()
        if settings_differ(rows)
    ]


def _cut_notes(report: Report) -> list[str]:
    return [
        f"{task_name(task)}: under {attack} gradients are cut in shortcuts without weights, as in the published code. "
        "It shows what that hides; the same attack with whole gradients counts."
        for (task, attack), rows in _columns(report).items()
        if any(row["settings"].get("cut_shortcut") for row in rows)
    ]


def _seed_notes(report: Report) -> list[str]:
    notes = []
    for group in grouped(report["rows"], *GROUP).values():
        models = _names(group)
        if len(models) > 1 and not differ_in_seed_only(group):
            name = f"{task_name(group[0]['task'])}, {group_name(group[0])}"
            notes.append(f"{name}: {', '.join(models)} share a seed or their weights, so there is no mean over seeds.")
    return notes


def _names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["model"] for row in rows))
