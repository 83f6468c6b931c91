"""Scoring goes on from what is in its folder, and never mixes results of two models or data sets."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from basics.errors import UserError
from basics.ownership import lock_folder
from downstream import scoring_run
from downstream.predictions import ALL, PredictionFile
from downstream.scoring import predict as predict_really
from downstream.scoring_run import ScoreRequest, named_models, score, score_models
from downstream.testset import open_test_set
from networks.normalise import IMAGENET_COLOURS
from networks.own import OwnModel
from networks.specs import load_model
from reports.gap_object import GapReport
from reports.page import preparation
from sources.classes import imagenet_map
from tests.support import WNIDS, image_folder, tiny_classifier
from tests.trio import SHOWN, Trio


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """Which data set was gone through for which models."""
    made: list[tuple[str, list[str]]] = []
    real = predict_really

    def predict(models: Any, data: Any, *more: Any) -> Any:
        made.append((data.name, [row["model"] for row, _ in models]))
        return real(models, data, *more)

    monkeypatch.setattr(scoring_run, "predict", predict)
    return made


def run(trio: Trio, out: Path, *, limit: int | None = None, **changed: Any) -> list[dict[str, Any]]:
    sets = [
        open_test_set("advbn", str(trio.advbn), limit=limit),
        open_test_set("reconstructed", str(trio.reconstructed), limit=limit),
    ]
    values: dict[str, Any] = {"models": {"a": str(trio.attacked)}, "data": sets, "out": out, "device": "cpu", **changed}
    return score(ScoreRequest(**values))


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_only_what_is_missing_is_scored(trio: Trio, tmp_path: Path, passes: list[Any]) -> None:
    first = run(trio, tmp_path)
    assert passes == [("advbn", ["a"]), ("reconstructed", ["a"])]
    repeated = run(trio, tmp_path)
    assert (repeated, len(passes)) == (first, 2)
    both = run(trio, tmp_path, models={"a": str(trio.attacked), "b": str(trio.unseen)})
    assert passes[2:] == [("advbn", ["b"]), ("reconstructed", ["b"])]
    assert [(row["data"], row["model"]) for row in both] == [
        ("advbn", "a"), ("advbn", "b"), ("reconstructed", "a"), ("reconstructed", "b"),
    ]  # fmt: skip
    assert {(row["data"], row["model"]) for row in lines(tmp_path)} == {(row["data"], row["model"]) for row in both}
    run(trio, tmp_path, overwrite=True)
    assert passes[4:] == [("advbn", ["a"]), ("reconstructed", ["a"])]
    assert len(lines(tmp_path)) == 4


@pytest.mark.slow
def test_a_folder_whose_images_were_made_anew_is_scored_anew(
    tmp_path: Path, passes: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    network = tiny_classifier(tmp_path / "c.safetensors", 3)
    folder = image_folder(tmp_path / "images", per_class=3, classes=("a", "b", "c"), side=32, seed=1)

    def scored(out: str) -> dict[str, Any]:
        data = [open_test_set("x", str(folder))]
        (row,) = score(ScoreRequest(models={"m": str(network)}, data=data, out=tmp_path / out, device="cpu"))
        return row

    first = scored("out")
    assert scored("out") == first
    Path(shutil.move(folder, tmp_path / "elsewhere"))
    shutil.copytree(tmp_path / "elsewhere", folder)  # with their times
    assert {**scored("out"), "data_address": ""} == {**first, "data_address": ""}
    assert [name for name, _ in passes] == ["x"]
    shutil.rmtree(folder)
    image_folder(folder, per_class=3, classes=("a", "b", "c"), side=32, seed=2)
    capsys.readouterr()
    second = scored("out")
    assert "The images of x have other sizes or times than when 1 result in" in capsys.readouterr().err
    assert [name for name, _ in passes] == ["x", "x"]
    assert second == scored("fresh")
    out, fresh = (PredictionFile(tmp_path / name / "predictions.h5").scored("x", "m") for name in ("out", "fresh"))
    found, expected = (each.predictions["all"].probabilities_NK for each in (out, fresh))
    assert np.array_equal(found, expected)


def test_lines_have_what_programs_need(trio: Trio, tmp_path: Path) -> None:
    run(trio, tmp_path)
    for line in lines(tmp_path):
        assert line.keys() >= {
            "model", "data", "n", "top1", "top5", "weights_sha256", "data_fingerprint", "transform", "software",
        }  # fmt: skip
        assert line["n"] == 48
        assert 0 <= line["top1"] <= line["top5"] <= 1


@pytest.mark.slow
def test_a_lost_results_file_is_written_again(trio: Trio, tmp_path: Path, passes: list[Any]) -> None:
    run(trio, tmp_path)
    whole = (tmp_path / "results.jsonl").read_bytes()
    (tmp_path / "results.jsonl").unlink()
    run(trio, tmp_path)
    assert (tmp_path / "results.jsonl").read_bytes() == whole
    assert len(passes) == 2


@pytest.mark.slow
def test_other_weights_under_the_same_name_are_refused(trio: Trio, tmp_path: Path) -> None:
    run(trio, tmp_path)
    before = (tmp_path / "results.jsonl").read_bytes()
    other: dict[str, Any] = {"models": {"a": str(tiny_classifier(tmp_path / "other.safetensors", 1000, seed=8))}}
    with pytest.raises(UserError, match=r"another result of a on advbn \(.*weights_sha256: .* -> .*--overwrite"):
        run(trio, tmp_path, **other)
    assert (tmp_path / "results.jsonl").read_bytes() == before
    run(trio, tmp_path, overwrite=True, **other)
    assert (tmp_path / "results.jsonl").read_bytes() != before


@pytest.mark.slow
def test_another_data_set_under_the_same_name_is_refused(trio: Trio, tmp_path: Path) -> None:
    run(trio, tmp_path)
    with pytest.raises(UserError, match=r"another result of a on advbn \(.*samples: 48 -> 10"):
        run(trio, tmp_path, limit=10)
    with pytest.raises(UserError, match=r"another data set called advbn \(.*samples_sha256: .*--overwrite"):
        run(trio, tmp_path, limit=10, models={"b": str(trio.unseen)})
    run(trio, tmp_path, limit=10, overwrite=True)
    assert {line["n"] for line in lines(tmp_path)} == {10}


def test_names_must_differ(trio: Trio, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Two models are called resnet50"):
        named_models(["resnet50", "resnet50"])
    assert list(named_models(["vgg11", "m=a/x.pth", "m=b/x.pth"])) == ["vgg11", "m=a/x.pth", "m=b/x.pth"]
    with pytest.raises(UserError, match="No model was given"):
        named_models([])
    twice = [open_test_set("x", str(trio.advbn))] * 2
    with pytest.raises(UserError, match="Two data sets are called x"):
        run(trio, tmp_path, data=twice)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_nothing_is_written_before_everything_fits(trio: Trio, tmp_path: Path) -> None:
    small = tiny_classifier(tmp_path / "small.safetensors", 12)
    with pytest.raises(UserError, match="12 classes"):
        run(trio, tmp_path / "out", models={"a": str(trio.attacked), "b": str(small)})
    assert not (tmp_path / "out").exists()


def test_one_folder_is_written_by_one_run(trio: Trio, tmp_path: Path) -> None:
    with lock_folder(tmp_path), pytest.raises(UserError, match="Another run is writing"):
        run(trio, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_own_module_is_scored_as_the_file_of_its_weights(trio: Trio, tmp_path: Path) -> None:
    module: nn.Module = load_model(str(trio.attacked)).module[1]  # type: ignore[index]
    colours = IMAGENET_COLOURS.as_json()
    mine = OwnModel(module, classes=imagenet_map().names, image_size=SHOWN, mean=colours["mean"], std=colours["std"])
    report = GapReport.of(
        trio.world.source, trio.reconstructed, trio.advbn, {"file": trio.attacked, "own": mine}, tmp_path, common=True,
        device="cpu",
    )  # fmt: skip
    assert [row["attacked"] for row in report.rows] == [True] * 6
    for role in ("original", "reconstructed", "advbn"):
        of_file, of_module = (report.inputs.scored[role, name] for name in ("file", "own"))
        pairs = [each.predictions[ALL] for each in (of_file, of_module)]
        assert np.array_equal(pairs[0].classes_NK, pairs[1].classes_NK)
        assert np.array_equal(pairs[0].probabilities_NK, pairs[1].probabilities_NK)
        assert (of_module.row["arch"], of_module.row["weights"]) == ("ResNet", "own module")
        assert of_module.row["colours"] == colours
    report.write()
    assert preparation(report.rows[-1]) in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert report.rows[-1]["model"] == "own"


@pytest.mark.slow
def test_an_own_module_that_has_changed_is_another_one(trio: Trio, tmp_path: Path, passes: list[Any]) -> None:
    module: nn.Module = load_model(str(trio.attacked)).module[1]  # type: ignore[index]
    mine = {"own": OwnModel(module, classes=imagenet_map().names, image_size=SHOWN)}
    first = run(trio, tmp_path, models=mine)
    assert run(trio, tmp_path, models=mine) == first
    assert len(passes) == 2
    with torch.no_grad():
        next(module.parameters()).mul_(-1)
    with pytest.raises(UserError, match=r"holds another result of own on advbn .*weights_sha256"):
        run(trio, tmp_path, models=mine)
    second = run(trio, tmp_path, models=mine, overwrite=True)
    assert second[0]["weights_sha256"] != first[0]["weights_sha256"]
    assert len(passes) == 4
    other = {"own": OwnModel(module, classes=imagenet_map().names, image_size=SHOWN, mean=[0.5] * 3, std=[0.5] * 3)}
    with pytest.raises(UserError, match=r"another result of own on advbn .*colours"):
        run(trio, tmp_path, models=other)


@pytest.mark.slow
def test_classes_of_an_own_module_in_another_order_are_another_result(tmp_path: Path) -> None:
    data = {"images": image_folder(tmp_path / "images", per_class=2, classes=WNIDS[:2])}
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    ordered, reversed_ = (
        {"mine": OwnModel(network, classes=classes, image_size=24)} for classes in (WNIDS[:2], WNIDS[1::-1])
    )
    (wrong,) = score_models(reversed_, data, tmp_path / "scores")
    with pytest.raises(UserError, match="holds another result of mine on images"):
        score_models(ordered, data, tmp_path / "scores")
    (right,) = score_models(ordered, data, tmp_path / "scores", overwrite=True)
    assert right["top1"] == 1 - wrong["top1"]
    assert right["class_order"] != wrong["class_order"]
    # Ascending ones are others, too.
    first = {"first": image_folder(tmp_path / "first", per_class=2, classes=WNIDS[:1])}
    score_models(ordered, first, tmp_path / "scores")
    with pytest.raises(UserError, match="holds another result of mine on first"):
        score_models(
            {"mine": OwnModel(network, classes=(WNIDS[0], WNIDS[2]), image_size=24)}, first, tmp_path / "scores"
        )
