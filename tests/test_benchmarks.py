"""Benchmarks run; what they measure is in docs/measurements.md."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks import loops
from benchmarks.reference import main as reference
from benchmarks.scoring import main as scoring
from benchmarks.video_step import Step, measure
from tests.support import image_folder


@pytest.mark.slow
@pytest.mark.parametrize("loaders", [0, 1])
def test_scoring_predicts_as_the_plain_loop_that_it_is_compared_with(tmp_path: Path, loaders: int) -> None:
    source = image_folder(tmp_path / "val", per_class=2)
    words = ["--source", str(source), "--arch", "shufflenet_v2_x0_5", "--limit", "4", "--batch-size", "3"]
    done = CliRunner().invoke(scoring, [*words, "--loaders", str(loaders), "--rounds", "1", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert re.search(r"\(100\.0% same predictions\)\nratio \d+\.\d\d of the best times", done.output)
    assert f"4 images, batches of 3, {loaders} loaders, cpu, fp32" in done.output


@pytest.mark.slow
def test_steps_on_clips_are_measured() -> None:
    size = {"batch": 2, "frames": 2, "image_size": 32, "width": 1 / 32, "rounds": 1, "device": "cpu"}
    plain, again, beside = (
        measure(Step(kind=kind, recompute=recompute, **size))  # type: ignore[arg-type]
        for kind, recompute in (("none", False), ("none", True), ("abnn", False))
    )
    assert plain.gigaflop < min(again.gigaflop, beside.gigaflop)
    assert min(plain.seconds, again.seconds) > 0
    assert plain.gibibytes > 0.1


@pytest.mark.slow
def test_the_plain_reference_makes_the_same_images_in_double_precision(tmp_path: Path) -> None:
    source = image_folder(tmp_path / "val", per_class=2, classes=("a", "b"))
    size = ["--image-size", "16", "--batch-size", "2", "--batches", "2", "--width", "0.0625", "--micro-batch", "1"]
    words = ["--source", str(source), "--classifier", "shufflenet_v2_x0_5", *size, "--rounds", "1", "--device", "cpu"]
    done = CliRunner().invoke(reference, [*words, "--precision", "fp64"])
    assert done.exit_code == 0, done.output
    assert re.search(r"ratio \d+\.\d{3} \(100\.00% of the values within one grey level\)\n", done.output)
    assert re.search(
        r"median ratio \d+\.\d{3}, .* 4 images in batches of 2 \(micro-batches of 1\), cpu, fp64", done.output
    )


SMALL = ["--images", "4", "--batch-size", "2", "--image-size", "32", "--width", "0.0625", "--rounds", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("name", loops.COMPARISONS)
def test_a_plain_loop_gives_the_same_and_is_timed(name: str) -> None:
    done = CliRunner().invoke(loops.main, [*SMALL, "--only", name])
    assert done.exit_code == 0, done.output
    assert re.search(rf"{name}: plain \d+\.\d{{3}} s, ours \d+\.\d{{3}} s, ratio \d+\.\d{{3}}\n", done.output)
    assert re.search(rf"{name}: median ratio \d+\.\d{{3}}, \d+\.\d{{3}} of the best times, same results", done.output)


@pytest.mark.slow
@pytest.mark.parametrize("name", loops.COMPARISONS)
def test_another_result_than_the_plain_loops_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "decode_rgb", lambda *_: Image.new("RGB", (32, 32)))
    monkeypatch.setattr(loops, "shifted", lambda feat, *_: feat)
    monkeypatch.setattr(loops, "_plain_pgd", lambda _, image, *__: image + 0.01)
    done = CliRunner().invoke(loops.main, [*SMALL, "--only", name])
    assert done.exit_code == 1, done.output
    assert f"Error: {name}: " in done.output
    assert "ratio" not in done.output
