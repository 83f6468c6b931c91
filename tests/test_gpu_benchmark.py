"""The comparison of precisions, and the benchmark that is prepared for a GPU, in small on the CPU."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from basics.errors import UserError
from benchmarks import fidelity, gpu, gpu_goals, gpu_stages
from benchmarks.gpu_stages import Stage
from benchmarks.gpu_workload import Results, Settings, Values
from benchmarks.modes import Mode, precisions_of
from pipeline.runners.serial import SerialRunner
from reports.intervals import Estimate
from sources.drawn.source import SHAPES
from tests.processes import ROOT, environment
from tests.support import tiny_autoencoder, tiny_classifier


@pytest.mark.parametrize("name", ["fp32", "bf16-compiled", "bf16-micro8", "tf32-compiled-micro4"])
def test_a_mode_is_parsed_from_its_name(name: str) -> None:
    assert Mode.parse(name).name == name


@pytest.mark.parametrize("name", ["fp16", "bf16-micro", "bf16-fast", "fp32-micro2-micro4", ""])
def test_a_mode_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="There is no mode"):
        Mode.parse(name)


def test_a_cpu_has_no_tf32() -> None:
    assert precisions_of("cpu") == ("fp32", "bf16")


@pytest.mark.slow
def test_fp32_passes_beside_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = fidelity.ComparedNetworks(
        encoder="vgg",
        autoencoder=tiny_autoencoder(tmp_path / "autoencoder.safetensors"),
        attacked=tiny_classifier(tmp_path / "attacked.safetensors", len(SHAPES)),
        unseen=tiny_classifier(tmp_path / "unseen.safetensors", len(SHAPES), seed=2),
        image_size=32,
    )
    monkeypatch.setattr(fidelity, "drawn_to_compare", lambda _: networks)
    out = tmp_path / "fidelity.json"
    words = ["--device", "cpu", "--precisions", "fp32", "--batches", "1", "--json", str(out)]
    done = CliRunner().invoke(fidelity.main, words)
    assert done.exit_code == 0, done.output
    assert re.search(r"^fp32 +\d+\.\d\d% +\d+\.\d\d% .* passes$", done.output, re.MULTILINE)
    assert "fastest that passes: fp32" in done.output
    values = json.loads(out.read_text(encoding="utf-8"))
    (row,) = values["rows"]
    assert (values["images"], values["fastest_that_passes"], row["passes"]) == (32, "fp32", True)
    assert values["fp32_top1"]["low"] <= row["top1"] <= values["fp32_top1"]["high"]
    assert row["seconds_per_batch"] > 0


def test_a_precision_of_another_loss_or_accuracy_is_named_as_failing() -> None:
    usual = _fidelity("fp32", seconds_per_batch=2.0)
    weaker = _fidelity("bf16", seconds_per_batch=1.0, loss_holds=False)
    assert _comparison(usual, weaker).fastest == "fp32"
    assert "fails (loss)" in _comparison(usual, weaker).table()
    assert _comparison(usual, _fidelity("bf16", seconds_per_batch=1.0)).fastest == "bf16"
    assert "fastest that passes: none" in _comparison(weaker).table()


def _fidelity(mode: str, *, seconds_per_batch: float, loss_holds: bool = True) -> fidelity.Fidelity:
    return fidelity.Fidelity(
        mode=mode,
        pixels_near_fp64=1.0,
        multipliers_as_fp64=1.0,
        loss=2.0,
        loss_holds=loss_holds,
        top1=0.5,
        top1_holds=True,
        seconds_per_batch=seconds_per_batch,
    )


def _comparison(*rows: fidelity.Fidelity) -> fidelity.Comparison:
    return fidelity.Comparison(
        hardware="cpu",
        encoder="vgg",
        images=32,
        fp64_loss=2.0,
        fp32_loss=2.0,
        fp32_top1=Estimate(0.5, 0.4, 0.6),
        rows=rows,
    )


STAGE_VALUES = {
    "matrix rate": {"fp32", "bf16"},
    "images": {"pictures", "megabytes"},
    "operations: vgg": {"teraflop_per_image"},
    "ascent: vgg, fp32": {"images_per_s", "first_batch_s", "teraflop_per_s", "share_of_matrix_rate"},
    "ascent: vgg, fp32-micro2": {"images_per_s", "first_batch_s", "teraflop_per_s", "share_of_matrix_rate"},
    "end to end: vgg, in process": {"images_per_s", "ascent_alone_images_per_s", "waiting_share"},
    "end to end: vgg, 1 worker": {"images_per_s", "ascent_alone_images_per_s", "waiting_share"},
    "plain reference": {"images_per_s", "ratio"},
    "coding": {"decoded_per_s_one_thread", "encoded_per_s_threads", "encoded_per_s_processes", "threads_needed"},
    "results: bytes": {"same_twice", "same_ahead", "same_as_with_plain_copies"},
    "results: fp64": {"identical"},
    "results: memory": {"skipped"},
    "fidelity: precisions": {"rows", "fastest_that_passes"},
}


@pytest.mark.slow
def test_a_dry_run_of_the_gpu_benchmark_measures_every_stage(tmp_path: Path) -> None:
    words = ["--dry", "--modes", "fp32,fp32-micro2", "--encoders", "vgg", "--workers", "1", "--out", "results"]
    subprocess.run(
        ["bash", str(ROOT / "benchmarks/gpu.sh"), *words],
        cwd=tmp_path,
        env=environment(PYTHON=sys.executable),
        check=True,
        capture_output=True,
    )
    found = json.loads((tmp_path / "results" / gpu.JSON).read_text(encoding="utf-8"))
    assert (found["device"], found["dry"]) == ("cpu", True)
    stages = found["stages"]
    assert list(stages) == list(STAGE_VALUES)
    for name, expected in STAGE_VALUES.items():
        assert expected <= stages[name].keys(), stages[name]
    assert stages["results: bytes"]["same_twice"]
    assert stages["results: bytes"]["same_ahead"]
    assert stages["results: bytes"]["same_as_with_plain_copies"]
    assert stages["results: fp64"]["identical"]
    table = (tmp_path / "results" / gpu.TABLE).read_text(encoding="utf-8")
    for goal in gpu_goals.goals_of(("vgg",)):
        assert re.search(rf"^\| {re.escape(goal.name)} \| .* \| not judged \|$", table, re.MULTILINE), table


def _run_gpu(monkeypatch: pytest.MonkeyPatch, out: Path, stages: Sequence[Stage], *words: str) -> dict[str, Any]:
    """Run the benchmark with other stages; return its JSON."""
    monkeypatch.setattr(gpu, "stages_of", lambda _: stages)
    done = CliRunner().invoke(gpu.main, ["--dry", "--out", str(out), *words])
    assert done.exit_code == 0, done.output
    values: dict[str, Any] = json.loads((out / gpu.JSON).read_text(encoding="utf-8"))
    return values


def test_a_stage_that_fails_is_recorded_and_the_next_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def fail(_settings: Settings, _results: Results) -> Values:
        raise RuntimeError("no kernel | for this")

    def look(_settings: Settings, _results: Results) -> Values:
        # What was measured before is on the disk already.
        seen.append(list(json.loads((tmp_path / gpu.JSON).read_text(encoding="utf-8"))["stages"]))
        return {"identical": True}

    found = _run_gpu(monkeypatch, tmp_path, [Stage("ascent: vgg, bf16", fail), Stage(gpu_stages.DOUBLE, look)])
    assert found["stages"]["ascent: vgg, bf16"]["error"] == "RuntimeError: no kernel | for this"
    assert found["stages"][gpu_stages.DOUBLE]["identical"] is True
    assert seen == [["ascent: vgg, bf16"]]
    measured = {goal["name"]: goal["measured"] for goal in found["goals"]}
    assert measured["micro-batches give the same pixels in fp64"] is True
    assert measured["vgg: images/s end to end"] is None
    assert "| RuntimeError: no kernel / for this |" in (tmp_path / gpu.TABLE).read_text(encoding="utf-8")


def test_no_stage_starts_when_the_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage("coding", lambda _settings, _results: pytest.fail("it started"))
    found = _run_gpu(monkeypatch, tmp_path, [stage], "--minutes", "-1")
    assert found["stages"]["coding"] == {"error": "not run: out of time"}


def test_goals_are_judged_by_the_fastest_mode_and_run() -> None:
    results: dict[str, Values] = {
        "ascent: vgg, bf16": {"images_per_s": 200.0, "share_of_matrix_rate": 0.3},
        "ascent: vgg, bf16-compiled": {"images_per_s": 300.0, "share_of_matrix_rate": 0.45},
        "ascent: vgg, tf32": {"images_per_s": 400.0, "share_of_matrix_rate": 0.9},
        "ascent: vgg, fp32": {"error": "out of memory"},
        "end to end: vgg, in process": {"images_per_s": 290.0, "waiting_share": 0.1},
        "end to end: vgg, 2 workers": {"images_per_s": 310.0, "waiting_share": 0.06},
        "plain reference": {"error": "no such module"},
        "coding": {"cores": 16, "threads_needed": 8.0, "share_of_all_threads": 1.5},
    }
    judged = {goal.name: goal.judged(results, judge=True) for goal in gpu_goals.goals_of(("vgg",))}
    found = {name: (goal["measured"], goal["holds"]) for name, goal in judged.items()}
    assert found == {
        "vgg: share of the bf16 matrix rate in the fastest bf16 mode": (0.45, True),
        "vgg: images/s end to end": (310.0, True),
        "vgg: share of the time that the computation waits": (0.06, False),
        "times as fast as the plain reference": (None, None),
        "share of the cores that decoding and encoding need": (0.5, True),
        "share of the time that all coding threads are busy": (1.5, False),
        "a shard made twice has the same bytes": (None, None),
        "batches begun ahead give the same bytes": (None, None),
        "copies that nobody waits for give the same bytes": (None, None),
        "micro-batches give the same pixels in fp64": (None, None),
    }


def test_the_steady_rate_counts_from_when_all_processes_have_reported() -> None:
    runner = gpu_stages.ObservedRunner(runner=SerialRunner())
    assert runner.steady_rate(1) is None
    runner.reports += [(10.0, 0, 4), (11.0, 0, 8), (12.0, 1, 4), (14.0, 0, 12), (16.0, 1, 8)]
    assert runner.steady_rate(1) == 16 / 6
    assert runner.steady_rate(2) == 8 / 4
    assert runner.steady_rate(3) is None
