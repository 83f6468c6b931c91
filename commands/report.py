"""`advbn-gen report`: results as pages, tables and data."""

from pathlib import Path
from typing import Any

import click

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
    """Reports on what models do with perturbed images.

    \b
    Example:
      advbn-gen report gap --help
    """


@report.command(short_help="What the autoencoder costs, and what AdvBN costs.", cls=ManyValues)
@click.option("--original", required=True, help="The images as they are: any source.")
@click.option("--reconstructed", required=True, metavar="DIR", help="Reconstructions (`--reconstructed`).")
@click.option("--advbn", required=True, metavar="DIR", help="ImageNet-AdvBN.")
@model_option
@click.option("--out", type=FOLDER, required=True, help="Folder of the report.")
@click.option("--labels", type=FILE, help="Label list or devkit of a flat ILSVRC2012 folder.")
@click.option("--common", is_flag=True, help="Compare the samples that all three have, if some are missing.")
@click.option("--lpips", is_flag=True, help="Also measure LPIPS (downloads AlexNet's weights once).")
@click.option("--gallery", type=int, default=48, show_default=True, help="Samples to show.")
@click.option("--published", metavar="MODEL=ROW...", multiple=True, help="Which row of the paper's Table 8 a model is.")
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
    from downstream.gallery import picture_side
    from downstream.gap import GapRequest, gather
    from downstream.scoring import ScoringConfig
    from downstream.session import named_models
    from reports.gap_page import lead, write_gap_report
    from reports.page import HTML
    from reports.tables import accuracy_head, accuracy_lines, markdown_table

    request = GapRequest(
        **{name: options[name] for name in _PASSED_ON},
        models=named_models(options["model"]),
        out=out,
        published=_rows(options["published"]),
        config=ScoringConfig(batch_size=options["batch_size"], loaders=options["loaders"]),
    )
    inputs, samples = gather(request)
    side = picture_side(inputs.manifests["advbn"]["config"]["image_size"])
    found = write_gap_report(out, inputs, samples, side)
    table = markdown_table(
        ["model", *accuracy_head()], [[line.name, *map(str, line.cells)] for line in accuracy_lines(found)]
    )
    lines = [lead(found), "", table, "", f"report: {out / HTML}"]
    print_result({"report": str(out / HTML), "rows": found["rows"], "gaps": found["gaps"]}, lines, as_json=as_json)


_PASSED_ON = (
    "original", "reconstructed", "advbn", "labels", "common", "lpips", "gallery", "device", "precision", "again",
)  # fmt: skip


def _rows(words: tuple[str, ...]) -> dict[str, str]:
    """Return model -> row of Table 8.

    Raises:
        UserError: there is no such row.
    """
    from basics.errors import UserError
    from reports.published import table_8_methods

    named = {}
    for word in words:
        model, _, method = word.rpartition("=")
        if not model or method not in table_8_methods():
            raise UserError(f"--published is {word!r}; give MODEL=ROW with one of {', '.join(table_8_methods())}.")
        named[model] = method
    return named
