"""Attacks on networks of clips: limits, micro-batches, cut gradients, and the clips that are kept for a report."""

import copy
import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from abnn.attack_run import AttackRun
from abnn.attacking import AttackRequest, attack_all
from abnn.checkpoint import Checkpoint
from abnn.images import HeldOut, require_unseen
from abnn.kept_clips import KeptClip, kept_positions, read_clips
from abnn.layer import LayerConfig
from abnn.named_attacks import ATTACKS, AttackOptions, Roa, attack_of, require_possible
from abnn.options import HeldOutOptions, PixelOptions, RectangleOptions
from abnn.sanity_run import SanityRequest, run_sanity_checks
from basics.compute import choose_compute
from basics.errors import UserError, WorkError
from downstream.result_store import RESULTS, SAMPLES
from experiments import BENCHMARKS, CIFAR10, UCF101
from networks.video import set_cut_shortcuts
from sources.ucf101 import open_clips
from tests.abnn.clip_runs import FRAMES, SIDE, clip_checkpoint, image_checkpoint
from tests.support import advbn_gen, seeded

N = 5
ON_CLIPS = [name for name in ATTACKS if name != "autoattack"]
SMALL = RectangleOptions(height=5, width=4, stride=8, steps=2)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    root = tmp_path_factory.mktemp("clip-runs")
    return {
        "none": clip_checkpoint(root / "none"),
        "abnn": clip_checkpoint(root / "abnn", defence="abnn", seed=1),
    }


@pytest.fixture(scope="module")
def of_images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    root = tmp_path_factory.mktemp("image-runs")
    return {
        "none": image_checkpoint(root / "plain"),
        "abnn": image_checkpoint(root / "adapted", defence="abnn", seed=1),
    }


def attack(out: Path, *runs: Checkpoint, **changed: Any) -> list[dict[str, Any]]:
    request = AttackRequest(
        checkpoints=[run.folder for run in runs], data=None, out=out, benchmarks=BENCHMARKS,
        **{"attacks": ["clean", "pgd"], "limit": N, "batch_size": 3, **changed},
    )  # fmt: skip
    return attack_all(request)


def samples(out: Path) -> dict[str, list[int]]:
    with h5py.File(out / SAMPLES) as file:
        return {pair: data[()].tolist() for pair, data in file.items()}


def clips(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(N, 3, FRAMES, SIDE, SIDE, dtype=dtype, generator=torch.Generator().manual_seed(0))


def options(surrogate: Checkpoint, **changed: Any) -> AttackOptions:
    pixels = PixelOptions(eps=0.02, steps=2, step_size=0.01)
    return AttackOptions(pixels=pixels, rectangle=SMALL, surrogate=surrogate, **changed)


@pytest.mark.slow
def test_lines_say_on_which_clips(networks: dict[str, Checkpoint], tmp_path: Path) -> None:
    rows = attack(tmp_path, networks["none"], attacks=["clean", "pgd", "roa-random"])
    kept = samples(tmp_path)
    assert {row["attack"] for row in rows} == {"clean", "pgd-5", "roa-random", "worst"}
    for row in rows:
        assert (row["frames"], row["image_size"], row["n"], row["task"]) == (FRAMES, SIDE, N, "ucf101")
        assert row["accuracy"] == np.mean(kept[row["pair"]])
        assert "per_frame" not in row["settings"]
    by_name = {(row["model"], row["attack"]): kept[row["pair"]] for row in rows}
    data = HeldOut(open_clips(None, split="test"), N).for_plan(networks["none"].plan)
    for number, correct in enumerate(by_name["none", "clean"]):
        clip, label = data[0, number]
        assert correct == int(networks["none"].module(clip[None] / 255).argmax() == label)
    pgd = next(row for row in rows if row["attack"] == "pgd-5")["settings"]
    assert pgd == {
        "eps": 1 / 255, "steps": 5, "step_size": 0.25 / 255, "norm": "linf", "random_start": True, "restarts": 1,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_CLIPS)
def test_every_frame_stays_in_its_ball_and_in_range(networks: dict[str, Checkpoint], name: str) -> None:
    clip = clips(torch.float32)
    clip[0], clip[1] = 0, 1
    named, network = attack_of(name, UCF101, options(networks["none"])), networks["abnn"].module
    # Labels that the network gives itself: what is wrong from the start is not attacked.
    with seeded(0):
        found = named(network, clip, network(clip).argmax(1), 0)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    shift = (found - clip).abs().amax(1)
    if "eps" in named.settings():
        assert float(shift.max()) <= 0.02 + 1e-6
    elif name.startswith("roa"):
        inside = (shift > 0).flatten(2).sum(2)
        assert (inside <= 5 * 4).all(), "of a frame more than the rectangle was changed"
        assert (inside > 0).all()
    assert bool((shift != 0).any()) == (name != "clean")


class Watched(nn.Module):
    """A network that notes how many samples it was shown at most."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.most = 0
        for part in network.modules():
            part.register_forward_pre_hook(self._note)

    def _note(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim > 2:
            self.most = max(self.most, len(inputs[0]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_CLIPS)
@pytest.mark.parametrize("medium", ["clips", "images"])
def test_micro_batches_change_no_sample(
    networks: dict[str, Checkpoint], of_images: dict[str, Checkpoint], name: str, medium: str
) -> None:
    chosen, benchmark = (networks, UCF101) if medium == "clips" else (of_images, CIFAR10)
    image = clips() if medium == "clips" else torch.rand(N, 3, 32, 32, dtype=torch.float64)
    network = copied(chosen["abnn"].module)
    label = network(image).argmax(1)
    named = attack_of(name, benchmark, options(replace(chosen["none"], module=copied(chosen["none"].module))))

    def found(micro_batch: int | None) -> Tensor:
        with seeded(7):
            return named(network, image, label, 0, micro_batch)

    whole = found(None)
    watched = [Watched(network), Watched(named.surrogate.module)] if name == "transfer" else [Watched(network)]  # type: ignore[attr-defined]
    parts = found(2)
    assert torch.allclose(parts, whole, rtol=0, atol=1e-12)
    assert max(each.most for each in watched) == (0 if name == "clean" else 2)


def copied(network: nn.Module) -> nn.Module:
    """A copy in double precision that hooks may be added to."""
    # A copy of a traced network forgets that it is in evaluation mode.
    return copy.deepcopy(network).double().eval()


@pytest.mark.slow
def test_what_saves_memory_changes_no_result(networks: dict[str, Checkpoint], tmp_path: Path) -> None:
    def outcome(folder: str, **changed: Any) -> tuple[dict[str, Any], dict[int, KeptClip]]:
        request = {"attacks": ["pgd"], "precision": "fp64", "pixels": PixelOptions(steps=2), **changed}
        (row,) = attack(tmp_path / folder, networks["abnn"], **request)
        return row, read_clips(tmp_path / folder, row)

    whole, clips_whole = outcome("whole")
    parts, clips_parts = outcome("parts", micro_batch=1, clips=HeldOutOptions(checkpoint_activations=True))
    assert parts["pair"] == whole["pair"]
    assert samples(tmp_path / "parts") == samples(tmp_path / "whole")
    assert clips_parts.keys() == clips_whole.keys() == kept_positions(N)
    for position, clip in clips_parts.items():
        assert np.array_equal(clip.attacked_3THW, clips_whole[position].attacked_3THW)


def test_what_depends_on_the_batch_is_not_split(networks: dict[str, Checkpoint]) -> None:
    batch = replace(
        networks["abnn"], plan=replace(networks["abnn"].plan, layer=LayerConfig(statistics="batch"))
    )  # fmt: skip
    pgd, compute = attack_of("pgd", UCF101, AttackOptions()), choose_compute("cpu", "fp32")
    require_possible(pgd, batch, compute)
    require_possible(pgd, networks["abnn"], compute, 1)
    with pytest.raises(UserError, match=r"depend on the whole batch .* leave --micro-batch out"):
        require_possible(pgd, batch, compute, 1)


def test_the_rectangle_of_full_size_clips_is_the_paper_s() -> None:
    roa = attack_of("roa-random", UCF101, AttackOptions())
    assert isinstance(roa, Roa)
    assert roa.config.size_in(112, 112) == (35, 35)
    assert (roa.config.steps, roa.config.step_size, roa.config.colour) == (5, 70 / 255, 0.5)


def test_names_and_settings_of_rectangles() -> None:
    def made(name: str, *, fixed: bool) -> tuple[str, object]:
        rectangle = RectangleOptions(per_frame=False if fixed else None)
        roa = attack_of(name, UCF101, AttackOptions(rectangle=rectangle))
        return roa.name, roa.settings().get("per_frame")

    assert made("roa", fixed=False) == ("roa", None)
    assert made("roa", fixed=True) == ("roa", None)
    assert made("roa-random", fixed=False) == ("roa-random", None)
    assert made("roa-random", fixed=True) == ("roa-random-fixed", False)
    assert made("roa-gradient", fixed=True) == ("roa-gradient-fixed", False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"attacks": ["autoattack"]}, "takes images, and ucf101 has clips; give pgd-50 and adaptive"),
        ({"attacks": ["roa"], "rectangle": RectangleOptions(height=17, width=2)}, "17 x 2 pixels is larger"),
        ({"attacks": ["clean"], "cut_shortcut": True}, "--cut-shortcut changes nothing with --attack clean"),
        ({"attacks": ["pgd"], "cut_shortcut": True}, "none has no shortcut without weights"),
        ({"rectangle": RectangleOptions(per_frame=False)}, "--fixed-rectangle changes nothing"),
        (
            {"attacks": ["roa-random"], "rectangle": RectangleOptions(stride=2)},
            "--stride changes nothing with --attack roa-random",
        ),
        ({"micro_batch": 0}, "micro-batch is 0"),
    ],
)
def test_impossible_requests_are_refused(
    networks: dict[str, Checkpoint], tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        attack(tmp_path / "out", networks["none"], **changed)
    assert not (tmp_path / "out").exists()


def test_test_clips_of_another_split_were_trained_on(networks: dict[str, Checkpoint], tmp_path: Path) -> None:
    clips, lists = tmp_path / "UCF-101", tmp_path / "ucfTrainTestlist"
    names = [f"Archery/v_Archery_g0{group}_c01.avi" for group in (1, 2)]
    (clips / "Archery").mkdir(parents=True)
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Archery\n")
    for name in names:
        (clips / name).write_bytes(b"")
    for number, (train, test) in enumerate((names, names[::-1]), 1):
        (lists / f"trainlist0{number}.txt").write_text(f"{train} 1\n")
        (lists / f"testlist0{number}.txt").write_text(f"{test}\n")
    first, second = HeldOutOptions(), HeldOutOptions(split_number=2)
    trained = replace(networks["none"], records=open_clips(str(clips), split="train", number=2).digest())
    require_unseen([trained], str(clips), second)
    require_unseen([networks["none"]], str(clips), first)
    with pytest.raises(UserError, match=r"none was trained on split 2 of .*UCF-101, .*; give --split-number 2\.$"):
        require_unseen([networks["none"], trained], str(clips), first)


@pytest.mark.slow
def test_images_and_clips_are_not_mixed(
    networks: dict[str, Checkpoint], of_images: dict[str, Checkpoint], tmp_path: Path
) -> None:
    plain, clips_only = of_images["none"], HeldOutOptions(split_number=2)
    cases: list[tuple[list[Checkpoint], dict[str, Any], str]] = [
        ([plain, networks["abnn"]], {}, "The network plain takes images and abnn takes clips"),
        ([networks["abnn"]], {"surrogate": plain.folder, "attacks": ["transfer"]}, "plain takes images"),
        ([plain], {}, "plain takes images; give --data"),
        ([plain], {"data": "somewhere", "clips": clips_only}, "--split-number changes nothing with plain"),
    ]
    for checkpoints, changed, message in cases:
        request = {"benchmarks": BENCHMARKS, "attacks": ["pgd"], "data": None, "out": tmp_path / "out", **changed}
        with pytest.raises(UserError, match=message):
            attack_all(AttackRequest(checkpoints=[each.folder for each in checkpoints], **request))
    fixed = AttackOptions(rectangle=RectangleOptions(per_frame=False))
    with pytest.raises(UserError, match="--fixed-rectangle is for clips, and cifar10 has images"):
        attack_of("roa-random", CIFAR10, fixed)


@pytest.mark.slow
def test_a_surrogate_of_other_clips_is_refused(networks: dict[str, Checkpoint], tmp_path: Path) -> None:
    other = clip_checkpoint(tmp_path / "other", frames=2 * FRAMES)
    with pytest.raises(UserError, match="other has clips of another size than abnn"):
        attack(tmp_path / "out", networks["abnn"], attacks=["transfer"], surrogate=other.folder)


@pytest.mark.slow
def test_cut_gradients_have_their_own_lines(networks: dict[str, Checkpoint], tmp_path: Path) -> None:
    run = networks["abnn"]
    repaired = attack(tmp_path, run)
    rows = attack(tmp_path, run, cut_shortcut=True)
    assert [row["attack"] for row in rows] == ["clean", "pgd-5 (cut shortcut)", "worst"]
    assert rows[1]["settings"] == {**repaired[1]["settings"], "cut_shortcut": True}
    assert rows[1]["pair"] != repaired[1]["pair"]
    # It is no attack of its own: the worst case is over the others.
    assert rows[-1]["settings"]["over"] == ["clean", "pgd-5"]
    assert rows[0]["pair"] == repaired[0]["pair"]


def test_cutting_changes_gradients_and_no_prediction(networks: dict[str, Checkpoint]) -> None:
    network = copied(networks["abnn"].module)
    assert set_cut_shortcuts(network, cut=False) == 3

    def outcome(*, cut: bool) -> tuple[Tensor, Tensor]:
        set_cut_shortcuts(network, cut=cut)
        leaf = clips().requires_grad_()
        logits = network(leaf)
        return logits.detach(), torch.autograd.grad(logits.square().sum(), leaf)[0]

    (logits, gradient), (logits_cut, gradient_cut) = outcome(cut=False), outcome(cut=True)
    assert torch.equal(logits, logits_cut)
    assert not torch.allclose(gradient, gradient_cut)


@pytest.mark.slow
def test_a_few_clips_are_kept_for_the_report(networks: dict[str, Checkpoint], tmp_path: Path) -> None:
    run = networks["abnn"]
    attacked: dict[str, list[Tensor]] = {}
    real = AttackRun._require_valid

    def watched(self: AttackRun, image: Tensor, moved: Tensor, logits: Tensor) -> None:
        attacked.setdefault(self.name, []).append(moved)
        real(self, image, moved, logits)

    with mock.patch.object(AttackRun, "_require_valid", watched):
        rows = {
            row["attack"]: row
            for row in attack(
                tmp_path, run, attacks=["clean", "pgd", "roa", "pgd-50"], rectangle=SMALL, pixels=PixelOptions(steps=2)
            )
        }
    data = HeldOut(open_clips(None, split="test"), N).for_plan(run.plan)
    assert read_clips(tmp_path, rows["clean"]) == read_clips(tmp_path, rows["pgd-2x5"]) == {}
    for name in ("pgd-2", "roa"):
        kept = read_clips(tmp_path, rows[name])
        assert set(kept) == kept_positions(N) == {0, 1, 2, 3}
        moved = torch.cat(attacked[name])
        for position, clip in kept.items():
            pixels, label = data[0, position]
            assert np.array_equal(clip.clean_3THW, pixels.numpy())
            assert np.array_equal(clip.attacked_3THW, (255 * moved[position]).round().to(torch.uint8).numpy())
            assert clip.label == run.classes[label]
            assert clip.clean_prediction == run.classes[int(run.module(pixels[None] / 255).argmax())]
            assert clip.prediction == run.classes[int(run.module(moved[position][None]).argmax())]


@pytest.mark.slow
def test_an_interrupted_attack_keeps_the_same_clips(networks: dict[str, Checkpoint], tmp_path: Path) -> None:
    request: dict[str, Any] = {"attacks": ["pgd"], "batch_size": 2, "pixels": PixelOptions(steps=1)}
    whole = attack(tmp_path / "whole", networks["none"], **request)
    real = AttackRun.attack_batch

    def interrupted(self: AttackRun, image: Tensor, label: Tensor, number: int) -> Any:
        if number == 2:
            raise KeyboardInterrupt
        return real(self, image, label, number)

    with mock.patch.object(AttackRun, "attack_batch", interrupted), pytest.raises(KeyboardInterrupt):
        attack(tmp_path / "parts", networks["none"], **request)
    (row,) = attack(tmp_path / "parts", networks["none"], **request)
    before, after = read_clips(tmp_path / "whole", whole[0]), read_clips(tmp_path / "parts", row)
    assert set(before) == set(after) == kept_positions(N)
    for position, clip in before.items():
        assert np.array_equal(clip.attacked_3THW, after[position].attacked_3THW)


@pytest.mark.slow
def test_sanity_checks_run_on_clips_in_any_parts(networks: dict[str, Checkpoint]) -> None:
    def outcome(micro_batch: int | None) -> Any:
        request = SanityRequest(
            checkpoint=networks["abnn"].folder, data=None, benchmarks=BENCHMARKS, surrogate=networks["none"].folder,
            limit=3, micro_batch=micro_batch, precision="fp64",
        )  # fmt: skip
        return run_sanity_checks(request)

    fewer = {
        "sanity.STEPS": (1, 2), "sanity.STRONG_STEPS": 2, "sanity_run.STRONG_STEPS": 2, "sanity.RADII": (1.0, 2.0),
        "sanity.SURFACE_POSITIONS": 3, "sanity.NOISE_DRAWS": 2,
    }  # fmt: skip
    with ExitStack() as stack:
        for name, value in fewer.items():
            stack.enter_context(mock.patch(f"abnn.{name}", value))
        (checks, surface), (by_parts, same_surface) = outcome(None), outcome(2)
    assert len(checks) == 8
    assert "of 3 clips" in next(each.numbers for each in checks if each.name == "gradients exist")
    assert surface.loss_KPP.shape == (3, 3, 3)
    assert by_parts == checks
    assert np.allclose(surface.loss_KPP, same_surface.loss_KPP)


@pytest.mark.slow
def test_the_command_attacks_drawn_clips(networks: dict[str, Checkpoint], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = advbn_gen(
        "abnn", "attack", "--checkpoint", networks["abnn"].folder, "--attack", "clean", "pgd", "roa-random",
        "--limit", N, "--micro-batch", 2, "--fixed-rectangle", "--rectangle-step-size", "51/255", "--cut-shortcut",
        "--rectangle-steps", 2, "--out", out,
        "--cache", tmp_path / "clips.h5",
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in (out / RESULTS).read_text().splitlines()]
    assert {row["attack"] for row in rows} == {"clean", "pgd-5 (cut shortcut)", "roa-random-fixed (cut shortcut)"}
    (rectangle,) = (row["settings"] for row in rows if row["attack"].startswith("roa"))
    assert (rectangle["step_size"], rectangle["steps"], rectangle["per_frame"]) == (0.2, 2, False)
    assert (tmp_path / "clips.h5").exists()


def test_too_little_memory_is_said_and_what_was_attacked_is_kept(
    networks: dict[str, Checkpoint], tmp_path: Path
) -> None:
    real = AttackRun.attack_batch

    def full(self: AttackRun, image: Tensor, label: Tensor, number: int) -> Any:
        if number == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return real(self, image, label, number)

    said = r"too little memory \(CUDA out of memory\); --micro-batch 1, or a smaller --batch-size"
    with mock.patch.object(AttackRun, "attack_batch", full), pytest.raises(WorkError, match=said):
        attack(tmp_path, networks["none"], attacks=["clean"])
    (kept,) = samples(tmp_path).values()
    assert [value == -1 for value in kept] == [False] * 3 + [True] * 2
