"""A report's numbers, counted again by hand."""

import numpy as np
import pytest

from reports.gap import gap_report
from tests.reports.synthetic import row as row_of
from tests.reports.synthetic import synthetic_inputs


def correct_by_hand(inputs: object, role: str, model: str, k: int) -> list[bool]:
    predicted = inputs.scored[role, model].predictions["all"].classes_NK  # type: ignore[attr-defined]
    labels = inputs.label_N  # type: ignore[attr-defined]
    return [int(label) in [int(each) for each in row[:k]] for label, row in zip(labels, predicted, strict=True)]


def test_accuracies_and_gaps_are_counted_correctly() -> None:
    inputs = synthetic_inputs(500, 3, 20)
    report = gap_report(inputs)
    assert [(row["model"], row["data"]) for row in report["rows"]] == [
        (model, role) for model in inputs.models for role in ("original", "reconstructed", "advbn")
    ]
    for row in report["rows"]:
        for k in (1, 5):
            correct = correct_by_hand(inputs, row["data"], row["model"], k)
            assert row[f"top{k}"] == pytest.approx(sum(correct) / 500)
            assert row[f"top{k}_low"] < row[f"top{k}"] < row[f"top{k}_high"]
        assert row["n"] == 500
        assert "present" not in row
    for gaps in report["gaps"]:
        top1 = {
            role: sum(correct_by_hand(inputs, role, gaps["model"], 1)) / 500
            for role in ("original", "reconstructed", "advbn")
        }
        assert gaps["autoencoder_top1"]["value"] == pytest.approx(top1["original"] - top1["reconstructed"])
        assert gaps["perturbation_top1"]["value"] == pytest.approx(top1["reconstructed"] - top1["advbn"])


def test_classes_are_counted_correctly() -> None:
    inputs = synthetic_inputs(300, 2, 7)
    classes = gap_report(inputs)["classes"]
    assert [each["label"] for each in classes] == list(range(7))
    assert sum(each["n"] for each in classes) == 300
    correct = correct_by_hand(inputs, "advbn", "model-1", 1)
    for each in classes:
        own = [hit for hit, label in zip(correct, inputs.label_N, strict=True) if label == each["label"]]
        assert each["n"] == len(own)
        assert each["top1"]["model-1"]["advbn"] == pytest.approx(np.mean(own), abs=1e-4)
        assert each["name"] == f"class {each['label']}"


def test_the_present_classes_have_rows_of_their_own() -> None:
    report = gap_report(synthetic_inputs(100, 1, 10, present=True))
    assert report["rows"][0]["present"]["classes"] == 10
    assert 0 <= report["rows"][0]["present"]["top1_low"] <= report["rows"][0]["present"]["top1"]


def test_the_ascent_is_weighted_by_the_size_of_batches() -> None:
    ledger = {
        "loss": np.array([[0.0, 2.0], [4.0, 8.0]]),
        "batch_size": np.array([3, 1]),
        "delta_mean": np.array([[1.0, 2.1], [-0.1, 1.0]]),
        "delta_std": np.ones((2, 2)),
    }
    ascent = gap_report(synthetic_inputs(10, 1, 5, ledger=ledger))["ascent"]
    assert ascent["loss_mean"] == [1.0, 3.5]
    assert ascent["batches"] == 2
    assert sum(ascent["delta_mean"]) == pytest.approx(1)
    assert (ascent["delta_mean"][0], ascent["delta_mean"][-1]) == (0.25, 0.25)
    assert max(ascent["delta_std"]) == 1
    assert ascent["delta_edges"][0] == pytest.approx(-0.1)
    assert ascent["delta_edges"][-1] == pytest.approx(2.1)


def test_multipliers_that_never_moved() -> None:
    still = {
        "loss": np.ones((1, 1)),
        "batch_size": np.ones(1),
        **dict.fromkeys(("delta_mean", "delta_std"), np.ones((1, 4))),
    }
    ascent = gap_report(synthetic_inputs(10, 1, 5, ledger=still))["ascent"]
    assert sum(ascent["delta_std"]) == 1


def test_the_attacked_model_is_the_one_with_its_weights() -> None:
    report = gap_report(synthetic_inputs(50, 3, 5))
    assert [gaps["attacked"] for gaps in report["gaps"]] == [True, False, False]


def test_published_weights_of_resnet50_bring_the_papers_row() -> None:
    inputs = synthetic_inputs(50, 2, 5)
    published = {**row_of("model-0", "original", "0"), "weights": "published"}
    scored = dict(inputs.scored)
    scored["original", "model-0"] = type(scored["original", "model-0"])(
        row=published, predictions=scored["original", "model-0"].predictions
    )
    report = gap_report(synthetic_inputs(50, 2, 5, scored=scored))
    rows = {(row["model"], row["data"]): row["published"] for row in report["rows"]}
    assert rows["model-0", "advbn"] == {"method": "Standard Training", "top1": 0.016, "top5": 0.047, "same_data": False}
    assert rows["model-0", "original"]["top1"] == 0.761
    assert rows["model-0", "original"]["top5"] is None
    assert rows["model-1", "advbn"] is None


def test_a_named_row_stands_beside_its_model() -> None:
    report = gap_report(synthetic_inputs(50, 2, 5, published={"model-1": "AugMix + AdvBN"}))
    values = [row["published"] for row in report["rows"] if row["model"] == "model-1"]
    assert [each["top1"] for each in values] == [0.778, 0.509, 0.086]


@pytest.mark.slow
def test_all_of_imagenet_as_published_counts_as_the_same_data() -> None:
    inputs = synthetic_inputs(50_000, 1, 1000, published={"model-0": "AdvBN"})
    assert gap_report(inputs)["rows"][0]["published"]["same_data"]
    other = {
        **inputs.manifests["advbn"],
        "config": {"encoder": "vgg", "attack": {"eps": 0.5, "steps": 6, "step_size": 0.2}},
    }
    weaker = synthetic_inputs(
        50_000, 1, 1000, published={"model-0": "AdvBN"}, manifests={**inputs.manifests, "advbn": other}
    )
    assert not gap_report(weaker)["rows"][0]["published"]["same_data"]
