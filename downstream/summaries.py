"""Means over the parts of a test set: mCE and mean error of ImageNet-C, mean accuracy of ImageNet-Instagram.

A mean over a set is given only if every part was scored, on the same images; means over some of its parts are in
`partial`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from downstream.mce import Errors, mean, summarise
from downstream.result_store import Row
from downstream.suites import FILTERS, IMAGENET_C, INSTAGRAM, is_published_choice

_DECISION = "decision"
_MODEL_FIELDS = ("arch", "weights", "weights_sha256", "precision", "device", "software", "imagenet")


def result_rows(scored: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return the lines of an evaluation's results: one for each model on each subset, then each model's summaries.

    Args:
        scored: rows of models on subsets (see `downstream.scoring.wanted_score`), with `suite` and `batch_norm`.
    """
    rows = [{**each, "published_choice": is_published_choice(each["suite"], each["batch_norm"])} for each in scored]
    return rows + summary_rows(rows)


def summary_rows(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return a line for each model (and batch-norm set) on each test set that has parts.

    They have `summary` true, `missing` (names of the parts without results, and what is missing in parts) and
    `partial` (null if nothing is missing). Values of the set are null if something is missing.
    """
    groups: dict[tuple[str, str | None, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["suite"] in _SUMMARIES:
            groups[row["model"], row["batch_norm"], row["suite"]].append(row)
    return [
        {
            "model": model,
            "batch_norm": which,
            "suite": suite,
            "data": suite,
            "summary": True,
            "published_choice": is_published_choice(suite, which),
            "n": sum(row["n"] for row in parts),
            "subsets": len(parts),
            "transform": " / ".join(sorted({row["transform"] for row in parts})),
            **{name: parts[0][name] for name in _MODEL_FIELDS},
            **{name: parts[0][name] for name in (_DECISION, "colours") if name in parts[0]},
            **_SUMMARIES[suite](parts),
        }
        for (model, which, suite), parts in groups.items()
    ]


def errors_of(parts: Iterable[Mapping[str, Any]]) -> Errors:
    """Return the error of each subset of ImageNet-C among one model's rows."""
    found = {}
    for row in parts:
        if row["suite"] == IMAGENET_C and not row.get("summary"):
            _, corruption, severity = row["data"].split("/")
            found[corruption, int(severity)] = 1 - row["top1"]
    return found


def _corrupted(parts: Sequence[Mapping[str, Any]]) -> Row:
    other = differing_parts(parts)
    same = [row for row in parts if row["data"] not in other]
    summary = summarise(errors_of(same))
    there = {row["data"] for row in parts}
    absent = [f"{IMAGENET_C}/{name}/{level}" for name, level in summary.missing]
    missing = [name for name in absent if name not in there] + cut_short(parts) + list(other.values())
    partial = {
        **({"subsets": len(same)} if other else {}),
        "corruptions": sum(value is not None for value in summary.ce.values()),
        "mean_ce": summary.partial_mean_ce,
        "mean_error": summary.partial_mean_error,
    }
    if missing:
        ce = dict.fromkeys(summary.ce) if cut_short(parts) else summary.ce
        return {**_NO_MEANS, "mce": None, "mean_error": None, "ce": ce, "missing": missing, "partial": partial}
    return {
        "top1": 1 - summary.partial_mean_error,
        "top5": mean([row["top5"] for row in parts]),
        "mce": summary.mce,
        "mean_error": summary.mean_error,
        "ce": summary.ce,
        "missing": [],
        "partial": None,
    }


def _filtered(parts: Sequence[Mapping[str, Any]]) -> Row:
    other = differing_parts(parts)
    same = [row for row in parts if row["data"] not in other]
    means: Row = {name: mean([row[name] for row in same]) for name in ("top1", "top5")}
    missing = cut_short(parts) + list(other.values())
    if len(parts) != FILTERS:
        # The set's own list of filters is not published, so those that are missing can be counted only.
        missing.append(f"{len(parts)} filters instead of {FILTERS}")
    if not missing:
        return {**means, "missing": [], "partial": None}
    return {**_NO_MEANS, "missing": missing, "partial": {"filters": len(same), **means}}


def differing_parts(parts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the parts of a set whose images are not those of most parts, with a description of the difference.

    A part that was unpacked by half has fewer images than the others. Where the names of images differ in all parts
    they tell the part, so that only the numbers can be compared.
    """
    (most, _), *_ = sorted(
        Counter(row["samples_there"] for row in parts).items(), key=lambda item: (-item[1], -item[0])
    )
    numbers = {row["data"]: row["samples_there"] for row in parts if row["samples_there"] != most}
    ((samples, shared),) = Counter(row["samples_sha256"] for row in parts if row["data"] not in numbers).most_common(1)
    found = {}
    for row in parts:
        shown = " ".join(row["data"].split("/")[1:])
        if row["data"] in numbers:
            found[row["data"]] = f"{numbers[row['data']]} images instead of {most} in {shown}"
        elif shared > 1 and row["samples_sha256"] != samples:
            found[row["data"]] = f"other images in {shown}"
    return found


def cut_short(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what keeps parts from being a whole set: images left out (`--limit`), or other classes to decide among."""
    scored, total = (sum(row[name] for row in parts) for name in ("n", "samples_there"))
    found = [f"{scored} of {total} images"] if scored < total else []
    # Means over parts that were decided in different ways would be of nothing.
    mixed = len({row.get(_DECISION) for row in parts}) > 1
    return [*found, *(["parts decided among different classes"] if mixed else [])]


_NO_MEANS = {"top1": None, "top5": None}
_SUMMARIES = {IMAGENET_C: _corrupted, INSTAGRAM: _filtered}
