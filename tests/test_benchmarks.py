"""Benchmarks run; what they measure is in docs/measurements.md."""

import re
import shlex
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from benchmarks import batch_profile, growth, installation, loops, reference
from benchmarks.scoring import main as scoring
from benchmarks.video_step import Step, measure
from tests.processes import ROOT
from tests.support import image_folder
from tests.test_recipes import parse


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


def compared_with_the_reference(folder: Path) -> Result:
    source = image_folder(folder / "val", per_class=2, classes=("a", "b"))
    size = ["--image-size", "16", "--batch-size", "2", "--batches", "2", "--width", "0.0625", "--micro-batch", "1"]
    words = ["--source", str(source), "--classifier", "shufflenet_v2_x0_5", *size, "--rounds", "1", "--device", "cpu"]
    return CliRunner().invoke(reference.main, [*words, "--precision", "fp64"])


@pytest.mark.slow
def test_the_plain_reference_makes_the_same_images_in_double_precision(tmp_path: Path) -> None:
    done = compared_with_the_reference(tmp_path)
    assert done.exit_code == 0, done.output
    assert re.search(r"ratio \d+\.\d{3} \(100\.00% of the values within one grey level\)\n", done.output)
    assert re.search(
        r"median ratio \d+\.\d{3}, .* 4 images in batches of 2 \(micro-batches of 1\), cpu, fp64", done.output
    )


@pytest.mark.slow
def test_other_images_than_the_references_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "plain_shift", lambda feat, mean, std: (std * feat + (mean - 1)).relu())
    done = compared_with_the_reference(tmp_path)
    assert done.exit_code == 1, done.output
    assert re.search(r"Error: only \d\d?\.\d+% of the values are within one grey level of the reference", done.output)


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
    monkeypatch.setattr(loops, "plain_shift", lambda feat, *_: feat)
    monkeypatch.setattr(loops, "_plain_pgd", lambda _, image, *__: image + 0.01)
    done = CliRunner().invoke(loops.main, [*SMALL, "--only", name])
    assert done.exit_code == 1, done.output
    assert f"Error: {name}: " in done.output
    assert "ratio" not in done.output


@pytest.mark.slow
def test_growth_is_measured_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In this process, because a new one takes seconds to load the libraries.
    monkeypatch.setattr(growth, "in_own_process", growth.measure)
    base = ["--base-images", "2", "--base-batch", "2", "--base-image-size", "16", "--base-micro-batch", "1"]
    networks = ["--classifier", "shufflenet_v2_x0_5", "--scored", "shufflenet_v2_x0_5", "--width", "0.0625"]
    words = [*base, *networks, "--factors", "1,2", "--rounds", "1", "--plot", str(tmp_path / "plot.png")]
    done = CliRunner().invoke(growth.main, [*words, "--vary", "micro-batch", "--vary", "models"])
    assert done.exit_code == 0, done.output
    numbers = r" +\d+\.\d\d +\d+\.\d\d +\d+\.\d\d$"
    for row in ("2 +2 +16 +2 +1", "2 +2 +16 +2 +2"):
        assert re.search(rf"^micro-batch +{row}{numbers}", done.output, re.MULTILINE)
    for row in ("2 +2 +1", "2 +2 +2"):
        assert re.search(rf"^models +{row}{numbers}", done.output, re.MULTILINE)
    for setting in ("micro-batch", "models"):
        assert re.search(rf"^{setting}: from 1 to 2\n  time exponent -?\d+\.\d\d \(", done.output, re.MULTILINE)
    with Image.open(tmp_path / "plot.png") as plot:
        assert plot.width > 500


def test_one_setting_grows_and_the_others_stay() -> None:
    base = {"images": 8, "batch": 8, "image-size": 64, "steps": 2, "micro-batch": 4, "models": 1}
    networks = {"encoder": "vgg", "width": 1, "classifier": None, "scored": "resnet18", "device": "cpu", "rounds": 1}
    found = {
        setting: [
            (value, each.images, each.batch, each.image_size, each.steps, each.micro_batch, each.models)
            for value, each in growth.points_of(setting, base, (1, 4), networks)
        ]
        for setting in growth.UNITS
    }
    assert found == {
        "images": [(8, 8, 8, 64, 2, None, 0), (32, 32, 8, 64, 2, None, 0)],
        "batch": [(8, 32, 8, 64, 2, None, 0), (32, 32, 32, 64, 2, None, 0)],
        "image-size": [(64, 8, 8, 64, 2, None, 0), (256, 8, 8, 256, 2, None, 0)],
        "steps": [(2, 8, 8, 64, 2, None, 0), (8, 8, 8, 64, 8, None, 0)],
        "micro-batch": [(4, 16, 16, 64, 2, 4, 0), (16, 16, 16, 64, 2, 16, 0)],
        "models": [(1, 8, 8, 64, 2, None, 1), (4, 8, 8, 64, 2, None, 4)],
    }


def test_exponents_are_those_of_the_last_two_points() -> None:
    measured = [
        growth.Measured(seconds=seconds, busy_seconds=1, gibibytes=gibibytes)
        for seconds, gibibytes in ((1, 1), (3, 1), (7, 2))
    ]
    curve = list(zip((8, 16, 32), measured, strict=True))
    assert growth.growth("images", curve).splitlines() == [
        "from 16 to 32",
        "  time exponent 1.22 (0.25 s more for each image, before 0.25)",
        "  busy time exponent 0.00 (0 s more for each image, before 0)",
        "  memory exponent 1.00 (64 MiB more for each image, before 0)",
    ]
    assert "  time exponent 0.61 (5.208 s more for each 1,000 pixels" in growth.growth("image-size", curve)


@pytest.mark.slow
def test_the_time_of_a_batch_is_divided_among_kinds_of_operations(tmp_path: Path) -> None:
    source = image_folder(tmp_path / "val", per_class=1, classes=("a", "b"))
    size = ["--image-size", "16", "--batch-size", "2", "--width", "0.0625", "--gemm-side", "64", "--rounds", "1"]
    words = ["--source", str(source), "--classifier", "shufflenet_v2_x0_5", "--device", "cpu"]
    done = CliRunner().invoke(batch_profile.main, [*words, *size])
    assert done.exit_code == 0, done.output
    shares = {line[9:]: float(line[:7].rstrip("%")) for line in done.output.splitlines() if line[6:7] == "%"}
    assert {"convolution, forward", "convolution, backward", batch_profile.OTHER} <= shares.keys()
    assert sum(shares.values()) == pytest.approx(100, abs=1)
    assert re.search(
        r"^\d+ GFLOP a batch; median \d+\.\d% of the rate of a product of 64 x 64", done.output, re.MULTILINE
    )


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("aten::convolution_backward", "convolution, backward"),
        ("aten::mkldnn_convolution", "convolution, forward"),
        ("aten::addmm", "matrix product"),
        ("aten::copy_", "copies and changes of layout"),
        ("aten::max_pool2d_with_indices", "pooling"),
        ("aten::threshold_backward", "ReLU and other arithmetic by element"),
        ("aten::empty", "other operators"),
    ],
)
def test_an_operator_has_its_kind(operator: str, kind: str) -> None:
    assert batch_profile.kind_of(operator) == kind


def test_each_extra_is_used_by_a_command_that_is_taken() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(installation.USES) == {installation.NONE, *project["optional-dependencies"]}
    commands = [
        shlex.split(each) for each in chain(installation.FIRST, *installation.USES.values()) if isinstance(each, str)
    ]
    ours = [words for name, *words in commands if name == "advbn-gen"]
    assert len(ours) > 8
    for words in ours:
        parse(words)
