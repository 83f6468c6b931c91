"""`advbn-gen score`: accuracy of models on data sets."""

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


@click.command(short_help="Top-1 and top-5 of models on data sets.", cls=ManyValues)
@model_option
@click.option(
    "--data", "data", metavar="NAME=P...", multiple=True, required=True, help="Data sets: a name, and any source."
)
@click.option("--labels", type=FILE, help="Label list or devkit of flat ILSVRC2012 folders.")
@click.option("--limit", type=int, help="Only the first N images of each data set.")
@click.option("--out", type=FOLDER, default=Path("scores"), show_default=True, help="Folder of the results.")
@scoring_options
@compute_options
@json_option
def score(model: tuple[str, ...], data: tuple[str, ...], out: Path, as_json: bool, **options: Any) -> None:
    """Score models on data sets, one pass over each data set for all models.

    Leaves results.jsonl (a line a pair) and predictions.h5 (the five best answers to every sample). A pair that is
    scored already is not scored again.

    \b
    Examples:
      advbn-gen score --model resnet50 --data val=ILSVRC2012_val advbn=imagenet-advbn-vgg
      advbn-gen score --model timm:convnext_tiny resnet50=mine.pth --data val=ILSVRC2012_val
    """
    from downstream.scoring import ScoringConfig
    from downstream.session import ScoreRequest, named_models
    from downstream.session import score as score_all
    from downstream.testset import open_test_set
    from reports.tables import markdown_table

    config = ScoringConfig(batch_size=options["batch_size"], loaders=options["loaders"])
    sets = [
        open_test_set(name, address, labels=options["labels"], limit=options["limit"])
        for name, address in (_named(word) for word in data)
    ]
    results = score_all(
        ScoreRequest(
            models=named_models(model), data=sets, out=out, device=options["device"], precision=options["precision"],
            config=config, again=options["again"],
        )
    )  # fmt: skip
    rows = [[row["model"], row["data"], str(row["n"]), _percent(row, "top1"), _percent(row, "top5")] for row in results]
    lines = [markdown_table(["model", "data", "n", "top-1", "top-5"], rows), str(out)]
    print_result({"results": results, "out": str(out)}, lines, as_json=as_json)


def _named(word: str) -> tuple[str, str]:
    from basics.errors import UserError

    name, equals, address = word.partition("=")
    if not equals or not address:
        raise UserError(f"--data is {word!r}; give NAME=PLACE, e.g. val=ILSVRC2012_val.")
    return name, address


def _percent(row: dict[str, Any], name: str) -> str:
    """Return an accuracy in per cent, over all outputs and, if that differs, among the classes that are there."""
    own = f"{row[name]:.1%}"
    return f"{own} ({row['present'][name]:.1%} of {row['present']['classes']} classes)" if "present" in row else own
