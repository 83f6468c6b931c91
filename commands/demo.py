"""`advbn-gen demo`: the whole workflow, offline, on drawn images."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from basics.progress import say
from commands.options import FOLDER, json_option, print_result

if TYPE_CHECKING:
    from pipeline.config import GenerationConfig

_ENCODER, _UNSEEN = "vgg", "resnet"
_LABEL = "sample-advbn-vgg"


@click.command(short_help="The whole workflow, offline, on drawn images.")
@click.option("--out", type=FOLDER, default=Path("demo"), show_default=True, help="Folder of all outputs.")
@json_option
def demo(out: Path, as_json: bool) -> None:
    """Draw a world of shapes, train small networks on it, attack one of them by AdvBN, and report on two.

    Leaves the drawn images, two data sets (perturbed, and reconstructed without perturbation) and report.html, with
    tables, charts and originals beside their AdvBN versions. Takes minutes on two cores; the trained networks are kept
    in the user's cache folder.

    \b
    Example:
      advbn-gen demo --out demo
    """
    from downstream.gallery import picture_side
    from downstream.gap import GapRequest, gather
    from pipeline.drawn_networks import DRAWN_IMAGE_SIZE, drawn_classifier, drawn_networks
    from pipeline.job import prepare, products_of
    from pipeline.run import run
    from reports.gap import KIND
    from reports.gap_page import lead, write_gap_report
    from reports.page import HTML, require_own_report
    from reports.tables import accuracy_head, accuracy_lines, markdown_table
    from sources.drawn.source import PER_CLASS
    from sources.drawn.world import write_world

    require_own_report(out, KIND)
    say("Drawing train/ and val/ ...")
    drawn = out / "drawn"
    write_world(drawn, size=DRAWN_IMAGE_SIZE, sets=PER_CLASS)
    networks = drawn_networks(_ENCODER)
    unseen = drawn_classifier(_UNSEEN)
    config = _config(drawn, networks.autoencoder, networks.classifier)
    perturbed, reconstructed = products_of(config, out / _LABEL, _LABEL)
    run(prepare(config, (perturbed, reconstructed)))
    request = GapRequest(
        original=str(drawn),
        reconstructed=str(reconstructed.folder),
        advbn=str(perturbed.folder),
        models={path.parent.name.removeprefix("classifier-"): str(path) for path in (networks.classifier, unseen)},
        out=out,
    )
    report = write_gap_report(out, *gather(request), picture_side(DRAWN_IMAGE_SIZE))
    rows = [[line.name, *map(str, line.cells)] for line in accuracy_lines(report)]
    table = markdown_table(["model", *accuracy_head()], rows)
    lines = [lead(report), "", table, "", f"report: {out / HTML}"]
    result = {"report": str(out / HTML), "rows": report["rows"], "gaps": report["gaps"], "out": str(out)}
    print_result(result, lines, as_json=as_json)


def _config(drawn: Path, autoencoder: Path, classifier: Path) -> "GenerationConfig":
    from experiments import imagenet_advbn
    from pipeline.drawn_networks import DRAWN_IMAGE_SIZE

    return replace(
        imagenet_advbn(_ENCODER, str(drawn.absolute()), str(autoencoder)),
        classifier_weights=str(classifier),
        image_size=DRAWN_IMAGE_SIZE,
        reconstructed=True,
    )
