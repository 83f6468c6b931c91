"""`score` and `report gap` through the command line: the whole chain, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.dataset.ledger import read_ledger, write_ledger
from tests.disk import resize
from tests.support import advbn_gen, folder_bytes, image_folder, refused, tiny_classifier
from tests.trio import Trio

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reported(trio: Trio, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reported") / "gap"
    done = advbn_gen(*trio.words(out, "--json"))
    assert done.code == 0, done.err
    assert done.result["report"] == str(out / "report.html")
    assert len(done.result["rows"]) == 6
    return out


def test_one_command_leaves_the_report_and_what_it_stands_on(reported: Path) -> None:
    assert {path.name for path in reported.iterdir()} == {
        "report.html", "report.md", "report.csv", "report.json", "results.jsonl", "predictions.h5",
    }  # fmt: skip
    report = json.loads((reported / "report.json").read_text())
    scores = [json.loads(line) for line in (reported / "results.jsonl").read_text().splitlines()]
    assert {(row["model"], row["data"]) for row in report["rows"]} == {(row["model"], row["data"]) for row in scores}
    for row in report["rows"]:
        assert row.keys() >= {"model", "data", "n", "top1", "top5", "top1_low", "top1_high"}
        assert row["n"] == 48
    assert {row["data"] for row in report["rows"]} == {"original", "reconstructed", "advbn"}
    assert [gaps["attacked"] for gaps in report["gaps"]] == [True, False]


def test_given_again_it_scores_nothing_and_writes_the_same(trio: Trio, reported: Path) -> None:
    before = folder_bytes(reported)
    again = advbn_gen(*trio.words(reported))
    assert again.code == 0
    assert "6 of 6 pairs were scored before" in again.err
    assert folder_bytes(reported) == before


def test_files_of_another_report_are_refused_before_anything_is_scored(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("mine")
    words = [word for role in ("original", "reconstructed", "advbn") for word in (f"--{role}", tmp_path / role)]
    assert "report.html of something else" in refused("report", "gap", *words, "--model", "x", "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_one_model_more_scores_only_that(trio: Trio, reported: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(reported, tmp_path / "gap"))
    third = tiny_classifier(tmp_path / "third.safetensors", 1000, seed=9)
    done = advbn_gen(*trio.words(out, third))
    assert done.code == 0, done.err
    assert "6 of 9 pairs were scored before" in done.err
    assert "third (not seen by the attack)" in done.out


def test_models_may_be_given_together_or_one_by_one(trio: Trio, tmp_path: Path) -> None:
    words = ["score", "--data", f"advbn={trio.advbn}", "--out", tmp_path / "a", "--json"]
    together = advbn_gen(*words, "--model", trio.attacked, trio.unseen)
    separately = advbn_gen(*words, "--model", trio.attacked, "--model", trio.unseen)
    assert together.result == separately.result
    assert [row["model"] for row in together.result["results"]] == ["classifier", "unseen"]


def test_score_prints_a_table(trio: Trio, tmp_path: Path) -> None:
    done = advbn_gen(
        "score", "--model", trio.unseen, "--data", f"one={trio.advbn}", f"two={trio.world.source}", "--limit", 20,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.code == 0, done.err
    lines = [line for line in done.out.splitlines() if line.startswith("| unseen")]
    assert [line.split("|")[2].strip() for line in lines] == ["one", "two"]
    assert all(line.split("|")[3].strip() == "20" for line in lines)
    assert all("of 2 classes)" in line for line in lines)


@pytest.fixture(scope="module")
def scaled(trio: Trio, tmp_path_factory: pytest.TempPathFactory) -> dict[float, Path]:
    """The AdvBN data set at other scales, from its ledger."""
    root = tmp_path_factory.mktemp("scaled")
    for scale in (0.5, 2.0):
        done = advbn_gen(
            "render", trio.advbn / "perturbations.h5", "--source", trio.world.source, "--autoencoder",
            trio.world.autoencoder, "--scale", scale, "--out", root / f"{scale:g}",
        )  # fmt: skip
        assert done.code == 0, done.err
    return {scale: root / f"{scale:g}" for scale in (0.5, 2.0)}


def test_other_scales_add_a_curve(trio: Trio, reported: Path, scaled: dict[float, Path], tmp_path: Path) -> None:
    out = Path(shutil.copytree(reported, tmp_path / "gap"))
    done = advbn_gen(*trio.words(out, "--scaled", scaled[2.0], scaled[0.5], "--json"))
    assert done.code == 0, done.err
    assert "6 of 10 pairs were scored before" in done.err
    report = json.loads((out / "report.json").read_text())
    before = json.loads((reported / "report.json").read_text())
    assert report["rows"] == before["rows"]
    assert before["curve"] == []
    results = map(json.loads, (out / "results.jsonl").read_text().splitlines())
    scored = {(row["model"], row["data"]): row for row in results}
    for model in {row["model"] for row in report["rows"]}:
        curve = [row for row in report["curve"] if row["model"] == model]
        assert [(row["scale"], row["data"]) for row in curve] == [
            (0.0, "reconstructed"), (0.5, "scale-0.5"), (1.0, "advbn"), (2.0, "scale-2"),
        ]  # fmt: skip
        for row in curve:
            assert row["top1"] == pytest.approx(scored[model, row["data"]]["top1"])
            assert row["top1_low"] <= row["top1"] <= row["top1_high"]
    assert "Accuracy by scale of the perturbation" in (out / "report.html").read_text()
    heads = [line.replace(" ", "") for line in (out / "report.md").read_text().splitlines() if "scale 0.5" in line]
    assert heads == ["|model|scale0|scale0.5|scale1|scale2|"]


def test_what_is_no_other_scale_of_the_same_run_is_refused(
    trio: Trio, scaled: dict[float, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert "not rendered at another scale" in refused(*trio.words(out, "--scaled", trio.advbn))
    assert "each scale once" in refused(*trio.words(out, "--scaled", scaled[0.5], scaled[0.5]))
    other = trio.world.make(tmp_path / "other", eps=0.5)
    assert other.code == 0, other.err
    rendered = advbn_gen(
        "render", tmp_path / "other/perturbations.h5", "--source", trio.world.source, "--autoencoder",
        trio.world.autoencoder, "--scale", 0.5, "--out", tmp_path / "strange",
    )  # fmt: skip
    assert rendered.code == 0, rendered.err
    assert "ledger of another run" in refused(*trio.words(out, "--scaled", tmp_path / "strange"))


def test_a_ledger_of_the_same_rows_is_another_one(trio: Trio, scaled: dict[float, Path], tmp_path: Path) -> None:
    """The same settings and images, other multipliers: as a GPU might have found."""
    ledger = read_ledger(trio.advbn / "perturbations.h5")
    columns = ledger.columns | {"delta_std": 2 - ledger.columns["delta_std"]}
    write_ledger(tmp_path / "same-rows.h5", columns, ledger.attributes)
    rendered = advbn_gen(
        "render", tmp_path / "same-rows.h5", "--source", trio.world.source, "--autoencoder", trio.world.autoencoder,
        "--scale", 0.5, "--out", tmp_path / "strange",
    )  # fmt: skip
    assert rendered.code == 0, rendered.err
    assert "ledger of another run" in refused(*trio.words(tmp_path / "out", "--scaled", tmp_path / "strange"))
    other = replace(trio, advbn=scaled[0.5])
    assert "was rendered at the scale 0.5" in refused(*other.words(tmp_path / "out"))


class TestRefusals:
    @pytest.fixture
    def out(self, tmp_path: Path, reported: Path) -> Path:
        """An older report, of which nothing may change."""
        return Path(shutil.copytree(reported, tmp_path / "older"))

    def check(self, out: Path, message: str, *words: object) -> None:
        before = folder_bytes(out)
        assert message in refused(*words)
        assert folder_bytes(out) == before

    def test_samples_that_do_not_match(self, trio: Trio, out: Path) -> None:
        words = [word for word in trio.words(out) if word != "--common"]
        self.check(out, "3 of original are not in all", *words)

    def test_nothing_in_common(self, trio: Trio, out: Path, tmp_path: Path) -> None:
        other = image_folder(tmp_path / "other", classes=("n02119789",))
        self.check(out, "no sample in common", *trio.words(out, original=other))

    def test_a_model_of_other_classes(self, trio: Trio, out: Path, tmp_path: Path) -> None:
        small = tiny_classifier(tmp_path / "small.safetensors", 10)
        self.check(out, "small has 10 classes", *trio.words(out, small))

    def test_a_checkpoint_with_missing_and_extra_keys(self, trio: Trio, out: Path, tmp_path: Path) -> None:
        import torch
        from torchvision.models import resnet18

        state = resnet18().state_dict()
        state["extra"] = state.pop("bn1.weight")
        torch.save(state, tmp_path / "x.pth")
        message = refused(*trio.words(out, f"resnet18={tmp_path / 'x.pth'}"))
        assert "missing: bn1.weight" in message
        assert "unknown: extra" in message

    def test_damaged_shards(self, trio: Trio, out: Path, tmp_path: Path) -> None:
        copied = Path(shutil.copytree(trio.advbn, tmp_path / "copied"))
        next(copied.glob("*.tar")).write_bytes(b"x")
        self.check(out, "is damaged", *trio.words(out, advbn=copied))

    def test_an_unknown_model(self, trio: Trio, out: Path) -> None:
        self.check(out, "no classifier 'resnet51'", *trio.words(out, "resnet51"))

    def test_an_unknown_row_of_the_paper(self, trio: Trio, out: Path) -> None:
        self.check(out, "give MODEL=ROW with one of Standard Training", *trio.words(out, "--published", "unseen=X"))

    def test_an_output_that_is_a_file(self, trio: Trio, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        assert "is a file" in refused(*trio.words(tmp_path / "file"))
        assert (tmp_path / "file").read_text() == "mine"

    @pytest.mark.parametrize("word", ["val", "val=", "=x"])
    def test_data_without_name_or_place(self, trio: Trio, tmp_path: Path, word: str) -> None:
        message = refused("score", "--model", trio.unseen, "--data", word, "--out", tmp_path / "out")
        assert "--data" in message or "data set is called" in message

    def test_labels_for_a_data_set_that_is_not_there(self, trio: Trio, tmp_path: Path) -> None:
        message = refused(
            "score", "--model", trio.unseen, "--data", f"a={trio.advbn}", "--labels", "b=x.txt", "--out", tmp_path / "o"
        )
        assert "--labels names b, which is none of the data sets a" in message

    @pytest.mark.parametrize(("option", "value"), [("batch-size", 0), ("loaders", -1), ("gallery", 0)])
    def test_impossible_numbers(self, trio: Trio, out: Path, option: str, value: int) -> None:
        self.check(out, str(value), *trio.words(out, f"--{option}", value))


def test_a_broken_image_is_named_and_nothing_recorded(trio: Trio, tmp_path: Path) -> None:
    source = Path(shutil.copytree(trio.world.source, tmp_path / "source"))
    broken = sorted(source.rglob("*.JPEG"))[20]
    broken.write_bytes(broken.read_bytes()[:100])
    words = ["score", "--model", trio.unseen, "--data", f"val={source}", "--out", tmp_path / "out"]
    for loaders in (0, 2):
        done = advbn_gen(*words, "--loaders", loaders)
        assert done.code == 1
        assert broken.name in done.err
        assert "Traceback" not in done.err
        assert (tmp_path / "out/results.jsonl").exists() is False


def test_a_full_disk_leaves_the_older_report(trio: Trio, reported: Path, disk: Path) -> None:
    out = Path(shutil.copytree(reported, disk / "gap"))
    before = folder_bytes(out)
    used = sum(len(content) for content in before.values())
    resize(disk, used // 1024 + 40)
    done = advbn_gen(*trio.words(out))
    assert done.code == 1
    assert "No space left" in done.err
    assert folder_bytes(out) == before
    assert not list(out.glob("*.tmp"))


def test_a_flat_folder_and_our_shards_in_one_command(trio: Trio, tmp_path: Path) -> None:
    flat, lines = tmp_path / "flat", []
    flat.mkdir()
    for path in sorted(trio.world.source.rglob("*.JPEG")):
        shutil.copy(path, flat / path.name)
        lines.append(f"{path.name} {path.parent.name}")
    (tmp_path / "labels.txt").write_text("\n".join(lines))
    done = advbn_gen(
        "score", "--model", trio.unseen, "--data", f"val={flat}", f"advbn={trio.advbn}", "--labels",
        f"val={tmp_path / 'labels.txt'}", "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert [row["n"] for row in done.result["results"]] == [51, 48]


@pytest.mark.parametrize("name", ["a$^$", "we|rd", "<i>x</i> & y", "x" * 90])
def test_odd_names_of_models(trio: Trio, reported: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name.replace('/', '_')}.safetensors"
    shutil.copy(trio.unseen, path)
    shutil.copytree(reported, tmp_path / "out")
    done = advbn_gen(*trio.words(tmp_path / "out", path))
    assert done.code == 0, done.err
    assert "6 of 9 " in done.err
    tables = [line for line in (tmp_path / "out/report.md").read_text().splitlines() if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in tables} == {6, 8}


def test_a_refused_report_leaves_no_folder(trio: Trio, tmp_path: Path) -> None:
    assert "nowhere" in refused(*trio.words(tmp_path / "gap", original=tmp_path / "nowhere"))
    assert not (tmp_path / "gap").exists()
