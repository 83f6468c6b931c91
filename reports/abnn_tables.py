"""Tables of an ABNN report: accuracies as in the paper's Tables 1 to 3, and what training costs."""

from collections.abc import Mapping, Sequence
from typing import Any

from reports.abnn import METHODS, Report, Row, attack_place
from reports.dots import dots_chart
from reports.published_abnn import PUBLISHED
from reports.tables import NOTHING, Cell, Line, Table

CALLED = {"none": "no defence", "pgd-at": "PGD-AT", "abnn": "ABNN", "oudefend": "OUDefend"}
"""Defence -> its name in tables."""
_COST_HEAD = ("training cost, formula", "by operations", "by time")


def abnn_tables(report: Report) -> list[Table]:
    """Return every task's tables: accuracies, costs, attacks."""
    tables = []
    for task in report["tasks"]:
        rows = [row for row in report["rows"] if row["task"] == task]
        tables += [_accuracies(task, rows), *_costs(task, rows), _attacks(task, rows)]
    return tables


def compact_table(report: Report) -> Table:
    """Return the accuracies of the first task, for a terminal."""
    task = report["tasks"][0]
    return _accuracies(task, [row for row in report["rows"] if row["task"] == task])


def _accuracies(task: str, rows: Sequence[Row]) -> Table:
    attacks = sorted({row["attack"] for row in rows}, key=attack_place)
    lines = []
    for method in sorted({row["method"] for row in rows}, key=METHODS.index):
        by_model = _by_model([row for row in rows if row["method"] == method])
        for model, found in by_model.items():
            name = f"{CALLED[method]} ({model})"
            lines.append(Line(name, [*(_share(found.get(attack)) for attack in attacks), *_cost_cells(found)]))
        if len(by_model) > 1:
            lines.append(Line(f"{CALLED[method]}, mean of {len(by_model)}", _means(by_model, attacks)))
        lines += _published(task, method, attacks)
    return Table(
        title=f"Accuracy under attack: {task}",
        first="method",
        head=[*attacks, *_COST_HEAD],
        lines=lines,
        note="Accuracy in per cent with its 95% interval; of several networks the mean, the lowest and the highest. "
        "Costs are those of a training step in network passes N, a plain step being 2N. Lines in italics are the "
        f"paper's{_other_setting(rows)}",
    )


def _other_setting(rows: Sequence[Row]) -> str:
    told = [row["published"]["same_setting"] for row in rows if row["published"]]
    if told and all(told):
        return "."
    return (
        ": whole test set, networks of full width, the full recipe. Where ours are smaller, they are no yardstick; "
        "compare the order of the methods."
    )


def _by_model(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row["model"], {})[row["attack"]] = row
    return found


def _share(row: Mapping[str, Any] | None) -> Cell:
    if row is None:
        return Cell(NOTHING)
    low, high = 100 * row["accuracy_low"], 100 * row["accuracy_high"]
    return Cell(f"{100 * row['accuracy']:.1f}", f"[{low:.1f}, {high:.1f}]")


def _cost_cells(found: Mapping[str, Row]) -> list[Cell]:
    row = next(iter(found.values()))
    values = [row[name] for name in ("cost_formula", "cost_measured", "cost_time")]
    if None in values:
        return [Cell(NOTHING)] * len(values)
    formula, *measured = values
    return [Cell(f"{formula:.0f}N"), *(Cell(f"{value:.2f}N") for value in measured)]


def _means(by_model: Mapping[str, Mapping[str, Row]], attacks: Sequence[str]) -> list[Cell]:
    cells = []
    for attack in attacks:
        values = [100 * found[attack]["accuracy"] for found in by_model.values() if attack in found]
        if len(values) < len(by_model):
            cells.append(Cell(NOTHING))
            continue
        cells.append(Cell(f"{sum(values) / len(values):.1f}", f"({min(values):.1f} to {max(values):.1f})"))
    return [*cells, *[Cell("")] * len(_COST_HEAD)]


def _published(task: str, method: str, attacks: Sequence[str]) -> list[Line]:
    row = PUBLISHED.get(task, {}).get(method)
    if row is None:
        return []
    cells = [Cell(f"{row.accuracy[attack]:.1f}" if attack in row.accuracy else NOTHING) for attack in attacks]
    costs = [Cell(f"{row.passes:.0f}N"), Cell(NOTHING), Cell(NOTHING)]
    return [Line(f"published: {row.called}", [*cells, *costs], published=True)]


def _costs(task: str, rows: Sequence[Row]) -> list[Table]:
    measured = {row["model"]: row for row in rows if row["cost"] is not None}
    lines = []
    for model, row in measured.items():
        parts, cost = row["cost"]["parts"], row["cost"]
        ratios = [row[name] / 2 for name in ("cost_formula", "cost_measured", "cost_time")]
        whole = cost["flops_plain_step"]
        shares = [parts["target_forward"], parts["substitute_forward"], parts["plain_backward"]]
        cells = [f"{ratio:.2f}" for ratio in ratios] + [f"{share / whole:.2f}" for share in shares]
        name = f"{CALLED[row['method']]} ({model}: {row['arch']}, width {row['width']:g})"
        lines.append(Line(name, [Cell(cell) for cell in [*cells, f"{cost['batch']} images, {cost['device']}"]]))
    if not lines:
        return []
    head = [
        "formula", "operations", "time", "target forward", "substitute forward", "target backward", "measured on",
    ]  # fmt: skip
    note = (
        "Cost of a training step as a multiple of a plain step of the same target on the same batch: by the paper's "
        "formula, by operations counted in a real step (convolutions and matrix products), and by time (best of three "
        "rounds, in turn). Then the parts, as shares of the plain step. The formula takes every pass for N. A backward "
        "pass that learns costs two (gradients of weights and of features), one that attacks costs one, and a "
        "substitute costs what its size is: so ABNN costs 1 + substitute forward, and adversarial training "
        "(2 t + 3) / 3 where the formula says t + 1."
    )
    return [Table(title=f"Cost of a training step: {task}", first="method", head=head, lines=lines, note=note)]


def _attacks(task: str, rows: Sequence[Row]) -> Table:
    told: dict[tuple[str, str], None] = {}
    for row in sorted(rows, key=lambda row: attack_place(row["attack"])):
        told[row["attack"], _in_words(row["settings"])] = None
    lines = [Line(attack, [Cell(words)]) for attack, words in told]
    counts = sorted({row["n"] for row in rows})
    note = f"Each network answered {' or '.join(f'{count:,}' for count in counts)} test images."
    if len({(row["data_sha256"], row["n"]) for row in rows}) > 1:
        note += " Not all on the same images: lines and columns of other images are not to be compared."
    return Table(title=f"Attacks: {task}", first="attack", head=["settings"], lines=lines, note=note)


def _in_words(settings: Mapping[str, Any]) -> str:
    words = []
    for name, value in settings.items():
        if value is None or name.endswith("sha256"):
            continue
        shown = f"{value * 255:.3g}/255" if name in {"eps", "step_size"} else _plain(value)
        words.append(f"{name.replace('_', ' ')} {shown}")
    return ", ".join(words) or "none"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def abnn_charts(report: Report) -> list[str]:
    """Draw each task's accuracies: a row an attack, a mark a network."""
    charts = []
    for task in report["tasks"]:
        rows = [row for row in report["rows"] if row["task"] == task]
        attacks = sorted({row["attack"] for row in rows}, key=attack_place)
        series: dict[str, dict[str, float]] = {}
        for row in rows:
            series.setdefault(f"{CALLED[row['method']]} ({row['model']})", {})[row["attack"]] = 100 * row["accuracy"]
        charts.append(dots_chart(f"attacks-{task}", attacks, series, f"{task}: accuracy (%; higher is better)"))
    return charts
