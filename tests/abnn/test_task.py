"""Training steps against plain loops, and what a run leaves and refuses."""

import copy
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from abnn.checkpoint import COST_FILE, Checkpoint, load_checkpoint
from abnn.network import ABNN
from abnn.task import DefenceLoss
from attacks.pixels import PixelConfig
from basics.errors import UserError
from networks.checkpoints import read_safetensors, read_weights, write_safetensors
from networks.weight_files import MODEL_FILE
from tests.abnn.trained import CLASSES, fit, small_world, trained
from tests.support import seeded, tiny_classifier


def small_network() -> nn.Module:
    with seeded(0):
        layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 5)
        return nn.Sequential(*layers).double()


IMAGE = torch.rand(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LABEL = torch.tensor([0, 3, 4, 1])


def test_a_step_of_adversarial_training_is_madry_s() -> None:
    """Attack in evaluation mode, learn from what it made in training mode."""
    network, config = small_network(), PixelConfig(eps=0.05, steps=3, step_size=0.02, random_start=False)
    plain = copy.deepcopy(network).eval()
    moved = IMAGE.clone()
    for _ in range(3):
        leaf = moved.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(plain(leaf), LABEL), leaf)
        moved = (moved + 0.02 * gradient.sign()).clamp(IMAGE - 0.05, IMAGE + 0.05).clamp(0, 1)
    plain.train()
    expected = F.cross_entropy(plain(moved), LABEL)
    expected.backward()  # type: ignore[no-untyped-call]

    found = DefenceLoss(network, config).train()(IMAGE, LABEL)["loss"]
    found.backward()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), abs=1e-12)
    for ours, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-12)
    # The attack moves no statistics: one forward pass in training mode does.
    assert torch.allclose(network[1].running_mean, plain[1].running_mean)  # type: ignore[index]
    assert network.training


def test_runs_leave_what_they_say(runs: dict[str, Checkpoint]) -> None:
    for name, run in runs.items():
        assert {path.name for path in run.folder.iterdir()} == {
            MODEL_FILE, COST_FILE, "checkpoint.pt", "metrics.jsonl", "settings.json",
        }  # fmt: skip
        assert (run.defence, run.classes, run.resized, run.task) == (name, CLASSES, False, "cifar10")
        assert run.plan.image_size == 32
        ends = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        assert 0 <= ends[-1]["held_out_top1"] <= 1
        assert not any(weight.requires_grad for weight in run.module.parameters())
        assert not run.module.training


def test_the_file_of_abnn_holds_the_substitute_as_it_was_given(runs: dict[str, Checkpoint], world: Path) -> None:
    network = runs["abnn"].module
    assert isinstance(network, ABNN)
    given = read_weights(world / "substitute.safetensors")
    inside = network.substitute.state_dict()
    assert len(inside) > 20
    for name, value in inside.items():
        assert torch.equal(value, given[name])
    # And it was trained: the fresh biases have moved.
    bias = network.layers[0].encode.bias  # type: ignore[union-attr]
    assert not torch.equal(bias, bias.round())  # type: ignore[operator, arg-type]


@pytest.mark.slow
def test_a_reloaded_network_answers_as_the_one_that_was_written(runs: dict[str, Checkpoint]) -> None:
    image = torch.rand(3, 3, 32, 32)
    for run in runs.values():
        again = load_checkpoint(run.folder)
        assert torch.equal(again.module(image), run.module(image))
        assert again.checksum == run.checksum


@pytest.mark.slow
def test_a_run_goes_on_to_the_same_bits(world: Path, tmp_path: Path, runs: dict[str, Checkpoint]) -> None:
    words = {"substitute": str(world / "substitute.safetensors")}
    whole = fit(world, tmp_path / "whole", "abnn", **words, training={"epochs": 2, "schedule": "constant"})
    parts = fit(world, tmp_path / "parts", "abnn", **words, training={"epochs": 1, "schedule": "constant"})
    fit(world, parts, "abnn", **words, training={"epochs": 2, "schedule": "constant"})
    assert (whole / MODEL_FILE).read_bytes() == (parts / MODEL_FILE).read_bytes()
    assert runs["abnn"].checksum != load_checkpoint(whole).checksum


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"defence": "magic"}, "no defence 'magic'"),
        ({"defence": "none", "substitute": "vgg11_bn"}, "--substitute changes nothing"),
        ({"defence": "none", "attack": {"eps": 0.1}}, "--eps changes nothing"),
        ({"defence": "pgd-at", "attack": {"eps": 1.5}}, r"lies in \[0, 1\]"),
        ({"defence": "pgd-at", "attack": {"step_size": 0.0}}, "step size is 0"),
        ({"defence": "abnn", "blocks": ("layer1",)}, "1 blocks and the substitute"),
        ({"defence": "none", "training": {"image_size": 0}}, "image size is 0"),
        ({"defence": "none", "arch": "resnet19"}, "no classifier 'resnet19'"),
        ({"defence": "none", "width": 3.0}, "width is 3"),
        ({"defence": "none", "limit": 0}, "limit is 0"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(
    world: Path, tmp_path: Path, words: dict[str, object], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        fit(world, tmp_path / "out", **words)  # type: ignore[arg-type]
    assert not (tmp_path / "out" / MODEL_FILE).exists()


@pytest.mark.slow
def test_images_of_another_size_are_resized_only_if_asked(tmp_path: Path) -> None:
    from PIL import Image

    data = small_world(tmp_path / "data")
    for path in data.rglob("*.png"):
        with Image.open(path) as image:
            image.resize((40, 40)).save(path)
    with pytest.raises(UserError, match=r"are not 32x32 .* is 40x40"):
        fit(data, tmp_path / "out", "none")
    run = load_checkpoint(fit(data, tmp_path / "out", "none", training={"image_size": 32}))
    assert run.resized


def test_other_people_s_files_are_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"has no {MODEL_FILE}"):
        load_checkpoint(tmp_path)
    tiny_classifier(tmp_path / MODEL_FILE, 3)
    with pytest.raises(UserError, match="holds no network"):
        load_checkpoint(tmp_path)


@pytest.mark.slow
def test_a_recipe_is_all_that_was_set_but_the_seed(world: Path, runs: dict[str, Checkpoint], tmp_path: Path) -> None:
    def recipe(defence: str, name: str, **words: object) -> str:
        return trained(world, tmp_path / name, defence, **words).recipe

    assert recipe("none", "again", training={"seed": 5, "loaders": 1}) == runs["none"].recipe
    assert recipe("none", "lr", training={"lr": 0.01}) != runs["none"].recipe
    assert recipe("pgd-at", "eps", attack={"eps": 1 / 255}) != runs["pgd-at"].recipe
    other = tiny_classifier(tmp_path / "other.safetensors", 4, "vgg11_bn")
    assert recipe("abnn", "substitute", substitute=str(other)) != runs["abnn"].recipe


@pytest.mark.parametrize("changed", [{"task": [1]}, {"seed": "x"}, {"plan": {"arch": "resnet18", "width": "x"}}])
def test_a_forged_file_is_one_plain_sentence(
    runs: dict[str, Checkpoint], tmp_path: Path, changed: dict[str, object]
) -> None:
    state, metadata = read_safetensors(runs["none"].folder / MODEL_FILE)
    settings = {name: json.loads(value) for name, value in metadata.items()}
    if "plan" in changed:
        changed = {"plan": {**settings["plan"], **changed["plan"]}}  # type: ignore[dict-item]
    write_safetensors(tmp_path / MODEL_FILE, state, {**settings, **changed})
    with pytest.raises(UserError, match="holds no network"):
        load_checkpoint(tmp_path)
