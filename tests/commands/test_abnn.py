"""`advbn-gen abnn ...` from the command line: the whole way on small images, and on CIFAR-10 itself."""

import json
from pathlib import Path
from unittest import mock

import pytest
import torch
from PIL import Image

from abnn import sanity
from networks.checkpoints import own_metadata, read_metadata, read_safetensors
from tests.abnn.trained import CLASSES, small_world
from tests.support import advbn_gen, image_folder, refused, tiny_classifier

pytestmark = pytest.mark.slow

SMALL = ("--width", 1 / 16, "--epochs", 1, "--batch-size", 8)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_world(tmp_path_factory.mktemp("abnn-world"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Path:
    """A pretrained substitute, and a network of each defence."""
    root = tmp_path_factory.mktemp("abnn-runs")
    other = image_folder(root / "other", per_class=8, side=40)
    done = advbn_gen("abnn", "pretrain", "--data", other, "--arch", "vgg11_bn", "--out", root / "substitute", *SMALL)
    assert done.code == 0, done.err
    words = ("--task", "cifar10", "--data", world, *SMALL, "--lr", 0.02)
    for defence, more in (("none", ()), ("abnn", ("--substitute", root / "substitute")), ("pgd-at", ("--steps", 2))):
        done = advbn_gen("abnn", "train", "--defence", defence, *words, *more, "--out", root / defence, "--json")
        assert done.code == 0, done.err
        assert done.result["model"] == str(root / defence / "model.safetensors")
        assert 0 <= done.result["held_out_top1"] <= 1
    return root


def test_a_network_trained_here_holds_the_substitute_trained_there(runs: Path) -> None:
    metadata = own_metadata(read_metadata(runs / "abnn/model.safetensors"), "advbn-gen abnn network")
    assert metadata["plan"]["substitute"]["arch"] == "vgg11_bn"
    assert metadata["classes"] == list(CLASSES)
    state, given = (
        read_safetensors(runs / name)[0] for name in ("abnn/model.safetensors", "substitute/classifier.safetensors")
    )
    assert torch.equal(state["substitute.features.0.weight"], given["features.0.weight"])
    assert (runs / "abnn/curves.png").exists()
    metadata = own_metadata(read_metadata(runs / "pgd-at/model.safetensors"), "advbn-gen abnn network")
    assert metadata["defence"] == "pgd-at"
    settings = json.loads((runs / "pgd-at/settings.json").read_text())
    assert settings["attack"]["steps"] == 2
    assert settings["attack"]["eps"] == 8 / 255
    assert all(len(settings["content"][kind]) > 1 for kind in ("training", "held-out"))


def test_info_describes_a_run_folder(runs: Path) -> None:
    facts = advbn_gen("info", runs / "abnn", "--json").result
    assert facts["kind"] == "advbn-gen abnn network"
    assert facts["plan"]["substitute"]["arch"] == "vgg11_bn"


def test_attacks_and_tables_follow_each_other(runs: Path, world: Path, tmp_path: Path) -> None:
    folders = [runs / name for name in ("none", "abnn", "pgd-at")]
    attacks = ("clean", "pgd", "adaptive", "transfer", "roa")
    words = ("--data", world, "--steps", 3, "--stride", 11, "--json")
    done = advbn_gen(
        "abnn", "attack", "--checkpoint", folders[0], "--attack", *attacks, *words, "--surrogate", runs / "abnn"
    )
    assert done.code == 0, done.err
    rows = done.result["rows"]
    done = advbn_gen(
        "abnn", "attack", "--checkpoint", *folders[1:], "--attack", *attacks, *words, "--surrogate", runs / "none"
    )
    assert done.code == 0, done.err
    rows += done.result["rows"]
    assert {row["attack"] for row in rows} == {"clean", "pgd-3", "adaptive", "transfer", "roa", "worst"}
    assert len(rows) == 18
    table = advbn_gen("abnn", "table", *folders, "--out", tmp_path / "table", "--json")
    assert table.code == 0, table.err
    by_name = {(row["model"], row["attack"]): row for row in table.result["rows"]}
    for row in rows:
        shown = by_name[row["model"], row["attack"]]
        assert shown["accuracy"] == row["accuracy"]
        assert shown["n"] == 12
        assert shown["method"] == row["defence"]
        assert shown["cost_formula"] == {"none": 2, "abnn": 3, "pgd-at": 6}[row["defence"]]
        assert shown["cost_measured"] >= 2
    assert {path.name for path in (tmp_path / "table").iterdir()} == {
        "report.html", "report.md", "report.csv", "report.json",
    }  # fmt: skip


def test_checks_are_listed_and_drawn(runs: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanity, "STRONG_STEPS", 10)
    monkeypatch.setattr(sanity, "STEPS", (1, 5, 10))
    monkeypatch.setattr(sanity, "SURFACE_POSITIONS", 5)
    words = ("--data", world, "--limit", 6, "--surrogate", runs / "none", "--out", tmp_path)
    done = advbn_gen("abnn", "sanity", "--checkpoint", runs / "abnn", *words, "--json")
    checks = done.result["checks"]
    assert len(checks) == 8
    failed = [each["name"] for each in checks if not each["passed"]]
    assert done.code == (1 if failed else 0)
    for name in failed:
        assert name in done.err
    with Image.open(tmp_path / "surface.png") as picture:
        assert picture.width > 800


def test_a_second_command_goes_on(runs: Path, world: Path) -> None:
    before = (runs / "none/model.safetensors").read_bytes()
    words = ("--task", "cifar10", "--data", world, *SMALL, "--lr", 0.02)
    assert advbn_gen("abnn", "train", "--defence", "none", *words, "--out", runs / "none").code == 0
    assert (runs / "none/model.safetensors").read_bytes() == before
    message = refused("abnn", "train", "--defence", "none", *words, "--seed", 5, "--out", runs / "none")
    assert "another run" in message


TRAIN = "train --task cifar10 --data {world} --out {out} --batch-size 8"
OURS = TRAIN + " --defence abnn --substitute {runs}/substitute"
ATTACK = "attack --checkpoint {runs}/none --data {world}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --task cifar11 --defence none --data {world} --out {out}", "no task 'cifar11'"),
        ("train --task cifar10 --defence none --data {out} --out {out}2", "does not exist"),
        (f"{TRAIN} --defence wall", "no defence 'wall'"),
        (f"{TRAIN} --defence abnn --substitute timm:resnet19=seed:0", "no timm model 'resnet19'"),
        (
            f"{TRAIN} --defence abnn --substitute timm:convnext_tiny=seed:0",
            "and the substitute timm:convnext_tiny 4",
        ),
        (f"{OURS} --statistics channel --width 0.125", "as many channels"),
        (f"{OURS} --blocks layer1 layer2", "2 blocks and the substitute"),
        (f"{TRAIN} --defence pgd-at --eps 300/255", "lies in [0, 1]"),
        (f"{TRAIN} --defence none --batch-size 1", "batch norm needs two"),
        (f"{TRAIN} --defence none --decay-every 3", "--decay-every changes nothing with a --task of images"),
        ("attack --checkpoint {runs} --attack pgd --data {world}", "has no model.safetensors"),
        (f"{ATTACK} --attack pgd --eps 2", "lies in [0, 1]"),
        (f"{ATTACK} --attack transfer", "--surrogate"),
        (f"{ATTACK} --attack transfer --surrogate {{runs}}/none", "itself"),
        ("sanity --checkpoint {runs}/none --data {world} --surrogate {runs}/none --out {out}", "itself"),
        (f"{ATTACK} --attack clean --eps 2", "--eps changes nothing"),
        (f"{ATTACK} --attack adaptive roa --restarts 3", "--restarts changes nothing"),
        (f"{ATTACK} --attack autoattack pgd --area 0.2", "--area changes nothing"),
        (f"{ATTACK} --attack pgd --surrogate {{runs}}/abnn", "--surrogate changes nothing"),
        (f"{ATTACK} --attack pgd --norm l2", "give --eps with --norm l2"),
        (f"{ATTACK} --attack pgd --steps 0", "steps is 0"),
        (f"{TRAIN} --defence pgd-at --steps 0", "steps is 0"),
        ("sanity --checkpoint {runs}/none --seed -5 --data {world}", "seed is -5"),
        ("sanity --checkpoint {runs}/none --seed 99999999999999999999999 --data {world}", "seed is 999"),
        ("sanity --checkpoint {runs} --data {world} --out {out}", "has no model.safetensors"),
        (f"{ATTACK} --attack roa --area 1.5", "area is 1.5"),
        ("attack --checkpoint {runs}/none --attack pgd --data {runs}/other", "has 4 classes, but"),
        ("sanity --checkpoint {runs}/none --limit 0 --data {world}", "limit is 0"),
        ("table {runs}/other", "no results"),
        ("train --task cifar10 --defence none --out {out}", "The task cifar10 has no data"),
        ("pretrain --out {out}", "The task cifar10 has no data"),
        (f"{TRAIN} --defence none --frames 4", "--frames changes nothing with --task cifar10"),
        (f"{TRAIN} --defence none --checkpoint-activations", "--checkpoint-activations changes nothing"),
        (f"{TRAIN} --defence none --micro-batch 2", "--micro-batch changes nothing with --defence none"),
        (f"{TRAIN} --defence oudefend", "one of networks of clips"),
        (f"{TRAIN} --defence none --normalisation none", "--normalisation changes nothing"),
        ("pretrain --data {runs}/other --arch r3d_18 --out {out}", "r3d_18 takes clips, not images"),
        ("pretrain --data {runs}/other --cache {out}x --out {out}", "--cache changes nothing with --task cifar10"),
        ("pretrain --task ucf101 --arch resnet18 --out {out}", "resnet18 takes images, not clips; give --arch with"),
        ("pretrain --task ucf101 --smallest-crop 0.5 --out {out}", "--smallest-crop changes nothing"),
        ("train --task ucf101 --defence none --frames 0 --out {out}", "frames is 0"),
        ("train --task ucf101 --defence none --split-number 2 --out {out}", "--split-number changes nothing"),
        ("train --task ucf101 --defence abnn --substitute {runs}/substitute --out {out}", "vgg11_bn takes images"),
        ("train --task ucf101 --defence abnn --width 0.1 --out {out}", "--substitute hara_resnet18=FILE"),
        ("train --task ucf101 --defence none --data {world} --out {out}", "clips"),
    ],
)
def test_wrong_options_are_one_plain_sentence(
    runs: Path, world: Path, tmp_path: Path, words: str, message: str
) -> None:
    paths = {"world": world, "runs": runs, "out": tmp_path / "out"}
    assert message in refused("abnn", *(word.format(**paths) for word in words.split()))
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert not (runs / "attacks").exists()


def test_where_published_weights_cannot_be_had_alternatives_are_named(world: Path, tmp_path: Path) -> None:
    with mock.patch("networks.classifiers.get_model", side_effect=OSError("no network")):
        message = refused(*TRAIN.format(world=world, out=tmp_path / "out").join(["abnn ", " --defence abnn"]).split())
    assert "--substitute vgg19_bn=FILE" in message
    assert "advbn-gen abnn pretrain" in message


def test_the_held_out_part_may_be_called_val(runs: Path, world: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/val").symlink_to(world / "test")
    (tmp_path / "data/train").symlink_to(world / "train")
    words = ("abnn", "attack", "--checkpoint", runs / "none", "--attack", "clean", "--json")
    done = [advbn_gen(*words, "--data", data, "--out", tmp_path / data.name) for data in (world, tmp_path / "data")]
    assert [each.code for each in done] == [0, 0]
    assert done[0].result["rows"][0]["accuracy"] == done[1].result["rows"][0]["accuracy"]


@pytest.mark.parametrize("name", ["model.safetensors", "metrics.jsonl", "curves.png", "cost.json"])
@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_a_user_s_files_are_left_alone(world: Path, tmp_path: Path, name: str, more: tuple[str, ...]) -> None:
    (tmp_path / name).write_text("mine")
    words = ("--task", "cifar10", "--defence", "none", "--data", world, *SMALL, "--out", tmp_path)
    assert f"holds a {name}" in refused("abnn", "train", *words, *more)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_user_s_picture_is_left_alone(runs: Path, world: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "surface.png")
    before = (tmp_path / "surface.png").read_bytes()
    words = ("--checkpoint", runs / "none", "--data", world, "--limit", 4, "--out", tmp_path)
    assert "surface.png of something else" in refused("abnn", "sanity", *words)
    assert (tmp_path / "surface.png").read_bytes() == before


def test_another_run_in_the_same_folder_is_measured_anew(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ("abnn", "train", "--task", "cifar10", "--data", world, *SMALL, "--out", out)
    assert advbn_gen(*words, "--defence", "none").code == 0
    assert json.loads((out / "cost.json").read_text())["passes"] == 2
    assert advbn_gen(*words, "--defence", "pgd-at", "--steps", 1, "--overwrite").code == 0
    cost = json.loads((out / "cost.json").read_text())
    assert cost["passes"] == 4
    assert cost["flops_step"] > cost["flops_plain_step"]


@pytest.mark.parametrize("arch", ["googlenet"])
def test_networks_with_auxiliary_heads_are_trained(world: Path, tmp_path: Path, arch: str) -> None:
    words = ("--task", "cifar10", "--defence", "none", "--data", world, *SMALL, "--arch", arch)
    done = advbn_gen("abnn", "train", *words, "--out", tmp_path / "run")
    assert done.code == 0, done.err


def test_a_checkpoint_of_another_kind_is_refused(world: Path, tmp_path: Path) -> None:
    tiny_classifier(tmp_path / "model.safetensors", 4)
    message = refused("abnn", "attack", "--checkpoint", tmp_path, "--attack", "pgd", "--data", world)
    assert "holds no network" in message


@pytest.fixture
def cifar(shared_data: Path, tmp_path: Path) -> Path:
    for name, split in (("cifar10-train-0", "train"), ("cifar10-test", "test")):
        (tmp_path / "cifar" / split).mkdir(parents=True)
        (tmp_path / "cifar" / split / f"{name}.tar.gz").symlink_to(shared_data / f"{name}.tar.gz")
    return tmp_path / "cifar"


def test_on_cifar_10_a_network_learns_and_pgd_undoes_it(cifar: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = advbn_gen(
        "abnn", "train", "--task", "cifar10", "--defence", "none", "--data", cifar, "--width", 1 / 8, "--limit", 800,
        "--epochs", 3, "--batch-size", 32, "--lr", 0.05, "--out", out,
    )  # fmt: skip
    assert done.code == 0, done.err
    done = advbn_gen(
        "abnn", "attack", "--checkpoint", out, "--attack", "clean", "pgd", "roa", "--data", cifar, "--limit", 60,
        "--stride", 8, "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    accuracy = {row["attack"]: row["accuracy"] for row in done.result["rows"]}
    assert accuracy["clean"] > 0.2  # by chance 0.1
    assert accuracy["pgd-5"] < 0.5 * accuracy["clean"]
    assert accuracy["roa"] < accuracy["clean"]
