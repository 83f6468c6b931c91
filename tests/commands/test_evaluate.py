"""`evaluate` and `report shift` through the command line: the whole chain, and what is refused."""

import json
from pathlib import Path

import pytest

from tests.shifted import CLASSES, classifier, corrupted, filtered, run_folder
from tests.support import advbn_gen, folder_bytes, image_folder, refused, tiny_classifier
from tests.trio import Trio

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every test set in small, and two models; tests must not change them."""
    root = tmp_path_factory.mktemp("shifted")
    corrupted(root / "c", flat=("fog",))
    filtered(root / "instagram")
    for seed, folder in enumerate(("val", "sketch", "style/val")):
        image_folder(root / folder, per_class=4, classes=CLASSES, seed=seed)
    classifier(root / "base.safetensors")
    run_folder(root / "tuned", seed=2, image_size=32)
    return root


def words(world: Path, out: Path) -> list[object]:
    return [
        "evaluate", "--model", world / "base.safetensors", world / "tuned", "--imagenet", world / "val", "--imagenet-c",
        world / "c", "--imagenet-instagram", world / "instagram", "--imagenet-sketch", world / "sketch",
        "--imagenet-style", world / "style", "--out", out, "--device", "cpu",
    ]  # fmt: skip


def name_of(row: dict[str, object]) -> str:
    return f"{row['data']} {row['model']} {row['batch_norm']}"


@pytest.fixture(scope="module")
def evaluated(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluated") / "out"
    done = advbn_gen(*words(world, out), "--json")
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert sorted(done.result["results"], key=name_of) == sorted(lines, key=name_of)
    return out


def test_every_pair_has_a_line_that_programs_can_read(evaluated: Path) -> None:
    rows = [json.loads(line) for line in (evaluated / "results.jsonl").read_text().splitlines()]
    assert len(rows) == 3 * (1 + 75 + 20 + 2) + 3 * 2
    for row in rows:
        assert row.keys() >= {"model", "data", "n", "top1", "top5", "batch_norm", "published_choice", "transform"}
        assert 0 <= row["top1"] <= row["top5"] <= 1
    mce = {(row["model"], row["batch_norm"]): row["mce"] for row in rows if row["data"] == "imagenet-c"}
    assert mce.keys() == {("base", None), ("tuned", "main"), ("tuned", "auxiliary")}
    assert all(value > 1 for value in mce.values()), "mCE is in per cent"


def test_given_again_it_prints_the_table_and_changes_nothing(world: Path, evaluated: Path) -> None:
    before = folder_bytes(evaluated)
    done = advbn_gen(*words(world, evaluated))
    assert done.code == 0, done.err
    assert "294 of 294 pairs were scored before" in done.err
    assert folder_bytes(evaluated) == before
    head, _, base, tuned = [line for line in done.out.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in head.split("|")[2:5]] == [
        "ImageNet top-1",
        "ImageNet-C mCE",
        "ImageNet-C mean error",
    ]
    assert base.split("|")[1].strip() == "base"
    assert tuned.split("|")[1].strip() == "tuned (main / auxiliary)"
    for cell, chosen in zip(tuned.split("|")[2:-1], (0, 0, None, 0, 1, 1), strict=True):
        assert [position for position, part in enumerate(cell.split(" / ")) if "*" in part] == (
            [] if chosen is None else [chosen]
        )
    assert "missing" not in done.out


def test_report_shift_makes_four_files_of_it(evaluated: Path, tmp_path: Path) -> None:
    done = advbn_gen("report", "shift", evaluated, "--published", "tuned=AdvBN", "--out", tmp_path / "report", "--json")
    assert done.code == 0, done.err
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "report.html", "report.md", "report.csv", "report.json",
    }  # fmt: skip
    rows = json.loads((tmp_path / "report/report.json").read_text())["rows"]
    assert rows == done.result["rows"]
    tuned = {(row["batch_norm"], row["data"]): row["published"] for row in rows if row["model"] == "tuned"}
    assert tuned["auxiliary", "imagenet-sketch"]["top1"] == 0.279
    assert tuned["auxiliary", "imagenet-sketch"]["same_data"] is False
    plain = advbn_gen("report", "shift", evaluated, "--out", tmp_path / "plain")
    assert plain.code == 0
    assert "report: " in plain.out
    assert "mCE" in plain.out


def test_what_is_missing_is_printed(world: Path, tmp_path: Path) -> None:
    done = advbn_gen(
        "evaluate", "--model", world / "base.safetensors", "--imagenet-c", world / "c/weather", "--out", tmp_path / "o",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "zoom_blur, fog, contrast, " in done.out
    assert "snow" not in done.out
    assert "no mCE" in done.out
    (line,) = (line for line in done.out.splitlines() if line.startswith("| base"))
    assert [cell.strip() for cell in line.split("|")[2:-1]] == ["-", "-"]


def test_folders_that_are_no_corruption_are_named(world: Path, tmp_path: Path) -> None:
    root = corrupted(tmp_path / "c", corruptions=("fog",), severities=(1,))
    image_folder(root / "extra/speckle_noise/1", classes=CLASSES)
    done = advbn_gen("evaluate", "--model", world / "base.safetensors", "--imagenet-c", root, "--out", tmp_path / "o")
    assert done.code == 0
    assert f"Ignored: {root / 'extra'}" in done.err


def test_our_shards_by_their_folders_names(trio: Trio, tmp_path: Path) -> None:
    done = advbn_gen(
        "evaluate", "--model", trio.unseen, "--imagenet", trio.world.source, "--advbn", trio.advbn, trio.reconstructed,
        "--limit", 20, "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = {row["data"]: row for row in done.result["results"]}
    assert {name: (row["suite"], row["n"]) for name, row in rows.items()} == {
        "imagenet": ("imagenet", 20),
        trio.advbn.name: ("advbn", 20),
        trio.reconstructed.name: ("reconstructed", 20),
    }
    report = advbn_gen("report", "shift", tmp_path / "out", "--out", tmp_path / "report")
    assert report.code == 0, report.err
    assert f"{trio.advbn.name} top-5" in (tmp_path / "report/report.md").read_text()


class TestRefusals:
    def refuse(self, world: Path, tmp_path: Path, *more: object) -> str:
        message = refused("evaluate", "--model", world / "base.safetensors", *more, "--out", tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return message

    def test_no_test_set(self, world: Path, tmp_path: Path) -> None:
        assert "No test set was given" in self.refuse(world, tmp_path)

    def test_a_folder_that_is_not_there(self, world: Path, tmp_path: Path) -> None:
        assert "not an existing folder" in self.refuse(world, tmp_path, "--imagenet-c", tmp_path / "nowhere")

    def test_class_folders_as_imagenet_c(self, world: Path, tmp_path: Path) -> None:
        assert "none of ImageNet-C's corruptions" in self.refuse(world, tmp_path, "--imagenet-c", world / "val")

    def test_corruptions_as_sketch(self, world: Path, tmp_path: Path) -> None:
        assert "its images lie deeper" in self.refuse(world, tmp_path, "--imagenet-sketch", world / "c")

    def test_an_empty_set(self, world: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        assert "holds no images" in self.refuse(world, tmp_path, "--imagenet-sketch", tmp_path / "empty")

    def test_a_model_twice(self, world: Path, tmp_path: Path) -> None:
        same = world / "base.safetensors"
        assert "Two models are called" in self.refuse(world, tmp_path, "--model", same, "--imagenet", world / "val")

    def test_a_model_of_other_classes(self, world: Path, tmp_path: Path) -> None:
        other = tiny_classifier(tmp_path / "other.safetensors", 7)
        message = self.refuse(world, tmp_path, "--model", other, "--imagenet-sketch", world / "sketch")
        assert "other has 7 classes, but the data set imagenet-sketch" in message

    def test_shards_of_another_program(self, world: Path, tmp_path: Path) -> None:
        assert "no data set of this program" in self.refuse(world, tmp_path, "--advbn", world / "val")

    def test_an_impossible_limit(self, world: Path, tmp_path: Path) -> None:
        assert "--limit is 0" in self.refuse(world, tmp_path, "--imagenet", world / "val", "--limit", 0)

    @pytest.mark.parametrize("word", ["tuned", "=AdvBN", "tuned=Nobody's", "other=AdvBN"])
    def test_unknown_published_rows(self, evaluated: Path, tmp_path: Path, word: str) -> None:
        assert "--published" in refused("report", "shift", evaluated, "--published", word, "--out", tmp_path / "r")
        assert not (tmp_path / "r").exists()

    def test_folders_without_results(self, world: Path, tmp_path: Path) -> None:
        assert "has no results.jsonl" in refused("report", "shift", world, "--out", tmp_path / "r")
