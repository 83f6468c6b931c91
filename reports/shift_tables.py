"""Tables of a shift report, as cells that pages, Markdown and the terminal share."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from downstream.mce import CORRUPTIONS, SEVERITIES
from downstream.suites import (
    ADVBN,
    CUE_CONFLICT,
    EDGES,
    IMAGENET,
    IMAGENET_A,
    IMAGENET_C,
    IMAGENET_R,
    IMAGENET_V2,
    INSTAGRAM,
    OF_SIXTEEN_CLASSES,
    OTHERS,
    RECONSTRUCTED,
    SILHOUETTES,
    SKETCH,
    SOME_CLASSES,
    STYLE,
)
from downstream.summaries import cut_short, errors_of
from reports.published_tables_4_to_7 import (
    SetScores,
    set_scores,
    table_4_methods,
    table_4_row,
    table_5_errors,
    table_5_methods,
    table_7_rows,
    tables_1_and_6_methods,
)
from reports.shift import Report, batch_norms_of, published_choice, published_metric, row_of
from reports.tables import NO_VALUE, Cell, Line, Table

SET_NAMES = {
    IMAGENET: "ImageNet top-1",
    IMAGENET_C: "ImageNet-C mCE",
    INSTAGRAM: "Instagram top-1",
    SKETCH: "Sketch top-1",
    STYLE: "Style top-1",
}
_OTHER_NAMES = {
    IMAGENET_V2: "ImageNet-V2",
    IMAGENET_R: "ImageNet-R",
    IMAGENET_A: "ImageNet-A",
    CUE_CONFLICT: "cue conflict",
    SILHOUETTES: "silhouettes",
    EDGES: "edges",
}
_PUBLISHED_CLASSES = 200
"""Classes of ImageNet-R, and of ImageNet-A."""
_CHOICE = "*"
"""Marks the batch norm that the paper uses on a test set."""


def shift_tables(report: Report) -> list[Table]:
    """Return every table for which there are results, in the paper's order, our shards last."""
    suites = {row["suite"] for row in report["rows"]}
    tables = []
    if IMAGENET_C in suites:
        tables += [_corruptions(report), _severities(report)]
    tables.append(_sets(report))
    if any(None not in batch_norms_of(report, model) for model in report["models"]):
        tables.append(_batch_norms(report))
    if suites & set(OTHERS):
        tables.append(_others(report))
    if suites & {ADVBN, RECONSTRUCTED}:
        tables.append(_shards(report))
    return [table for table in tables if any(not line.published for line in table.lines)]


def compact_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of models by test sets; main and auxiliary batch norm of a model share a cell."""
    columns = _compact_columns(report)
    rows = []
    for model in report["models"]:
        sets = batch_norms_of(report, model)
        cells = [" / ".join(value(model, which) for which in sets) for value in columns.values()]
        rows.append([model + (" (main / auxiliary)" if len(sets) > 1 else ""), *cells])
    return ["model", *columns], rows


def missing_notes(report: Report) -> list[str]:
    """Return a sentence on each incomplete set of several parts: what is missing, and the means of the other parts."""
    notes = []
    for row in report["rows"]:
        shown = f"{_shown(row['model'], row['batch_norm'])}, {row['data']}"
        if not row.get("summary"):
            notes += [f"{shown}: {each}." for each in _own_decision(row)]
        if row.get("missing"):
            notes.append(f"{shown}: incomplete ({_missing_parts(row['missing'])}). {_partial_means(row)}")
        elif not row.get("summary") and row["suite"] not in {IMAGENET_C, INSTAGRAM} and cut_short([row]):
            notes.append(f"{shown}: {cut_short([row])[0]} only.")
    return notes


def _own_decision(row: Mapping[str, Any]) -> list[str]:
    """Return what a reader has to know of how a model decided on a set."""
    found = [f"decision: {row['decision']}"] if "decision" in row and row["suite"] not in OF_SIXTEEN_CLASSES else []
    if row["suite"] in SOME_CLASSES and row.get("present", row)["classes"] != _PUBLISHED_CLASSES:
        found.append(f"{row.get('present', row)['classes']} classes instead of {_PUBLISHED_CLASSES}")
    return found


def _missing_parts(missing: Iterable[str]) -> str:
    """Return what is missing, the severities of a corruption together, all five left out: `without fog 1 3, snow`."""
    grouped: dict[str, list[str]] = defaultdict(list)
    counts = []
    for name in missing:
        _, slash, rest = name.partition("/")
        corruption, _, severity = rest.partition("/")
        if slash:
            grouped[corruption].append(severity)
        else:
            counts.append(name)
    parts = [name if len(levels) == len(SEVERITIES) else " ".join([name, *levels]) for name, levels in grouped.items()]
    return "; ".join(counts + ([f"without {', '.join(parts)}"] if parts else []))


def _partial_means(row: Mapping[str, Any]) -> str:
    partial = row["partial"]
    if row["suite"] == INSTAGRAM:
        return f"Mean of the {partial['filters']} present filters: top-1 {_percent(partial['top1'])}%."
    subsets = partial.get("subsets", row["subsets"])
    mean = f"Over the {subsets} present subsets: mean error {_percent(partial['mean_error'])}%"
    if partial["mean_ce"] is None:
        return f"{mean}; no corruption has all five severities."
    return f"{mean}; over the {partial['corruptions']} complete corruptions: mean CE {partial['mean_ce']:.1f} (no mCE)."


def _compact_columns(report: Report) -> dict[str, Callable[[str, str | None], str]]:
    present = {row["suite"] for row in report["rows"]}
    columns: dict[str, Callable[[str, str | None], str]] = {}
    for suite, name in SET_NAMES.items():
        if suite in present:
            columns[name] = _marked(report, suite)
        if suite == IMAGENET_C and suite in present:
            columns["ImageNet-C mean error"] = _mean_error(report)
    for name, value in _other_columns(present).items():
        columns[name] = _of_other(report, value)
    for data in _shard_names(report):
        columns[f"{data} top-1"] = _plain(report, data)
    return columns


def _marked(report: Report, suite: str) -> Callable[[str, str | None], str]:
    def value(model: str, which: str | None) -> str:
        found = published_metric(row_of(report, model, which, suite))
        chosen = which is not None and which == published_choice(report, model, suite) and found is not None
        return _number(found) + (_CHOICE if chosen else "")

    return value


def _mean_error(report: Report) -> Callable[[str, str | None], str]:
    def value(model: str, which: str | None) -> str:
        row = row_of(report, model, which, IMAGENET_C)
        return NO_VALUE if row is None or row["mean_error"] is None else _percent(row["mean_error"])

    return value


def _plain(report: Report, data: str) -> Callable[[str, str | None], str]:
    return lambda model, which: _number(published_metric(row_of(report, model, which, data)))


def _shard_names(report: Report) -> list[str]:
    shards = (row["data"] for row in report["rows"] if row["suite"] in {ADVBN, RECONSTRUCTED})
    return list(dict.fromkeys(shards))


def _corruptions(report: Report) -> Table:
    """Return the table of errors on the corruptions of ImageNet-C, as the paper's Table 4 has them."""
    lines = []
    for model, which in _all_models(report):
        row, clean = row_of(report, model, which, IMAGENET_C), row_of(report, model, which, IMAGENET)
        if row is not None:
            error, plain = None if clean is None else 1 - clean["top1"], row["mean_error"]
            means = [None if error is None else 100 * error, row["mce"], None if plain is None else 100 * plain]
            lines.append(Line(_shown(model, which), _cells([*means, *(row["ce"][name] for name in CORRUPTIONS)])))
    for name in table_4_methods():
        known = table_4_row(name)
        assert known is not None  # noqa: S101 (for the type checker)
        values = [known.clean_error, known.mce, None, *known.ce.values()]
        lines.append(_published(report, name, _printed(values), IMAGENET_C))
    return Table(
        title="Corruptions (Table 4)",
        first="model",
        head=["clean error", "mCE", "mean error, not normalised", *(name.replace("_", " ") for name in CORRUPTIONS)],
        lines=lines,
        note="Corruption errors in per cent of AlexNet's; mCE is their mean. The mean error is the plain mean of the "
        "75 errors: another quantity, not to be compared with mCE.",
    )


def _severities(report: Report) -> Table:
    """Table 5: the error on every subset, with the published choice of batch norm."""
    lines = []
    ours = {
        model: errors_of(row for row in report["rows"] if row["model"] == model and row["published_choice"])
        for model in report["models"]
    }
    for corruption in CORRUPTIONS:
        shown = corruption.replace("_", " ")
        for model, errors in ours.items():
            values = [errors.get((corruption, level)) for level in SEVERITIES]
            if any(value is not None for value in values):
                lines.append(Line(f"{shown}: {model}", [Cell(NO_VALUE if v is None else _percent(v)) for v in values]))
        for name in table_5_methods():
            known = table_5_errors(name) or {}
            cells = [Cell(f"{known[corruption, level]:.0f}") for level in SEVERITIES]
            lines.append(_published(report, name, cells, IMAGENET_C, before=f"{shown}: "))
    return Table(
        title="Error on each corrupted subset (Table 5)",
        first="corruption: model",
        head=[f"severity {level}" for level in SEVERITIES],
        lines=lines,
        note="Per cent of wrong predictions (top-1 error), not normalised.",
    )


def _sets(report: Report) -> Table:
    """Tables 1 and 6: the complete test sets, each with its published choice of batch norm."""
    lines = []
    for model in report["models"]:
        values = [published_metric(row_of(report, model, published_choice(report, model, s), s)) for s in SET_NAMES]
        if any(value is not None for value in values):
            lines.append(Line(_with_row(report, model), _cells(values)))
    lines += [_published(report, name, _score_cells(set_scores(name)), *SET_NAMES) for name in tables_1_and_6_methods()]
    return Table(
        title="Test sets (Tables 1 and 6)",
        first="model",
        head=list(SET_NAMES.values()),
        lines=lines,
        note="Of models with two sets of batch norm, main on ImageNet, ImageNet-C and Instagram, auxiliary on Sketch "
        "and Style, as published. Lower is better for mCE, higher for the others. A dash: not scored, or incomplete.",
    )


def _batch_norms(report: Report) -> Table:
    """Table 7: main against auxiliary batch norm."""
    lines = []
    for model, which in _all_models(report):
        cells = [Cell(_marked(report, suite)(model, which)) for suite in SET_NAMES]
        lines.append(Line(_shown(model, which), cells))
    for name, which in table_7_rows():
        cells = _score_cells(set_scores(name, which))
        lines.append(_published(report, _shown(name, which), cells, *SET_NAMES))
    return Table(
        title="Main against auxiliary batch norm (Table 7)",
        first="model",
        head=list(SET_NAMES.values()),
        lines=lines,
        note=f"{_CHOICE} marks the set that the paper uses on a test set.",
    )


def _other_columns(suites: Collection[str]) -> dict[str, tuple[str, Callable[[Mapping[str, Any]], float | None]]]:
    """Return what is shown of test sets that the paper does not have: name -> set, and the value of its row."""
    columns: dict[str, tuple[str, Callable[[Mapping[str, Any]], float | None]]] = {}
    for suite, name in _OTHER_NAMES.items():
        if suite not in suites:
            continue
        if suite == CUE_CONFLICT:
            columns["shape bias"] = suite, lambda row: row["cue_conflict"]["shape_bias"]
            columns["cue conflict, shape or texture"] = suite, lambda row: row["cue_conflict"]["either"]
        else:
            columns[f"{name} top-1"] = suite, _among_present if suite in SOME_CLASSES else _top1
    return columns


def _top1(row: Mapping[str, Any]) -> float:
    value: float = row["top1"]
    return value


def _among_present(row: Mapping[str, Any]) -> float:
    """Return the accuracy among the classes of the set, which a model without others has anyway."""
    value: float = row.get("present", row)["top1"]
    return value


def _of_other(
    report: Report, column: tuple[str, Callable[[Mapping[str, Any]], float | None]]
) -> Callable[[str, str | None], str]:
    suite, value_of = column

    def value(model: str, which: str | None) -> str:
        row = row_of(report, model, which, suite)
        found = None if row is None else value_of(row)
        return NO_VALUE if found is None else _percent(found)

    return value


def _others(report: Report) -> Table:
    columns = _other_columns({row["suite"] for row in report["rows"]})
    lines = [
        Line(_shown(model, which), [Cell(_of_other(report, column)(model, which)) for column in columns.values()])
        for model, which in _all_models(report)
    ]
    return Table(
        title="Other test sets",
        first="model",
        head=list(columns),
        lines=lines,
        note="Per cent. On ImageNet-R and -A a model decides among their classes alone. Shape bias: decisions for the "
        "shape among those for shape or texture, of images whose two cues are of two classes; beside it how many were "
        "decided for either (Geirhos et al., 2019, who state 22.1% for ResNet-50). Sets of 16 classes: the class whose "
        "ImageNet classes have the highest mean probability.",
    )


def _shards(report: Report) -> Table:
    names = _shard_names(report)
    lines = []
    for model, which in _all_models(report):
        rows = [row_of(report, model, which, data) for data in names]
        cells = [Cell(NO_VALUE if row is None else _percent(row[f"top{k}"])) for row in rows for k in (1, 5)]
        lines.append(Line(_shown(model, which), cells))
    return Table(
        title="ImageNet-AdvBN and reconstructions",
        first="model",
        head=[f"{data} top-{k}" for data in names for k in (1, 5)],
        lines=lines,
        note="Accuracy in per cent. `report gap` puts these beside the originals and the paper's Table 8.",
    )


def _all_models(report: Report) -> list[tuple[str, str | None]]:
    return [(model, which) for model in report["models"] for which in batch_norms_of(report, model)]


def _with_row(report: Report, model: str) -> str:
    """Return a model's name with its row in the paper."""
    method = report["published_rows"].get(model)
    return model if method is None else f"{model} (the paper's {method})"


def _published(report: Report, name: str, cells: list[Cell], *suites: str, before: str = "") -> Line:
    """Return a line of the paper, marked unless all of our results in its columns are on the same data."""
    own = [report["same_data"][suite] for suite in suites if suite in report["same_data"]]
    where = "" if own and all(own) else ", on other data"
    return Line(f"{before}published: {name}{where}", cells, published=True)


def _score_cells(scores: SetScores | None) -> list[Cell]:
    return _printed([None if scores is None else scores.of(suite) for suite in SET_NAMES])


def _printed(values: Iterable[float | None]) -> list[Cell]:
    """Return the paper's values with as many digits as it prints: whole numbers are written as such in our tables."""
    return [Cell(NO_VALUE if value is None else str(value)) for value in values]


def _cells(values: Iterable[float | None]) -> list[Cell]:
    return [Cell(_number(value)) for value in values]


def _number(value: float | None) -> str:
    return NO_VALUE if value is None else f"{value:.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _shown(model: str, which: str | None) -> str:
    return model if which is None else f"{model}, {which} batch norm"
