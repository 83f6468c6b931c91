"""`advbn-gen demo`: the whole story, offline, on drawn images."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from basics.progress import say
from commands.options import FOLDER, json_option, print_result

if TYPE_CHECKING:
    from downstream.scoring import Score

_ENCODER, _UNSEEN = "vgg", "resnet"
_PICTURE, _TABLE = "pairs.png", "table.md"
_PAIRS = 24


@click.command(short_help="The whole story, offline, on drawn images.")
@click.option("--out", type=FOLDER, default=Path("demo"), show_default=True, help="Folder for everything it makes.")
@json_option
def demo(out: Path, as_json: bool) -> None:
    """Draw a world of shapes, train small networks on it, turn its style against one of them, score two.

    Leaves the drawn images, two data sets (perturbed, and reconstructed without perturbation), a table and a picture
    of originals beside their AdvBN versions. Takes minutes on two cores; the trained networks are kept in the user's
    cache folder.

    \b
    Example:
      advbn-gen demo --out demo
    """
    from attacks.statistics import AdvBNConfig
    from pipeline.config import GenerationConfig
    from pipeline.job import prepare, products_of
    from pipeline.run import run
    from pipeline.sample import SAMPLE_IMAGE_SIZE, sample_classifier, sample_networks
    from sources.drawn import write_world

    say("Drawing train/ and val/ ...")
    write_world(out / "drawn", size=SAMPLE_IMAGE_SIZE)
    networks = sample_networks(_ENCODER)
    unseen = sample_classifier(_UNSEEN)
    config = GenerationConfig(
        encoder=_ENCODER,
        source=str((out / "drawn").absolute()),
        autoencoder=str(networks.autoencoder),
        classifier_weights=str(networks.classifier),
        image_size=SAMPLE_IMAGE_SIZE,
        attack=AdvBNConfig(),
        reconstructed=True,
    )
    name = f"sample-advbn-{_ENCODER}"
    perturbed, reconstructed = products_of(config, out / name, name)
    run(prepare(config, (perturbed, reconstructed)))
    data = {"original": out / "drawn", "reconstructed": reconstructed.folder, "advbn": perturbed.folder}
    scores = _scores(data, [networks.classifier, unseen])
    table = _table(scores)
    (out / _TABLE).write_text(table + "\n")
    _draw_pairs(out, data)
    lines = [table, f"picture: {out / _PICTURE}", f"data sets: {perturbed.folder}, {reconstructed.folder}"]
    rows = [vars(score) for score in scores]
    print_result({"rows": rows, "picture": str(out / _PICTURE), "out": str(out)}, lines, as_json=as_json)


def _scores(data: dict[str, Path], weights: list[Path]) -> "list[Score]":
    from basics.compute import choose_compute
    from downstream.scoring import score
    from networks.classifiers import load_classifier
    from pipeline.sample import SAMPLE_IMAGE_SIZE
    from sources.drawn import SHAPES
    from sources.opening import open_source

    classifiers = [load_classifier(None, str(path), len(SHAPES)) for path in weights]
    compute = choose_compute("auto", "auto")
    return [
        line
        for name, folder in data.items()
        for line in score(classifiers, name, open_source(folder), SAMPLE_IMAGE_SIZE, compute)
    ]


def _table(scores: "list[Score]") -> str:
    from reports.pairs import markdown_table

    names = list(dict.fromkeys(line.data for line in scores))
    models = list(dict.fromkeys(line.model for line in scores))
    top1 = {(line.model, line.data): line.top1 for line in scores}
    roles = {models[0]: "attacked", models[1]: "never seen by the attack"}
    rows = [[f"{model} ({roles[model]})", *(f"{top1[model, data]:.1%}" for data in names)] for model in models]
    return markdown_table(["top-1", *names], rows)


def _draw_pairs(out: Path, data: dict[str, Path]) -> None:
    from reports.pairs import write_pairs
    from sources.decode import decode_rgb
    from sources.opening import open_source

    original, perturbed = open_source(data["original"]), open_source(data["advbn"])

    def image(source: Any, index: int) -> Any:
        record = source.records[index]
        return decode_rgb(source.read(record), record.name)

    step = len(original.records) // _PAIRS
    chosen = range(step // 2, step * _PAIRS, step)
    write_pairs(out / _PICTURE, [(image(original, index), image(perturbed, index)) for index in chosen])
