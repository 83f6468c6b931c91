"""Training on clips: every defence from data to a file, its resume, and the ways to save memory."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

from abnn.checkpoint import Checkpoint, load_checkpoint, read_cost
from abnn.cost import Cost
from abnn.network import ABNN
from abnn.options import PixelOptions
from abnn.plan import NetworkPlan, build
from abnn.request import DefenceRequest, _write_cost, start_from, train_defence
from abnn.task import DefenceLoss
from attacks.pixels import PixelConfig
from basics.errors import UserError
from experiments import UCF101, abnn_clip_substitute
from networks.checkpoints import read_weights
from networks.classifiers import build_network, load_classifier, save_classifier
from networks.request import ClassifierRequest, train_classifier
from networks.weight_files import CLASSIFIER_FILE, MODEL_FILE
from sources.base import ClassMap, Source, numbered_classes
from sources.drawn.clips import DrawnClips
from tests.support import seeded
from training.request import ClipOptions

WIDTH, FRAMES, SIDE = 1 / 32, 3, 32
CLIPS = ClipOptions(frames=FRAMES)


def drawn(split: str, each: int) -> Source:
    """A few clips of each of two motions."""
    source = DrawnClips(split, 32)
    chosen = [record for label in (0, 1) for record in [it for it in source.records if it.label == label][:each]]
    return source.part(chosen)


def pretraining(out: Path) -> ClassifierRequest:
    source = DrawnClips("train", 32, motions="pretraining")
    request = abnn_clip_substitute(source.part(source.records[:: len(source.records) // 8]), out)
    held_out = DrawnClips("test", 32, motions="pretraining")
    return replace(
        request, clips=CLIPS, held_out=held_out.part(held_out.records[:3]),
        classifier=replace(request.classifier, width=WIDTH),
        training=replace(request.training, epochs=1, batch_size=4, image_size=SIDE),
    )  # fmt: skip


@pytest.fixture(scope="module")
def substitute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A substitute pre-trained for an epoch on other motions."""
    out = tmp_path_factory.mktemp("substitute")
    result = train_classifier(pretraining(out))
    assert 0 <= result.metadata["held_out_top1"] <= 1
    assert list(result.files) == ["classifier"]
    return out


def request_of(out: Path, defence: str, **changed: Any) -> DefenceRequest:
    training = {"epochs": 1, "batch_size": 4, "image_size": SIDE, **changed.pop("training", {})}
    attack = UCF101.ball(PixelOptions(steps=1)) if defence in {"pgd-at", "oudefend"} else None
    return DefenceRequest(
        benchmark=UCF101, defence=defence, source=drawn("train", 4), held_out=drawn("test", 2), out=out,
        training=replace(UCF101.training, **training), attack=attack,
        **{"arch": "hara_resnet18_b", "width": WIDTH, "clips": CLIPS, **changed},
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, substitute: Path) -> dict[str, Checkpoint]:
    root = tmp_path_factory.mktemp("clip-runs")
    more = {"abnn": {"substitute": str(substitute)}}
    for defence in ("none", "abnn", "pgd-at", "oudefend"):
        train_defence(request_of(root / defence, defence, **more.get(defence, {})))
    return {folder.name: load_checkpoint(folder) for folder in root.iterdir()}


@pytest.mark.slow
def test_every_defence_leaves_a_network_that_is_read_again(runs: dict[str, Checkpoint], substitute: Path) -> None:
    clip = torch.rand(2, 3, FRAMES, SIDE, SIDE)
    for name, run in runs.items():
        assert (run.task, run.defence, run.plan.frames, run.plan.denoise) == (
            "ucf101", name, FRAMES, name == "oudefend",
        )  # fmt: skip
        assert run.module(clip).shape == (2, 8)
        assert run.resized
        ends = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        assert 0 <= ends[-1]["held_out_top1"] <= 1
    network, given = runs["abnn"].module, read_weights(substitute / CLASSIFIER_FILE)
    assert isinstance(network, ABNN)
    assert all(torch.equal(value, given[name]) for name, value in network.substitute.state_dict().items())
    assert len({run.recipe for run in runs.values()}) == 4


@pytest.mark.slow
def test_costs_are_those_of_the_formula_and_of_the_networks(runs: dict[str, Checkpoint]) -> None:
    costs = {name: read_cost(run.folder) for name, run in runs.items()}
    passes = {name: cost["passes"] for name, cost in costs.items() if cost is not None}
    assert passes == {"none": 2, "abnn": 3, "pgd-at": 4, "oudefend": 8}
    ratio = {name: cost["flops_step"] / cost["flops_plain_step"] for name, cost in costs.items() if cost is not None}
    assert ratio["none"] == 1
    # The substitute is about the target here: a third of a plain step more.
    assert 1.2 < ratio["abnn"] < 1.6
    assert 1.4 < ratio["pgd-at"] < ratio["oudefend"]


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the measurement of costs, which takes longer than the training here."""
    monkeypatch.setattr("abnn.request._write_cost", lambda *_: None)


@pytest.mark.slow
@pytest.mark.usefixtures("unmeasured")
def test_a_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    def fit(name: str, epochs: int) -> Path:
        train_defence(request_of(tmp_path / name, "oudefend", training={"epochs": epochs}, micro_batch=3))
        return tmp_path / name / MODEL_FILE

    whole, _ = fit("whole", 2), fit("parts", 1)
    assert whole.read_bytes() == fit("parts", 2).read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("defence", ["abnn", "pgd-at"])
def test_activations_that_are_computed_again_change_no_weight(
    defence: str, runs: dict[str, Checkpoint], substitute: Path, tmp_path: Path
) -> None:
    more = {"substitute": str(substitute)} if defence == "abnn" else {}
    train_defence(
        request_of(tmp_path / "again", defence, clips=replace(CLIPS, checkpoint_activations=True), **more)
    )  # fmt: skip
    assert (tmp_path / "again" / MODEL_FILE).read_bytes() == (runs[defence].folder / MODEL_FILE).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 3])
def test_micro_batches_change_no_attacked_clip_and_no_gradient(size: int) -> None:
    with seeded(0):
        network = nn.Sequential(nn.Identity(), build_network("hara_resnet18", 2, WIDTH)).double()
    clip = torch.rand(4, 3, 2, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, 1, 1, 0])
    pixels = PixelConfig(eps=0.02, steps=2, step_size=0.01)
    found = []
    for micro_batch in (None, size):
        trained = DefenceLoss(network, pixels, micro_batch).train()
        with seeded(5):
            found.append(trained.attacked(clip, label, pixels))
        assert network.training
    assert not torch.equal(found[0], clip)
    assert torch.equal(found[0], found[1])


def initial(path: Path, classes: ClassMap, **metadata: Any) -> Path:
    """A file with weights to start from."""
    with seeded(7):
        network = build_network("hara_resnet18_b", classes.count, WIDTH)
    save_classifier(path, "hara_resnet18_b", network, classes, WIDTH, **metadata)
    return path


@pytest.mark.parametrize(
    ("classes", "kept", "said"),
    [
        (numbered_classes(400), False, "are of 400 classes; the target's last layer is a fresh one of 8 classes"),
        (numbered_classes(8), True, "its last layer is kept, as of the same classes in the same order"),
        (ClassMap(names=tuple("abcdefgh"), imagenet=False), False, "are of other classes"),
        (DrawnClips("test").classes, True, ""),
    ],
)
def test_a_target_starts_from_given_weights(
    classes: ClassMap, kept: bool, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = load_classifier(None, str(initial(tmp_path / "start.safetensors", classes)), clips=True)
    plan = NetworkPlan(arch=given.name, classes=8, image_size=SIDE, frames=FRAMES, width=WIDTH, denoise=True)
    with seeded(0):
        network = build(plan)
    fresh = {name: value.clone() for name, value in network[1].state_dict().items()}  # type: ignore[index]
    start_from(given, network, plan, DrawnClips("test").classes)
    head = {"fc.weight", "fc.bias"}
    for name, value in network[1].state_dict().items():  # type: ignore[index]
        stays = ".denoise." in name or (name in head and not kept)
        assert torch.equal(value, fresh[name] if stays else given.module[1].state_dict()[name]), name  # type: ignore[index]
    shown = capsys.readouterr().err
    assert said in shown
    assert ("--init" in shown) == bool(said)


@pytest.mark.slow
@pytest.mark.usefixtures("unmeasured")
def test_weights_that_a_run_starts_from_are_part_of_its_settings(tmp_path: Path) -> None:
    file = initial(tmp_path / "start.safetensors", numbered_classes(400))
    train_defence(request_of(tmp_path / "run", "none", init=str(file)))
    checksum = load_classifier(None, str(file), clips=True).checksum
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["init"] == checksum
    train_defence(request_of(tmp_path / "fresh", "none"))
    assert load_checkpoint(tmp_path / "run").recipe != load_checkpoint(tmp_path / "fresh").recipe


@pytest.mark.slow
@pytest.mark.usefixtures("unmeasured")
def test_another_run_in_the_folder_is_refused_before_clips_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_defence(request_of(tmp_path / "run", "none", training={"image_size": 16}))
    monkeypatch.setattr("abnn.request.training_clips", mock.Mock(side_effect=AssertionError("decoded")))
    with pytest.raises(UserError, match=r"holds another run \(plan.image_size: 16 -> 32; training.image_size"):
        train_defence(request_of(tmp_path / "run", "none"))
    with pytest.raises(UserError, match=r"holds another run \(plan.colours: \(absent\) -> none\)"):
        train_defence(request_of(tmp_path / "run", "none", training={"image_size": 16}, colours="none"))
    # The same settings, and others with --overwrite, go on to decode them.
    with pytest.raises(AssertionError, match="decoded"):
        train_defence(request_of(tmp_path / "run", "none", training={"image_size": 16}))
    with pytest.raises(AssertionError, match="decoded"):
        train_defence(request_of(tmp_path / "run", "none"), overwrite=True)
    capsys.readouterr()
    with pytest.raises(UserError, match="resnet18 takes images, not clips"):
        train_defence(request_of(tmp_path / "new", "none", arch="resnet18"))
    # No way to give weights of a network that does not fit.
    assert "--init" not in capsys.readouterr().err


@pytest.mark.slow
def test_another_pretraining_in_the_folder_is_refused_before_clips_are_decoded(
    substitute: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("networks.request.training_clips", mock.Mock(side_effect=AssertionError("decoded")))
    request = pretraining(substitute)
    with pytest.raises(UserError, match=r"holds another run \(frames: 3 -> 4\)"):
        train_classifier(replace(request, clips=ClipOptions(frames=4)))
    with pytest.raises(AssertionError, match="decoded"):
        train_classifier(request)


def test_colours_of_weights_are_kept(tmp_path: Path) -> None:
    file = initial(tmp_path / "start.safetensors", numbered_classes(8), colours="kinetics")
    assert load_classifier(None, str(file), clips=True).colours == "kinetics"


def test_without_a_substitute_the_three_ways_to_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        train_defence(request_of(tmp_path / "run", "abnn"))
    for way in ("--substitute hara_resnet18=FILE", "--substitute r3d_18", "abnn pretrain --task ucf101"):
        assert way in str(refused.value)


@pytest.mark.parametrize(
    ("defence", "changed", "said"),
    [
        ("abnn", {"substitute": "vgg11_bn=seed:0"}, "vgg11_bn takes images, not clips; give --substitute with one of"),
        ("none", {"init": "resnet18=seed:0"}, "resnet18 takes images, not clips; give --init with one of"),
        ("none", {"init": "START", "arch": "r3d_18"}, "is a hara_resnet18_b, not a r3d_18; give the --arch that it is"),
        ("none", {"init": "START", "width": 1 / 16}, r"have width 0\.03125; give --width 0\.03125"),
        ("none", {"arch": "resnet18"}, "resnet18 takes images, not clips; give --arch with one of"),
        ("none", {"width": 1.5}, "width is 1.5"),
        ("none", {"micro_batch": 2}, "--micro-batch changes nothing"),
        ("pgd-at", {"micro_batch": 0}, "micro-batch is 0"),
        ("none", {"substitute_colours": "none"}, "--substitute-normalisation changes nothing"),
        ("none", {"colours": "imagenet"}, "no normalisation 'imagenet'"),
        ("oudefend", {"training": {"image_size": 16}}, "cannot be shown clips of 3 frames of 16 px"),
        ("none", {"training": {"batch_size": 1, "image_size": 16}}, "cannot learn from 1 clip of 3 frames of 16 px"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    defence: str, changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    if changed.get("init") == "START":
        changed = {**changed, "init": str(initial(tmp_path / "start.safetensors", numbered_classes(8)))}
    with pytest.raises(UserError, match=said):
        train_defence(request_of(tmp_path / "out", defence, **changed))
    assert not (tmp_path / "out").exists()


def test_a_clip_has_a_frame_at_least() -> None:
    with pytest.raises(UserError, match="number of frames is 0"):
        ClipOptions(frames=0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"defence": "oudefend"}, "oudefend is one of networks of clips"),
        ({"colours": "none"}, "--normalisation changes nothing with a --task of images"),
        ({"arch": "hara_resnet18"}, "hara_resnet18 takes clips, not images"),
        ({"init": "r3d_18"}, "r3d_18 takes clips, not images"),
    ],
)
def test_images_have_nothing_of_clips(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    from experiments import CIFAR10
    from tests.abnn.trained import fit, small_world

    defence = changed.pop("defence", "none")
    with pytest.raises(UserError, match=said):
        fit(small_world(tmp_path / "data"), tmp_path / "out", defence, **changed)
    assert CIFAR10.media == "image"


@pytest.mark.parametrize("fits", [3, 1])
def test_costs_that_do_not_fit_are_measured_on_fewer_clips(
    fits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = []

    def measured(*_: Any, batch: int, **settings: Any) -> Cost:
        tried.append(batch)
        if batch > fits:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return Cost(
            passes=2.0, flops_step=1, flops_plain_step=1, seconds_step=1, seconds_plain_step=1, batch=batch,
            device="cpu", of=settings["of"], parts={},
        )  # fmt: skip

    monkeypatch.setattr("abnn.request.CPU_BATCH_OF_CLIPS", 8)
    monkeypatch.setattr("abnn.request.measure_cost", measured)
    plan = NetworkPlan(arch="hara_resnet18_b", classes=2, image_size=SIDE, frames=FRAMES, width=WIDTH)
    request = request_of(tmp_path, "none", training={"batch_size": 8})
    _write_cost(request, plan, nn.Identity())
    assert tried == [8, 4, 2]
    cost = read_cost(tmp_path)
    assert (None if cost is None else cost["batch"]) == (2 if fits == 3 else None)
    assert ("too little memory to measure" in capsys.readouterr().err) is (cost is None)
