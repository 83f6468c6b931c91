"""`advbn-gen score`: accuracy of models on data sets."""

from pathlib import Path
from typing import Any

import click

from basics.errors import UserError
from commands.options import (
    FOLDER,
    ManyValues,
    compute_options,
    json_option,
    model_option,
    print_result,
    restrict_option,
    scoring_options,
)


@click.command(short_help="Top-1 and top-5 of models on data sets.", cls=ManyValues)
@model_option
@click.option(
    "--data", "data", metavar="NAME=P...", multiple=True, required=True, help="Data sets: a name, and any source."
)
@click.option("--labels", metavar="NAME=F...", multiple=True, help="Label list or devkit of a flat ILSVRC2012 folder.")
@click.option("--limit", type=int, help="Only the first N images of each data set.")
@click.option("--out", type=FOLDER, default=Path("scores"), show_default=True, help="Folder of the results.")
@restrict_option
@scoring_options
@compute_options
@json_option
def score(model: tuple[str, ...], data: tuple[str, ...], out: Path, as_json: bool, **options: Any) -> None:
    """Score models on data sets, one pass over each data set for all models.

    Leaves results.jsonl (a line for each model on each data set) and predictions.h5 (the five most probable classes
    of every sample). What is scored already is not scored again.

    \b
    Examples:
      advbn-gen score --model resnet50 --data val=ILSVRC2012_val advbn=imagenet-advbn-vgg --labels val=devkit.tar.gz
      advbn-gen score --model timm:convnext_tiny resnet50=mine.pth --data val=ILSVRC2012_val
    """
    from downstream.scoring import ScoringConfig
    from downstream.scoring_run import ScoreRequest, named_models
    from downstream.scoring_run import score as score_all
    from downstream.testset import open_test_set
    from reports.tables import markdown_table

    config = ScoringConfig(**{name: options[name] for name in ("batch_size", "loaders", "restrict_classes")})
    addresses, labels = _named("--data", data), _named("--labels", options["labels"])
    for name in labels.keys() - addresses.keys():
        raise UserError(f"--labels names {name}, which is none of the data sets {', '.join(addresses)}.")
    sets = [
        open_test_set(name, address, labels=Path(labels[name]) if name in labels else None, limit=options["limit"])
        for name, address in addresses.items()
    ]
    results = score_all(
        ScoreRequest(
            models=named_models(model), data=sets, out=out, device=options["device"], precision=options["precision"],
            config=config, overwrite=options["overwrite"],
        )
    )  # fmt: skip
    rows = [[row["model"], row["data"], str(row["n"]), _percent(row, "top1"), _percent(row, "top5")] for row in results]
    notes = [f"{row['model']} on {row['data']}: decision: {row['decision']}" for row in results if "decision" in row]
    notes += [_shape_bias(row) for row in results if "cue_conflict" in row]
    lines = [markdown_table(["model", "data", "n", "top-1", "top-5"], rows), *notes, str(out)]
    print_result({"results": results, "out": str(out)}, lines, as_json=as_json)


def _named(option: str, values: tuple[str, ...]) -> dict[str, str]:
    """Return name -> address of values `NAME=ADDRESS`.

    Raises:
        UserError: one is not of this form, or a name comes twice.
    """
    named: dict[str, str] = {}
    for text in values:
        name, equals, address = text.partition("=")
        if not equals or not address:
            raise UserError(f"{option} is {text!r}; give NAME=ADDRESS, e.g. val=ILSVRC2012_val.")
        if name in named:
            raise UserError(f"Two addresses of {option} are called {name}; give each a name of its own.")
        named[name] = address
    return named


def _shape_bias(row: dict[str, Any]) -> str:
    """Return a sentence on how a model decided where shape and texture conflict."""
    cues = row["cue_conflict"]
    bias = "none" if cues["shape_bias"] is None else f"{cues['shape_bias']:.1%}"
    return (
        f"{row['model']} on {row['data']}: shape bias {bias} of {cues['either']:.1%} decided for shape or texture "
        f"({cues['n']} images with conflicting cues)"
    )


def _percent(row: dict[str, Any], name: str) -> str:
    """Return an accuracy in per cent, over all outputs and, if it differs, among the classes that occur in the data."""
    own = f"{row[name]:.1%}"
    return f"{own} ({row['present'][name]:.1%} of {row['present']['classes']} classes)" if "present" in row else own
