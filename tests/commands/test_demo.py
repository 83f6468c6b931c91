"""`demo --pretrained`: real networks on anyone's images, with few and short steps."""

import json
from pathlib import Path
from typing import Any

import pytest

from commands import demo_runs
from tests.support import advbn_gen, image_folder, refused

NETWORKS = [f"efficientnet-lite{number}" for number in range(3)]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("images") / "photographs", per_class=1, classes=("beach", "party"))


@pytest.fixture(scope="module")
def demo(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("demo") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_runs, "_EPOCHS", 1)
        patch.setattr(demo_runs, "_CROPS", 8)
        words = ("demo", "--pretrained", "--source", photographs, "--out", out)
        done, again = advbn_gen(*words, "--json"), advbn_gen(*words)
    assert done.code == 0, done.err
    assert again.code == 0, again.err
    return {**done.result, "out": out, "again": again}


@pytest.mark.slow
def test_all_three_networks_are_reported_on(demo: dict[str, Any]) -> None:
    rows = {(row["model"], row["data"]): row for row in demo["rows"]}
    assert {model for model, _ in rows} == set(NETWORKS)
    assert {model for (model, _), row in rows.items() if row["attacked"]} == {NETWORKS[0]}
    assert rows[NETWORKS[0], "original"]["top1"] == 1, "its own predictions are the labels"
    assert {row["n"] for row in rows.values()} == {2}


@pytest.mark.slow
def test_the_report_says_what_the_labels_and_the_decoder_are(demo: dict[str, Any]) -> None:
    assert len(demo["notes"]) == 2
    page, markdown = ((demo["out"] / name).read_text() for name in ("report.html", "report.md"))
    for said in ("no labels of ImageNet", "trained on these same images"):
        assert said in page
        assert said in markdown
        assert said in demo["again"].out
    assert json.loads((demo["out"] / "report.json").read_text())["notes"] == demo["notes"]


@pytest.mark.slow
def test_its_data_sets_are_whole_and_say_what_was_attacked(demo: dict[str, Any]) -> None:
    for name in ("advbn", "reconstructed"):
        assert advbn_gen("verify", demo["out"] / name).code == 0
    manifest = json.loads((demo["out"] / "advbn/manifest.json").read_text())
    assert manifest["config"]["classifier_weights"] == "packaged:efficientnet-lite0"
    assert manifest["identity"]["classifier"]["name"] == "timm:tf_efficientnet_lite0"
    assert manifest["config"]["encoder"] == "timm:tf_efficientnet_lite0@blocks.1"
    assert manifest["config"]["attack"] == {"eps": 1.1, "steps": 6, "step_size": 0.2}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--source", "{photographs}"], "--source is for photographs; give --pretrained as well"),
        (["--limit", "5"], "--limit is for photographs"),
        (["--pretrained", "--limit", "0"], "--limit is 0"),
        (["--pretrained", "--source", "{photographs}x"], "does not exist"),
    ],
)
def test_what_does_not_fit_is_refused(words: list[str], message: str, photographs: Path, tmp_path: Path) -> None:
    filled = [word.format(photographs=photographs) for word in words]
    assert message in refused("demo", *filled, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
