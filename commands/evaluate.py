"""`advbn-gen evaluate`: accuracy of models on every test set of the AdvBN paper."""

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
    restrict_option,
    scoring_options,
)


@click.command(short_help="Models on ImageNet-C, -Instagram, -Sketch, -Style and our shards.", cls=ManyValues)
@model_option
@click.option("--imagenet", metavar="P", help="ImageNet's validation images: any source.")
@click.option("--imagenet-c", metavar="P", help="ImageNet-C: [category/]corruption/1-5/class folders.")
@click.option("--imagenet-instagram", metavar="P", help="ImageNet-Instagram: filter/class folders.")
@click.option("--imagenet-sketch", metavar="P", help="ImageNet-Sketch: class folders.")
@click.option("--imagenet-style", metavar="P", help="Stylized ImageNet: val/class folders.")
@click.option("--imagenet-v2", metavar="P", help="ImageNet-V2: class folders 0 to 999.")
@click.option("--imagenet-r", metavar="P", help="ImageNet-R: class folders of 200 classes.")
@click.option("--imagenet-a", metavar="P", help="ImageNet-A: class folders of 200 classes.")
@click.option("--cue-conflict", metavar="P", help="Cue conflict: shape/shape1-texture2.png, 16 classes.")
@click.option("--silhouettes", metavar="P", help="Filled silhouettes: class folders, 16 classes.")
@click.option("--edges", metavar="P", help="Edges: class folders, 16 classes.")
@click.option(
    "--advbn", metavar="DIR...", multiple=True, help="Folders of `imagenet-advbn`: perturbed or reconstructed."
)
@click.option("--labels", type=FILE, help="Label list or devkit of --imagenet as a flat ILSVRC2012 folder.")
@click.option("--limit", type=int, help="Only the first N images of each subset.")
@click.option("--out", type=FOLDER, default=Path("evaluation"), show_default=True, help="Folder of the results.")
@restrict_option
@scoring_options
@compute_options
@json_option
def evaluate(model: tuple[str, ...], out: Path, as_json: bool, **options: Any) -> None:
    """Score models on the paper's test sets and others, each prepared as published, in one pass over each for all.

    A run folder of `finetune` is scored with main and with auxiliary batch norm. Leaves results.jsonl (a line for each
    model on each subset, and summaries with mCE) and predictions/ (the five most probable classes of every sample).
    What is scored already is not scored again; `report shift` makes tables and charts of it.

    \b
    Examples:
      advbn-gen evaluate --model resnet50 resnet50-advbn --imagenet-c ImageNet-C --imagenet-sketch sketch
      advbn-gen evaluate --model mine --imagenet ILSVRC2012_val --advbn imagenet-advbn-vgg imagenet-reconstructed-vgg
    """
    from downstream.evaluation import EvaluationRequest
    from downstream.evaluation import evaluate as evaluate_all
    from downstream.scoring import ScoringConfig
    from downstream.scoring_run import named_models
    from downstream.suites import TestSetPaths
    from reports.shift import shift_report
    from reports.shift_tables import compact_table, missing_notes
    from reports.tables import markdown_table

    rows = evaluate_all(
        EvaluationRequest(
            models=named_models(model),
            paths=TestSetPaths(**{name: options[name] for name in _PATH_OPTIONS}),
            out=out,
            device=options["device"],
            precision=options["precision"],
            config=ScoringConfig(**{name: options[name] for name in ("batch_size", "loaders", "restrict_classes")}),
            overwrite=options["overwrite"],
        )
    )
    found = shift_report([row for row in rows if not row.get("summary")], {})
    note = "* the batch norm that the paper uses on this test set" if any(row["batch_norm"] for row in rows) else ""
    lines = [markdown_table(*compact_table(found)), note, *missing_notes(found), str(out)]
    print_result({"results": rows, "out": str(out)}, [line for line in lines if line], as_json=as_json)


_PATH_OPTIONS = (
    "imagenet", "imagenet_c", "imagenet_instagram", "imagenet_sketch", "imagenet_style", "imagenet_v2", "imagenet_r",
    "imagenet_a", "cue_conflict", "silhouettes", "edges", "advbn", "labels", "limit",
)  # fmt: skip
