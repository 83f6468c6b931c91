"""A gap report as files: `report.html` (one file, no network), `report.md`, `report.csv`, `report.json`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from downstream.gallery import LOSSLESS_SIDE, GallerySample
from downstream.gap import ROLES, GapInputs
from reports.charts import (
    ROLE_NAME,
    Chart,
    accuracy_chart,
    ascent_chart,
    class_chart,
    curve_chart,
    delta_chart,
    quality_chart,
)
from reports.gallery import gallery_cards
from reports.gap import gap_report
from reports.page import csv_text, preparation, render, software, write_report
from reports.tables import accuracy_head, accuracy_lines, curve_table, gap_head, gap_lines, markdown_table

_CLASSES_SHOWN = 24
_CSV_COLUMNS = (
    "model", "data", "attacked", "n", "top1", "top1_low", "top1_high", "top5", "top5_low", "top5_high",
    "present_top1", "present_top5", "published_top1", "published_top5", "arch", "weights", "weights_sha256",
    "data_address", "data_fingerprint", "transform", "precision", "device",
)  # fmt: skip
_QUALITY_WORDS = {"psnr": "PSNR (dB)", "ssim": "SSIM", "lpips": "LPIPS"}


def write_gap_report(
    out: Path, inputs: GapInputs, samples: Sequence[GallerySample], picture_side: int
) -> dict[str, Any]:
    """Write all four files, or leave all as they were; return the report's values.

    Args:
        out: folder; it is made if need be.
        inputs: recorded predictions, and metadata of the data sets.
        samples: samples of the gallery.
        picture_side: side of their pictures, in pixels; small ones are shown without smoothing.

    Raises:
        UserError: the folder cannot be written, or holds files of another kind of report.
    """
    report = gap_report(inputs)
    page = _page(report, inputs, samples, picture_side)
    write_report(out, report, csv=_csv(report), markdown=_markdown(report), html=page)
    return report


def lead(report: Mapping[str, Any]) -> str:
    """Return the report in one sentence: a model's accuracies, one that was not attacked if there is one."""
    rows = {(row["model"], row["data"]): row for row in report["rows"]}
    models = list(dict.fromkeys(row["model"] for row in report["rows"]))
    unseen = [model for model in models if not rows[model, "advbn"]["attacked"]]
    model = (unseen or models)[0]
    top1 = [f"{100 * rows[model, role]['top1']:.1f}%" for role in ROLES]
    seen = "which the attack never saw," if unseen else "against which the images were made,"
    return (
        f"{model}, {seen} classifies {top1[0]} of the originals correctly, {top1[1]} of their reconstructions, "
        f"and {top1[2]} of their AdvBN versions."
    )


def published_note(report: Mapping[str, Any]) -> str:
    """Return the note on the published lines; empty if there are none."""
    published = [row["published"] for row in report["rows"] if row["published"]]
    if not published:
        return ""
    if published[0]["same_data"]:
        return "Lines in italics are the paper's Table 8."
    return (
        "Lines in italics are the paper's Table 8. It was measured on all 50,000 validation images of ImageNet with "
        "the authors' own autoencoder: other data than these."
    )


def quality_text(quality: Mapping[str, Mapping[str, float]]) -> str:
    """Return the measures of the reconstructions as text."""
    parts = [
        f"{_QUALITY_WORDS[name]}: mean {values['mean']:.3g} (10% to 90% of the images: {values['q10']:.3g} to "
        f"{values['q90']:.3g})"
        for name, values in quality.items()
    ]
    return "; ".join(parts) + ". Reconstructions against originals, both at the size of the autoencoder's images."


def _page(report: Mapping[str, Any], inputs: GapInputs, samples: Sequence[GallerySample], picture_side: int) -> str:
    model = _shown_model(report)
    first = report["rows"][0]
    return render(
        "gap.html",
        report=report,
        lead=lead(report),
        notes=report.get("notes", []),
        accuracy_head=accuracy_head(),
        accuracy_rows=accuracy_lines(report),
        present_rows=accuracy_lines(report, "present"),
        present_classes=first.get("present", {}).get("classes"),
        outputs=len(inputs.class_names),
        published_note=published_note(report),
        gap_head=gap_head(),
        gap_rows=gap_lines(report),
        curve_table=curve_table(report["curve"]),
        class_model=model,
        class_rows=_class_rows(report["classes"], model),
        quality_text=quality_text(report["quality"]),
        charts={
            "curve": "",
            **{chart.name: chart.svg() for chart in gap_charts(report)},
            "quality": [quality_chart(name, values, _QUALITY_WORDS[name]) for name, values in inputs.quality.items()],
        },
        cards=gallery_cards(samples, inputs),
        roles=[(role, ROLE_NAME[role]) for role in ROLES],
        small_pictures=picture_side <= LOSSLESS_SIDE,
        provenance=json.dumps(_without_shards(report["provenance"]), indent=1, ensure_ascii=False),
        software=software(report["rows"]),
        preparation=preparation,
    )


def gap_charts(report: Mapping[str, Any]) -> list[Chart]:
    """Return the charts of a report; that of the scales only if there are some."""
    charts = [accuracy_chart(report), ascent_chart(report["ascent"]), delta_chart(report["ascent"])]
    charts.append(class_chart(report["classes"], _shown_model(report)))
    return [*charts, curve_chart(report["curve"])] if report["curve"] else charts


def _shown_model(report: Mapping[str, Any]) -> str:
    """Return the model whose classes are shown: one that was not attacked, if there is one."""
    unseen = [gaps["model"] for gaps in report["gaps"] if not gaps["attacked"]]
    return str((unseen or [report["gaps"][0]["model"]])[0])


def flat_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a report without nested values, as a table has them."""
    return [{**row, **_flat(row)} for row in report["rows"]]


def _class_rows(classes: Sequence[Mapping[str, Any]], model: str) -> list[dict[str, Any]]:
    """Return the classes sorted by the accuracy that they lose to the perturbation; of many classes only both ends."""

    def lost(each: Mapping[str, Any]) -> float:
        return float(each["top1"][model]["reconstructed"] - each["top1"][model]["advbn"])

    ranked = sorted(classes, key=lost)
    if len(ranked) > _CLASSES_SHOWN:
        ranked = ranked[: _CLASSES_SHOWN // 2] + ranked[-_CLASSES_SHOWN // 2 :]
    return [
        {
            "name": each["name"],
            "n": each["n"],
            "values": [f"{100 * each['top1'][model][role]:.0f}" for role in ROLES],
        }
        for each in ranked
    ]


def _without_shards(provenance: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    long = {"shards", "files", "lost", "classes"}
    return {
        role: {name: value for name, value in manifest.items() if name not in long}
        for role, manifest in provenance.items()
    }


def _markdown(report: Mapping[str, Any]) -> str:
    def table(head: list[str], lines: Sequence[Any]) -> str:
        return markdown_table(["model", *head], [[line.name, *map(str, line.cells)] for line in lines])

    present = accuracy_lines(report, "present")
    parts = [
        "# Reconstruction gap",
        lead(report),
        " ".join(report.get("notes", [])),
        "## Accuracy (%)",
        table(accuracy_head(), accuracy_lines(report)),
        published_note(report),
        "## Cost in percentage points",
        table(gap_head(), gap_lines(report)),
        "## Top-1 by the scale of the perturbation (%)" if report["curve"] else "",
        markdown_table(*curve_table(report["curve"])) if report["curve"] else "",
        "## Accuracy among the present classes (%)" if present else "",
        table(accuracy_head(), present) if present else "",
        quality_text(report["quality"]) if report["quality"] else "",
        f"{report['n']} samples; 95% intervals in brackets (Wilson; paired bootstrap for the costs).",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _csv(report: Mapping[str, Any]) -> str:
    return csv_text(_CSV_COLUMNS, flat_rows(report))


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{group}_{name}": value for group in ("present", "published") for name, value in (row.get(group) or {}).items()
    }
