"""Scores on the paper's test sets equal plain loops, and an evaluation goes on from wherever it was killed."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18

from basics.errors import UserError
from downstream import scoring_run
from downstream.evaluation import EvaluationRequest, evaluate, models_of
from downstream.prediction_folder import PredictionFolder
from downstream.scoring import predict as predict_really
from downstream.scoring_run import ScoreRequest, score
from downstream.suites import TestSetPaths
from downstream.testset import open_test_set
from tests.processes import finish, start, wait_until
from tests.shifted import CLASSES, classifier, corrupted, filtered, run_folder
from tests.support import image_folder

MEAN_STD = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
RESIZED = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.PILToTensor()])
CROPPED = transforms.Compose([transforms.CenterCrop(224), transforms.PILToTensor()])


def paths_of(**paths: Any) -> TestSetPaths:
    values: dict[str, Any] = {name: str(at) if isinstance(at, Path) else at for name, at in paths.items()}
    return TestSetPaths(**values)


def run(out: Path, models: dict[str, Path], *, overwrite: bool = False, **paths: Any) -> list[dict[str, Any]]:
    return evaluate(
        EvaluationRequest(
            models={name: str(path) for name, path in models.items()},
            paths=paths_of(**paths),
            out=out,
            device="cpu",
            precision="fp64",
            overwrite=overwrite,
        )
    )


def by_key(rows: list[dict[str, Any]]) -> dict[tuple[str, str | None, str], dict[str, Any]]:
    return {(row["model"], row["batch_norm"], row["data"]): row for row in rows}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier(tmp_path_factory.mktemp("small") / "small.safetensors")


@pytest.fixture(scope="module")
def whole_c(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corrupted(tmp_path_factory.mktemp("whole") / "c")


@pytest.fixture(scope="module")
def scored_c(tmp_path_factory: pytest.TempPathFactory, small: Path, whole_c: Path) -> tuple[Path, list[dict[str, Any]]]:
    """An uninterrupted run on the whole of it, and its rows; tests must not change it."""
    out = tmp_path_factory.mktemp("scored") / "c"
    return out, run(out, {"small": small}, imagenet_c=whole_c)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Which data set was gone through for how many models."""
    made: list[tuple[str, int]] = []

    def predict(models: Any, data: Any, *more: Any) -> Any:
        made.append((data.name, len(models)))
        return predict_really(models, data, *more)

    monkeypatch.setattr(scoring_run, "predict", predict)
    return made


@pytest.mark.slow
def test_main_and_auxiliary_equal_plain_torchvision(tmp_path: Path) -> None:
    """Each safetensors file alone in torchvision's ResNet-18, images by Pillow, in float64."""
    tuned = run_folder(tmp_path / "tuned", width=1.0, side=224)
    paths: dict[str, Any] = {
        "imagenet": image_folder(tmp_path / "val", per_class=2, classes=CLASSES, side=300, seed=1),
        "imagenet_sketch": image_folder(tmp_path / "sketch", per_class=1, classes=CLASSES, side=270, seed=2),
        "imagenet_style": image_folder(tmp_path / "style/val", per_class=1, classes=CLASSES, side=224, seed=3).parent,
        "imagenet_c": corrupted(tmp_path / "c", corruptions=("fog",), severities=(2,), side=224),
    }
    rows = by_key(run(tmp_path / "out", {"tuned": tuned}, **paths))
    store = PredictionFolder(tmp_path / "out/predictions")
    folders = {
        "imagenet": (paths["imagenet"], RESIZED, "resize 256 bilinear, crop 224"),
        "imagenet-sketch": (paths["imagenet_sketch"], RESIZED, "resize 256 bilinear, crop 224"),
        "imagenet-style": (paths["imagenet_style"] / "val", CROPPED, "crop 224"),
        "imagenet-c/fog/2": (paths["imagenet_c"] / "weather/fog/2", CROPPED, "crop 224"),
    }
    of_main = {"imagenet", "imagenet-c/fog/2"}
    differing = 0
    for data, (folder, prepare, transform) in folders.items():
        first = {}
        for which in ("main", "auxiliary"):
            network = resnet18(num_classes=3)
            network.load_state_dict(load_file(tuned / f"{which}.safetensors"))
            network.double().eval()
            predicted, labels = [], []
            with torch.no_grad():
                for image, label in ImageFolder(str(folder), prepare):
                    predicted.append(network(MEAN_STD(image.double() / 255)[None])[0].argsort(descending=True).tolist())
                    labels.append(label)
            kept = store.file(data).scored(data, f"tuned ({which} batch norm)")
            assert kept.predictions["all"].classes_NK.tolist() == predicted
            row = rows["tuned", which, data]
            assert row["top1"] == np.mean([best[0] == label for best, label in zip(predicted, labels, strict=True)])
            assert (row["n"], row["top5"], row["transform"]) == (len(labels), 1.0, transform)
            assert row["published_choice"] is ((data in of_main) == (which == "main"))
            first[which] = [best[0] for best in predicted]
        assert len(set(first["main"])) > 1, "the network predicts the same class for every image"
        differing += first["main"] != first["auxiliary"]
    assert differing, "both sets of batch norm predict the same, so this test could not tell one from the other"


@pytest.mark.slow
def test_both_layouts_give_equal_results(
    tmp_path: Path, small: Path, scored_c: tuple[Path, list[dict[str, Any]]]
) -> None:
    flat = corrupted(tmp_path / "flat", flat=("fog", "snow", "gaussian_noise"))
    both = (scored_c[1], run(tmp_path / "out", {"small": small}, imagenet_c=flat))
    values = [{key: (row["n"], row["top1"], row["top5"]) for key, row in by_key(rows).items()} for rows in both]
    assert values[0] == values[1]
    assert len(set(values[0].values())) > 2, "all subsets score alike, so this test could not fail"


@pytest.mark.slow
def test_the_summary_is_the_plain_loops(tmp_path: Path, small: Path, whole_c: Path) -> None:
    rows = by_key(run(tmp_path, {"m": small}, imagenet_c=whole_c, imagenet_instagram=filtered(tmp_path / "i")))
    summary = rows["m", None, "imagenet-c"]
    errors = [1 - row["top1"] for (_, _, data), row in rows.items() if data.startswith("imagenet-c/")]
    assert len(errors) == 75
    assert summary["mean_error"] == pytest.approx(sum(errors) / 75)
    assert summary["top1"] == pytest.approx(1 - sum(errors) / 75)
    fog = sum(1 - rows["m", None, f"imagenet-c/fog/{level}"]["top1"] for level in range(1, 6)) / 5
    assert summary["ce"]["fog"] == pytest.approx(100 * fog / 0.819324)
    assert summary["mce"] == pytest.approx(sum(summary["ce"].values()) / 15)
    assert (summary["missing"], summary["partial"], summary["n"]) == ([], None, 75 * 6)
    filters = [row["top1"] for (_, _, data), row in rows.items() if data.startswith("imagenet-instagram/")]
    assert len(filters) == 20
    assert rows["m", None, "imagenet-instagram"]["top1"] == pytest.approx(sum(filters) / 20)


@pytest.mark.slow
def test_what_is_missing_is_named_and_no_mean_of_a_part_stands_for_the_whole(tmp_path: Path, small: Path) -> None:
    root = corrupted(tmp_path / "c", corruptions=("fog",))
    corrupted(root, corruptions=("snow",), severities=(1, 2, 4, 5))
    rows = by_key(run(tmp_path / "out", {"m": small}, imagenet_c=root, imagenet_instagram=filtered(tmp_path / "i", 3)))
    summary, instagram = rows["m", None, "imagenet-c"], rows["m", None, "imagenet-instagram"]
    assert [summary[name] for name in ("mce", "mean_error", "top1", "top5")] == [None] * 4
    assert {name for name, value in summary["ce"].items() if value is not None} == {"fog"}
    assert len(summary["missing"]) == 13 * 5 + 1
    assert "imagenet-c/snow/3" in summary["missing"]
    assert summary["partial"]["corruptions"] == 1
    assert summary["partial"]["mean_ce"] == summary["ce"]["fog"]
    errors = [1 - row["top1"] for (_, _, data), row in rows.items() if data.startswith("imagenet-c/")]
    assert summary["partial"]["mean_error"] == pytest.approx(sum(errors) / 9)
    assert (instagram["top1"], instagram["missing"]) == (None, ["3 filters instead of 20"])
    assert instagram["partial"]["filters"] == 3
    # What a second folder adds completes it.
    rest = corrupted(tmp_path / "rest", corruptions=("snow",), severities=(3,))
    more = by_key(run(tmp_path / "out", {"m": small}, imagenet_c=rest))
    assert more["m", None, "imagenet-c"]["ce"]["snow"] is not None


@pytest.mark.slow
def test_a_severity_that_was_unpacked_by_half_is_named(
    tmp_path: Path, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = corrupted(tmp_path / "c", corruptions=("fog", "snow"))
    images = sorted((root / "weather/fog/3").rglob("*.*"))
    for path in images[1::2]:
        path.unlink()
    assert 2 * len(images[::2]) >= len(images) > 2
    summary = by_key(run(tmp_path / "out", {"m": small}, imagenet_c=root))["m", None, "imagenet-c"]
    said = capsys.readouterr().err
    assert said.index(f"imagenet-c has {len(images[::2])} images instead of") < said.index("imagenet-c/fog/1: ")
    assert f"{len(images[::2])} images instead of {len(images)} in fog 3" in summary["missing"]
    assert summary["ce"]["snow"] is not None
    assert summary["ce"]["fog"] is None


@pytest.mark.slow
def test_the_first_images_of_a_set_are_not_the_set(tmp_path: Path, small: Path, whole_c: Path) -> None:
    """All 75 subsets and 20 filters are there, but not all of their images were scored."""
    roots = {"imagenet-c": whole_c, "imagenet-instagram": filtered(tmp_path / "i", 20)}
    c, filters = roots.values()
    rows = by_key(run(tmp_path / "out", {"m": small}, limit=1, imagenet_c=c, imagenet_instagram=filters))
    for data, root in roots.items():
        summary = rows["m", None, data]
        assert (summary["top1"], summary.get("mce")) == (None, None)
        images = sum(path.is_file() for path in root.rglob("*"))
        assert summary["missing"] == [f"{summary['n']} of {images} images"]
        assert summary["partial"] is not None
    assert set(rows["m", None, "imagenet-c"]["ce"].values()) == {None}


@pytest.mark.slow
def test_filters_of_two_sets_are_not_pooled(tmp_path: Path, small: Path) -> None:
    one, other = filtered(tmp_path / "one", 20), filtered(tmp_path / "other", 20)
    next(path for path in sorted(other.iterdir())).rename(other / "another filter")
    run(tmp_path / "out", {"m": small}, imagenet_instagram=one)
    before = (tmp_path / "out/results.jsonl").read_bytes()
    with pytest.raises(UserError, match="another set of filters"):
        run(tmp_path / "out", {"m": small}, imagenet_instagram=other)
    assert (tmp_path / "out/results.jsonl").read_bytes() == before


@pytest.mark.slow
def test_each_subset_has_a_file_and_is_gone_through_once(
    tmp_path: Path, small: Path, passes: list[tuple[str, int]]
) -> None:
    root = corrupted(tmp_path / "c", corruptions=("fog",), severities=(1, 2))
    tuned = run_folder(tmp_path / "tuned", image_size=32)
    run(tmp_path / "out", {"m": small, "tuned": tuned}, imagenet_c=root)
    assert passes == [("imagenet-c/fog/1", 3), ("imagenet-c/fog/2", 3)]
    files = [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sorted(map(str, files)) == [
        "predictions/imagenet-c/fog/1.h5", "predictions/imagenet-c/fog/2.h5", "results.jsonl",
    ]  # fmt: skip
    run(tmp_path / "out", {"m": small, "tuned": tuned}, imagenet_c=root)
    assert len(passes) == 2
    third = classifier(tmp_path / "third.safetensors", seed=7)
    run(tmp_path / "out", {"third": third}, imagenet_c=root)
    assert passes[2:] == [("imagenet-c/fog/1", 1), ("imagenet-c/fog/2", 1)]
    run(tmp_path / "out", {"m": small}, imagenet_c=root, overwrite=True)
    assert passes[4:] == [("imagenet-c/fog/1", 1), ("imagenet-c/fog/2", 1)]
    lines = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * 4 + 4


@pytest.mark.slow
def test_a_name_that_stands_for_something_else_is_refused(tmp_path: Path, small: Path) -> None:
    root = corrupted(tmp_path / "c", corruptions=("fog",), severities=(1, 2))
    run(tmp_path / "out", {"m": small}, imagenet_c=root)
    before = (tmp_path / "out/results.jsonl").read_bytes()
    other = classifier(tmp_path / "other.safetensors", seed=9)
    with pytest.raises(UserError, match=r"another result of m on imagenet-c/fog/1 \(weights_sha256"):
        run(tmp_path / "out", {"m": other}, imagenet_c=root)
    with pytest.raises(UserError, match=r"another data set called imagenet-c/fog/1"):
        run(tmp_path / "out", {"n": other}, imagenet_c=root, limit=3)
    assert (tmp_path / "out/results.jsonl").read_bytes() == before
    run(tmp_path / "out", {"n": other}, imagenet_c=root, limit=3, overwrite=True)
    lines = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    assert {(line["model"], line["n"]) for line in lines} == {("n", 3), ("n", 6)}  # 6: the summary of two subsets


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_subset_it_was_at(
    tmp_path: Path,
    small: Path,
    whole_c: Path,
    scored_c: tuple[Path, list[dict[str, Any]]],
    passes: list[tuple[str, int]],
) -> None:
    words = ["evaluate", "--model", small, "--imagenet-c", whole_c, "--device", "cpu", "--precision", "fp64"]
    out = tmp_path / "killed"
    process = start(*words, "--out", out)
    assert wait_until(lambda: len(list(out.rglob("*.h5"))) >= 3, process)
    os.kill(process.pid, signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL
    done = {str(path.relative_to(out / "predictions")) for path in out.rglob("*.h5")}
    assert 3 <= len(done) < 75
    kept = {path: path.read_bytes() for path in out.rglob("*.h5")}
    found = run(out, {"small": small}, imagenet_c=whole_c)
    assert len(passes) == 75 - len(done)
    assert not {f"{name}.h5" for name, _ in passes} & done
    assert all(path.read_bytes() == content for path, content in kept.items())
    whole, uninterrupted = scored_c
    assert found == uninterrupted
    assert (out / "results.jsonl").read_bytes() == (whole / "results.jsonl").read_bytes()
    assert not list(out.rglob("*.tmp"))


@pytest.mark.slow
def test_plain_fine_tuning_is_scored_with_main_alone(tmp_path: Path) -> None:
    plain = run_folder(tmp_path / "plain", method="plain")
    (model,) = models_of("plain", str(plain))
    assert model.more == {"batch_norm": None}
    main = models_of("m", str(plain / "main.safetensors"))[0]
    assert model.classifier.checksum == main.classifier.checksum
    advbn = models_of("a", str(run_folder(tmp_path / "advbn")))
    assert [each.more["batch_norm"] for each in advbn] == ["main", "auxiliary"]


@pytest.mark.slow
def test_sets_of_other_classes_are_refused(tmp_path: Path, small: Path) -> None:
    val = image_folder(tmp_path / "val", classes=CLASSES)
    sketch = image_folder(tmp_path / "sketch", classes=("circle", "ring", "square"))
    with pytest.raises(UserError, match=r"imagenet-sketch .* not the same \(such as square\)"):
        run(tmp_path / "out", {"m": small}, imagenet=val, imagenet_sketch=sketch)
    fewer = image_folder(tmp_path / "fewer", classes=("circle", "star"))
    with pytest.raises(UserError, match=r"has 2 classes and imagenet has 3"):
        run(tmp_path / "out", {"m": small}, imagenet=val, imagenet_sketch=fewer)
    with pytest.raises(UserError, match=r"m has 3 classes, but the data set imagenet-sketch"):
        run(tmp_path / "out", {"m": small}, imagenet_sketch=fewer)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_folder_of_scores_is_not_written_over(tmp_path: Path, small: Path) -> None:
    val = image_folder(tmp_path / "val", classes=CLASSES)
    request = ScoreRequest(
        models={"m": str(small)}, data=[open_test_set("v", str(val))], out=tmp_path / "s", device="cpu"
    )
    score(request)
    before = (tmp_path / "s/results.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"predictions\.h5 of another command"):
        run(tmp_path / "s", {"m": small}, imagenet=val)
    assert (tmp_path / "s/results.jsonl").read_bytes() == before
