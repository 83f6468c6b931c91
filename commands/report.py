"""`advbn-gen report`: results as pages, tables and data."""

from pathlib import Path
from typing import Any

import click

from commands.abnn_table import table
from commands.options import (
    FILE,
    FOLDER,
    ManyValues,
    compute_options,
    json_option,
    model_option,
    print_result,
    scoring_options,
)


@click.group(short_help="Results as a page, Markdown, CSV and JSON.")
def report() -> None:
    """Reports on the accuracy of models on perturbed, shifted and attacked images.

    \b
    Examples:
      advbn-gen report gap --help
      advbn-gen report shift --help
      advbn-gen report abnn --help
    """


@report.command(short_help="Accuracy lost to the autoencoder and to AdvBN (Table 8).", cls=ManyValues)
@click.option("--original", required=True, help="The original images: any source.")
@click.option("--reconstructed", required=True, metavar="DIR", help="Reconstructions (`--reconstructed`).")
@click.option("--advbn", required=True, metavar="DIR", help="ImageNet-AdvBN.")
@click.option(
    "--scaled", metavar="DIR...", multiple=True, help="The same at other scales (`render --scale`): adds a curve."
)
@model_option
@click.option("--out", type=FOLDER, required=True, help="Folder of the report.")
@click.option("--labels", type=FILE, help="Label list or devkit of a flat ILSVRC2012 folder.")
@click.option("--common", is_flag=True, help="Compare the samples that all three have, if some are missing.")
@click.option("--lpips", is_flag=True, help="Also measure LPIPS (downloads AlexNet's weights once).")
@click.option("--gallery", type=int, default=48, show_default=True, help="Samples to show.")
@click.option("--published", metavar="MODEL=ROW...", multiple=True, help="Row of the paper's Table 8 for a model.")
@scoring_options
@compute_options
@json_option
def gap(out: Path, as_json: bool, **options: Any) -> None:
    """Report the reconstruction gap: accuracy on originals, reconstructions and AdvBN versions (Table 8, Figure 7).

    Leaves report.html (one file, no network), report.md, report.csv and report.json, and beside them results.jsonl and
    predictions.h5, so that the same command with one model more scores only that one.

    \b
    Example:
      advbn-gen report gap --original ILSVRC2012_val --reconstructed imagenet-reconstructed-vgg \\
        --advbn imagenet-advbn-vgg --model resnet50 timm:convnext_tiny --out gap-vgg
    """
    from downstream.gap import GapRequest
    from downstream.scoring import ScoringConfig
    from downstream.scoring_run import named_models
    from reports.gap_object import GapReport
    from reports.page import HTML
    from reports.tables import accuracy_head, accuracy_lines, markdown_table

    request = GapRequest(
        **{name: options[name] for name in _REQUEST_FIELDS},
        models=named_models(options["model"]),
        out=out,
        published=_rows(options["published"]),
        config=ScoringConfig(batch_size=options["batch_size"], loaders=options["loaders"]),
    )
    computed = GapReport.compute(request)
    found = computed.write()
    table = markdown_table(
        ["model", *accuracy_head()], [[line.name, *map(str, line.cells)] for line in accuracy_lines(found)]
    )
    lines = [computed.lead, "", table, "", f"report: {out / HTML}"]
    print_result({"report": str(out / HTML), "rows": found["rows"], "gaps": found["gaps"]}, lines, as_json=as_json)


_REQUEST_FIELDS = (
    "original", "reconstructed", "advbn", "scaled", "labels", "common", "lpips", "gallery",
    "device", "precision", "overwrite",
)  # fmt: skip


def _rows(values: tuple[str, ...]) -> dict[str, str]:
    """Return model -> row of Table 8.

    Raises:
        UserError: there is no such row.
    """
    from basics.errors import UserError
    from reports.published_table_8 import table_8_methods

    named = {}
    for text in values:
        model, _, method = text.rpartition("=")
        if not model or method not in table_8_methods():
            raise UserError(f"--published is {text!r}; give MODEL=ROW with one of {', '.join(table_8_methods())}.")
        named[model] = method
    return named


@report.command(short_help="Accuracy under shift (Tables 4 to 7).")
@click.argument("results", metavar="RESULTS_DIR...", nargs=-1, required=True, type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Folder of the report.")
@click.option("--published", metavar="MODEL=ROW", multiple=True, help="Row of the paper's tables for a model.")
@json_option
def shift(results: tuple[Path, ...], out: Path, published: tuple[str, ...], as_json: bool) -> None:
    """Report the results of `evaluate` beside the paper's Tables 4 to 7; no network runs.

    Leaves report.html (one file, no network), report.md, report.csv and report.json. Several folders of results, from
    several machines, make one report.

    \b
    Example:
      advbn-gen report shift evaluation --published "mine=AugMix + AdvBN" --out shift
    """
    from basics.errors import UserError
    from reports.page import HTML
    from reports.shift_page import shift_lead, write_shift_report
    from reports.shift_results import read_results
    from reports.shift_tables import compact_table, missing_notes
    from reports.tables import markdown_table

    named = {}
    for text in published:
        model, _, row = text.rpartition("=")  # names of models may hold one, rows do not
        if not model:
            raise UserError(f'--published is {text!r}; give MODEL=ROW, such as "mine=AugMix + AdvBN".')
        named[model] = row
    found = write_shift_report(out, read_results(results), named)
    lines = [shift_lead(found), "", markdown_table(*compact_table(found)), *missing_notes(found), ""]
    lines.append(f"report: {out / HTML}")
    print_result({"report": str(out / HTML), "rows": found["rows"]}, lines, as_json=as_json)


report.add_command(table, "abnn")
