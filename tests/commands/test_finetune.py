"""`finetune` through the command line."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torchvision.models import densenet121, googlenet, resnet18, squeezenet1_1

from networks.classifiers import build_network, load_classifier, save_classifier
from networks.specs import load_model
from sources.base import numbered_classes
from sources.decode import View
from tests.processes import finish, start, wait_until
from tests.support import (
    Outcome,
    advbn_gen,
    image_folder,
    refused,
    seeded,
    tiny_autoencoder,
    with_lived_in_batch_norm,
)

pytestmark = pytest.mark.slow

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("images") / "source", per_class=7, classes=NAMES)


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("init") / "start.safetensors"
    with seeded(3):
        network = with_lived_in_batch_norm(build_network("resnet18", 3, 1 / 16))
    save_classifier(path, "resnet18", network, numbered_classes(3), 1 / 16)
    return path


def words(source: Path, init: object, out: Path, *more: object, **changed: object) -> list[object]:
    options: dict[str, object] = {
        "arch": "resnet18", "source": source, "init": init, "image-size": 32, "batch-size": 5, "epochs": 3,
        "steps": 2, "lr": 0.01, "device": "cpu", "out": out,
    }  # fmt: skip
    if "advbn" not in str(changed.get("method", "advbn")):
        del options["steps"]  # it would change nothing
    options |= {name.replace("_", "-"): value for name, value in changed.items()}
    return ["finetune", *(word for name, value in options.items() for word in (f"--{name}", value)), *more]


def tune(source: Path, init: object, out: Path, *more: object, **changed: object) -> Outcome:
    done = advbn_gen(*words(source, init, out, *more, **changed))
    assert done.code == 0, done.err
    return done


def files(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in ("main.safetensors", "auxiliary.safetensors")}


@pytest.fixture(scope="module")
def tuned(source: Path, init: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "run"
    tune(source, init, out)
    return out


@pytest.fixture(scope="module")
def one_epoch(source: Path, init: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch; tests must not change it."""
    out = tmp_path_factory.mktemp("one-epoch") / "run"
    tune(source, init, out, epochs=1)
    return out


def test_it_leaves_two_plain_state_dicts(tuned: Path, init: Path) -> None:
    start = load_file(init)
    main, auxiliary = (load_file(tuned / name) for name in ("main.safetensors", "auxiliary.safetensors"))
    assert main.keys() == auxiliary.keys() == start.keys()
    front = ("conv1", "bn1", "layer1")
    for name in start:
        norm = ".bn" in name or "downsample.1" in name or name.startswith("bn")
        if name.startswith(front):
            assert torch.equal(main[name], start[name]), f"the frozen front has moved: {name}"
        elif not name.endswith("num_batches_tracked"):
            assert not torch.equal(main[name], start[name]), f"the head has not moved: {name}"
        if not norm:
            assert torch.equal(main[name], auxiliary[name])
    assert not torch.equal(main["layer4.1.bn2.running_mean"], auxiliary["layer4.1.bn2.running_mean"])


def test_metrics_tell_both_terms_and_both_sets(tuned: Path) -> None:
    lines = [json.loads(line) for line in (tuned / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [4, 8, 12]
    for line in steps:
        assert line["loss"] == pytest.approx(line["clean_loss"] + line["adversarial_loss"], rel=1e-5)
    assert all({"held_out_top1_main", "held_out_top1_auxiliary"} <= line.keys() for line in lines if line not in steps)


def test_an_interrupted_run_ends_with_the_same_bytes(source: Path, init: Path, tuned: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(*words(source, init, out))
    assert wait_until((out / "checkpoint.pt").exists, process)
    os.kill(process.pid, signal.SIGKILL)
    finish(process)
    done = torch.load(out / "checkpoint.pt", weights_only=False)["done"]
    assert 4 <= done < 12, "the run was over before it was killed"
    tune(source, init, out)
    facts = {name: load_file(out / name) for name in files(out)}
    expected = {name: load_file(tuned / name) for name in files(tuned)}
    for name, state in facts.items():
        assert all(torch.equal(state[key], expected[name][key]) for key in state)


def test_a_run_that_goes_on_mixes_and_perturbs_as_one_that_never_stopped(
    source: Path, init: Path, tmp_path: Path
) -> None:
    """Random starts, mixed batches and policies are functions of seed and step."""
    more: dict[str, object] = {"method": "advprop+advbn", "pixel_steps": 1, "augment": "cutmix", "limit": 10}
    tune(source, init, tmp_path / "twice", epochs=1, **more)
    tune(source, init, tmp_path / "twice", epochs=2, **more)
    tune(source, init, tmp_path / "once", epochs=2, **more)
    found, expected = (load_file(tmp_path / name / "auxiliary.safetensors") for name in ("twice", "once"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_run_folder_can_be_scored(tuned: Path, source: Path, tmp_path: Path) -> None:
    done = advbn_gen(
        "score", "--model", tuned, f"resnet18={tuned / 'auxiliary.safetensors'}", "--data", f"val={source}",
        "--out", tmp_path / "scores", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert [row["transform"] for row in done.result["results"]] == ["resize 37 bilinear, crop 32"] * 2


def test_plain_fine_tuning_leaves_auxiliary_batch_norm_alone(source: Path, init: Path, tmp_path: Path) -> None:
    tune(source, init, tmp_path / "run", method="plain", epochs=1)
    start, auxiliary = load_file(init), load_file(tmp_path / "run/auxiliary.safetensors")
    name = "layer4.1.bn2.running_mean"
    assert torch.equal(auxiliary[name], start[name])
    assert not torch.equal(load_file(tmp_path / "run/main.safetensors")[name], start[name])


def test_an_exported_full_size_network_loads_in_plain_torchvision(source: Path, tmp_path: Path) -> None:
    with seeded(0):
        torch.save(with_lived_in_batch_norm(resnet18(num_classes=3)).state_dict(), tmp_path / "start.pth")
    tune(source, f"resnet18={tmp_path / 'start.pth'}", tmp_path / "run", epochs=1, steps=1, limit=8)
    theirs = resnet18(num_classes=3)
    theirs.load_state_dict(load_file(tmp_path / "run/main.safetensors"))
    ours = load_classifier("resnet18", str(tmp_path / "run/main.safetensors"), 3)
    image = torch.rand(2, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = theirs.eval()((image - mean[:, None, None]) / std[:, None, None])
        assert torch.allclose(ours.module(image), expected, rtol=1e-4, atol=1e-5)


def test_densenets_left_out_norm_passes_features_in_plain_torchvision(source: Path, tmp_path: Path) -> None:
    """The exported network has to give the answers that the trained one gave while it was scored."""
    with seeded(0):
        torch.save(with_lived_in_batch_norm(densenet121(num_classes=3)).state_dict(), tmp_path / "start.pth")
    init = f"densenet121={tmp_path / 'start.pth'}"
    tune(source, init, tmp_path / "run", epochs=1, steps=1, arch="densenet121", limit=8)
    state = load_file(tmp_path / "run/main.safetensors")
    theirs = densenet121(num_classes=3)
    theirs.load_state_dict(state)
    norm = theirs.eval().features.denseblock2.denselayer1.norm1
    feat = torch.randn(2, 128, 4, 4)
    assert torch.allclose(norm(feat), feat, atol=1e-5)


@pytest.mark.parametrize("method", ["advbn", "plain", "pgd-at", "advprop+advbn"])
def test_two_processes_share_a_batch(source: Path, init: Path, tmp_path: Path, method: str) -> None:
    out = tmp_path / "run"
    command = words(source, init, out, "--json", devices=2, batch_size=6, epochs=2, method=method)
    code, stdout, stderr = finish(start(*command))
    assert code == 0, stderr
    assert len(stdout.splitlines()) == 1, stdout
    assert all(torch.isfinite(value.float()).all() for value in load_file(out / "main.safetensors").values())
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [3, 6]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cut": "layer9"}, "no module 'layer9' to cut at; give one of conv1"),
        ({"method": "magic"}, "no method 'magic'; give one of advbn, plain"),
        ({"augment": "magic"}, "no augmentation 'magic'; give one of autoaugment"),
        ({"augment": "moex", "method": "advprop"}, "(moex) cannot be combined with advprop"),
        ({"statistics": "global"}, "give local or synchronised"),
        ({"pixel_eps": "a/b"}, "'a/b' is no number; give one such as 4/255"),
        ({"pixel_eps": -1, "method": "advprop"}, "pixels' eps is -1"),
        ({"smallest_crop": 0}, "smallest crop is 0 of an image"),
        ({"mix_share": 0.2}, "--mix-share changes nothing without --mix"),
        ({"labels": "f"}, "--labels changes nothing without --val"),
        ({"pixel_steps": 2}, "--pixel-steps changes nothing with advbn"),
        ({"method": "plain", "steps": 2}, "--steps changes nothing with plain"),
        ({"weight_decay": -1}, "weight decay is -1"),
        ({"schedule": "zigzag"}, "no schedule 'zigzag'; give one of constant, cosine, step"),
        ({"batch_size": 1}, "needs two to learn from"),
        ({"arch": "resnet34"}, "is a resnet18, not a resnet34"),
        ({"eps": -1}, "eps is -1"),
        ({"limit": 3}, "fewer than one batch of 5"),
        ({"width": 0.5}, "have width 0.0625, not 0.5"),
    ],
)
def test_bad_input_is_refused(source: Path, init: Path, tmp_path: Path, changed: dict[str, object], said: str) -> None:
    assert said in refused(*words(source, init, tmp_path / "out", **changed))
    assert not (tmp_path / "out").exists()


def test_other_classes_are_refused(init: Path, tmp_path: Path) -> None:
    other = image_folder(tmp_path / "other", classes=("a", "b"))
    assert "The resnet18 to start from has 3 classes, but" in refused(*words(other, init, tmp_path / "out"))


def test_held_out_images_of_other_classes_are_refused(source: Path, init: Path, tmp_path: Path) -> None:
    """As many classes, but not the same: every label would mean another one."""
    other = image_folder(tmp_path / "other", classes=("a", "b", "d"))
    assert "have other classes" in refused(*words(source, init, tmp_path / "out", val=other))


def test_other_held_out_images_are_another_run(source: Path, init: Path, tmp_path: Path) -> None:
    tune(source, init, tmp_path / "run", epochs=1, val=source)
    fewer = image_folder(tmp_path / "fewer", per_class=7, classes=NAMES)
    first = next((fewer / "a").iterdir())
    first.rename(first.with_name("zz.png"))
    assert "held_out" in refused(*words(source, init, tmp_path / "run", epochs=2, val=fewer))


def test_a_tuned_network_is_shown_images_as_the_one_it_started_from(source: Path, init: Path, tmp_path: Path) -> None:
    """Published networks are resized to 256 and cropped to 224, whoever trained them further."""
    with seeded(0):
        torch.save(with_lived_in_batch_norm(resnet18(num_classes=3)).state_dict(), tmp_path / "start.pth")
    spec = f"resnet18={tmp_path / 'start.pth'}"
    tune(source, spec, tmp_path / "run", epochs=1, steps=1, image_size=224, limit=3, batch_size=2)
    assert load_model(str(tmp_path / "run")).view == load_model(spec).view == View(crop=224, resize=256)
    tune(source, spec, tmp_path / "small", epochs=1, steps=1, image_size=112, limit=3, batch_size=2)
    assert load_model(str(tmp_path / "small")).view == View(crop=112, resize=128)
    tune(source, init, tmp_path / "own", epochs=1, steps=1, limit=8)
    assert load_model(str(tmp_path / "own")).view == View(crop=32, resize=37)


def test_held_out_images_may_lie_flat(source: Path, init: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    lines = []
    for number, path in enumerate(sorted(each for each in source.rglob("*") if each.is_file())):
        name = f"ILSVRC2012_val_{number + 1:08d}{path.suffix}"
        shutil.copy(path, flat / name)
        lines.append(f"{name} {number % 3}")
    (tmp_path / "labels.txt").write_text("\n".join(lines) + "\n")
    # ILSVRC2012's labels number 1,000 classes, and these networks have three.
    words_ = words(source, init, tmp_path / "run", val=flat, labels=tmp_path / "labels.txt")
    assert "flat has 1000" in refused(*words_)


def test_a_removed_file_is_written_again(source: Path, init: Path, one_epoch: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(one_epoch, tmp_path / "run"))
    before = files(out)
    (out / "auxiliary.safetensors").unlink()
    (out / "metrics.jsonl").unlink()
    done = tune(source, init, out, "--json", epochs=1)
    assert files(out) == before
    assert done.result["curves"] is None


def test_a_folder_with_two_networks_means_neither(source: Path, init: Path, one_epoch: Path, tmp_path: Path) -> None:
    shutil.copytree(one_epoch, tmp_path / "run")
    shutil.copy(init, tmp_path / "run/classifier.safetensors")
    said = refused("score", "--model", tmp_path / "run", "--data", f"v={source}", "--out", tmp_path / "scores")
    assert "holds classifier.safetensors and main.safetensors" in said


def test_efficientnet_is_tuned_with_autoaugment_by_default(source: Path, tmp_path: Path) -> None:
    with seeded(0):
        network = build_network("efficientnet_b0", 3)
    save_classifier(tmp_path / "start.safetensors", "efficientnet_b0", network, numbered_classes(3), 1.0, image_size=32)
    settings = {}
    for name, more in {"published": [], "none": ["--augment", "none"]}.items():
        command = words(source, tmp_path / "start.safetensors", tmp_path / name, *more, arch="efficientnet_b0")
        place = command.index("--steps")
        done = advbn_gen(*command[:place], *command[place + 2 :], "--limit", 8, "--epochs", 1)
        assert done.code == 0, done.err
        settings[name] = json.loads((tmp_path / name / "settings.json").read_text())
    assert settings["published"]["augment"] == ["autoaugment"]
    assert settings["none"]["augment"] == []
    assert settings["published"]["attack"] == {"eps": 0.5, "steps": 3, "step_size": 0.2}


def test_a_network_without_batch_norm_is_refused(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "squeezenet.pth"
    torch.save(squeezenet1_1(num_classes=3).state_dict(), path)
    init = f"squeezenet1_1={path}"
    said = refused(*words(source, init, tmp_path / "out", arch="squeezenet1_1", cut="features.2"))
    assert "no batch norm behind the cut" in said


def test_a_resume_with_other_settings_is_refused(source: Path, init: Path, tuned: Path) -> None:
    before = files(tuned)
    assert "attack.steps: 2 -> 3" in refused(*words(source, init, tuned, steps=3))
    assert files(tuned) == before


@pytest.mark.parametrize("method", ["advprop", "pgd-at", "advprop+advbn", "pgd-at+advbn"])
def test_methods_on_pixels_train_and_tell_their_terms(source: Path, init: Path, tmp_path: Path, method: str) -> None:
    out = tmp_path / "run"
    tune(source, init, out, method=method, epochs=1, pixel_steps=1, pixel_eps="2/255")
    (line,) = (json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines() if "loss" in line)
    terms = [value for name, value in line.items() if name.endswith("_loss")]
    assert line["loss"] == pytest.approx(sum(terms), rel=1e-5)
    settings = json.loads((out / "settings.json").read_text())
    assert settings["pixels"]["eps"] == 2 / 255
    assert (settings["attack"] is None) == ("advbn" not in method)


@pytest.mark.parametrize(
    "augment", [["autoaugment"], ["augmix", "cutmix"], ["fast-autoaugment", "mixup"], ["moex", "cutmix"]]
)
def test_augmentations_combine_with_advbn_and_repeat(
    source: Path, init: Path, one_epoch: Path, tmp_path: Path, augment: list[str]
) -> None:
    runs = [tmp_path / name for name in ("one", "other")]
    for out in runs:
        tune(source, init, out, "--augment", *augment, epochs=1)
    assert files(runs[0]) == files(runs[1])
    assert json.loads((runs[0] / "settings.json").read_text())["augment"] == augment
    name = "layer4.1.bn2.running_mean"
    plain, augmented = (load_file(run / "main.safetensors") for run in (one_epoch, runs[0]))
    assert not torch.equal(plain[name], augmented[name])


def test_the_best_weights_are_kept_beside_the_last(tuned: Path, source: Path) -> None:
    lines = [json.loads(line) for line in (tuned / "metrics.jsonl").read_text().splitlines()]
    scores = [line["held_out_top1_main"] for line in lines if "held_out_top1_main" in line]
    best = max(epoch for epoch, score in enumerate(scores, start=1) if score == max(scores))
    for name in ("main.safetensors", "auxiliary.safetensors"):
        with safe_open(tuned / "best" / name, framework="pt") as file:
            settings = json.loads(file.metadata()["facts"])
        assert (settings["epochs_done"], settings["held_out_top1_main"]) == (best, max(scores))
    done = advbn_gen("score", "--model", tuned / "best", "--data", f"val={source}", "--out", tuned / "scores", "--json")
    assert done.code == 0, done.err


def test_curves_are_drawn(tuned: Path) -> None:
    with Image.open(tuned / "curves.png") as picture:
        assert min(picture.size) > 400
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    # Loss of both terms, and their accuracies: each in its colour.
    for colour in ("#0072B2", "#D55E00", "#009E73"):
        wanted = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)])
        assert (np.abs(colours.astype(int) - wanted).max(1) < 12).sum() > 100, colour


def test_shards_of_ours_can_be_mixed_in(source: Path, init: Path, tmp_path: Path) -> None:
    shards = tmp_path / "advbn"
    done = advbn_gen(
        "imagenet-advbn", "--encoder", "vgg", "--source", source, "--autoencoder",
        tiny_autoencoder(tmp_path / "autoencoder.safetensors"), "--classifier-weights", init, "--image-size", 32,
        "--batch-size", 4, "--steps", 1, "--device", "cpu", "--out", shards,
    )  # fmt: skip
    assert done.code == 0, done.err
    mixed, alone = tmp_path / "mixed", tmp_path / "alone"
    tune(source, init, mixed, mix=shards, mix_share=0.4, epochs=1, method="plain", val=source)
    settings = json.loads((mixed / "settings.json").read_text())
    assert settings["mix_share"] == 0.4
    assert settings["images"] == 42
    assert {kind: len(marks) for kind, marks in settings["content"].items()} == {"training": 22, "held-out": 21}
    tune(source, init, alone, epochs=1, method="plain", val=source)
    assert files(mixed) != files(alone)
    assert "mix_share: 0.4 -> 0.2" in refused(
        *words(source, init, mixed, mix=shards, mix_share=0.2, epochs=1, method="plain", val=source)
    )


def test_a_timm_network_is_tuned_and_read_back(source: Path, tmp_path: Path) -> None:
    with seeded(0):
        start = with_lived_in_batch_norm(timm.create_model("resnet18", num_classes=3))
    torch.save(start.state_dict(), tmp_path / "start.pth")
    init = f"timm:resnet18={tmp_path / 'start.pth'}"
    tune(source, init, tmp_path / "run", arch="timm:resnet18", cut="layer1", epochs=1, steps=1, limit=8)
    theirs: Any = timm.create_model("resnet18", num_classes=3)
    theirs.load_state_dict(load_file(tmp_path / "run/main.safetensors"))
    found = load_model(str(tmp_path / "run"))
    assert found.name == "timm:resnet18"
    assert found.view.crop == 32
    image = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(theirs.default_cfg[name])[:, None, None] for name in ("mean", "std"))
    with torch.no_grad():
        assert torch.allclose(found.module(image), theirs.eval()((image - mean) / std), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", ["resnet18", "timm:test_resnet"])
def test_a_fresh_head_has_the_classes_of_the_training_images(tmp_path: Path, arch: str) -> None:
    """Of three of ImageNet's classes, whose labels in other data are ImageNet's."""
    three = ("n01440764", "n01443537", "n01491361")
    source = image_folder(tmp_path / "images", per_class=7, classes=three)
    with seeded(0):
        start = timm.create_model("test_resnet") if ":" in arch else build_network("resnet18", 1000)
    torch.save(with_lived_in_batch_norm(start).state_dict(), tmp_path / "start.pth")
    options = {
        "classes": 3,
        "cut": "layer1",
        "epochs": 1,
        "steps": 1,
        "limit": 8,
        "arch": f"{arch}={tmp_path}/start.pth",
    }
    given = [word for word in words(source, "-", tmp_path / "run", **options) if word not in {"--init", "-"}]
    done = advbn_gen(*given)
    assert done.code == 0, done.err
    found = load_model(str(tmp_path / "run"))
    assert (found.name, found.classes, found.outputs.names) == (arch, 3, three)
    theirs: Any = timm.create_model("test_resnet", num_classes=3) if ":" in arch else build_network("resnet18", 3)
    theirs.load_state_dict(load_file(tmp_path / "run/main.safetensors"))
    tuned, before = theirs.state_dict(), start.state_dict()
    assert all(torch.equal(tuned[name], before[name]) for name in tuned if name.startswith(("layer1", "conv1", "bn1")))
    scores = advbn_gen("score", "--model", tmp_path / "run", "--data", f"d={source}", "--out", tmp_path / "s", "--json")
    (row,) = json.loads(scores.out)["results"]
    assert row["decision"] == "3 of ImageNet's classes, by their wnids"
    # Without a fresh head, it goes on from these three classes.
    further = [word for word in words(source, tmp_path / "run", tmp_path / "further", **options) if word != "-"]
    at = further.index("--classes")
    further[further.index("--arch") + 1] = arch
    done = advbn_gen(*further[:at], *further[at + 2 :])
    assert done.code == 0, done.err
    assert load_model(str(tmp_path / "further")).outputs.names == three
    # The network alone with the file says as much as the file does.
    given_name = load_model(f"{arch}={tmp_path}/run/main.safetensors")
    assert (given_name.outputs.names, given_name.view) == (three, found.view)
    given[given.index("--classes") + 1] = 4
    assert "--classes is 4, but images of 3 classes occur" in refused(*given)
    assert "names its weights; leave out --init" in refused(*given, "--init", "x")


def test_layers_without_an_image_are_exported_and_two_heads_are_refused(source: Path, tmp_path: Path) -> None:
    common = {"epochs": 1, "steps": 1, "limit": 8}
    two = words(source, "googlenet=seed:0", tmp_path / "run", arch="googlenet", cut="conv3", classes=3, **common)
    assert "more than one layer (fc, aux1.fc2, aux2.fc2)" in refused(*two)
    levit = words(source, "timm:levit_128s=seed:0", tmp_path / "run", arch="timm:levit_128s", cut="stem", classes=3)
    assert "gives its classes in more than one layer" in refused(*levit)
    with seeded(0):
        start = with_lived_in_batch_norm(googlenet_of(3))
    torch.save(start.state_dict(), tmp_path / "start.pth")
    init = f"googlenet={tmp_path / 'start.pth'}"
    tune(source, init, tmp_path / "run", arch="googlenet", cut="inception4e", **{**common, "image-size": 64})
    written = load_file(tmp_path / "run/main.safetensors")
    assert torch.equal(written["aux1.fc2.weight"], start.state_dict()["aux1.fc2.weight"])
    assert written.keys() == start.state_dict().keys()


def googlenet_of(classes: int) -> nn.Module:
    network: nn.Module = googlenet(num_classes=classes, aux_logits=True, init_weights=True)
    return network


def test_without_a_network_the_option_that_takes_a_file_is_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    message = refused("finetune", "--arch", "resnet18", "--source", source, "--out", tmp_path / "out")
    assert message.endswith("(<urlopen error no route to host>); give a file with --init resnet18=FILE.")
    message = refused("score", "--model", "resnet18", "--data", f"d={source}", "--out", tmp_path / "out")
    assert message.endswith("; give a file with --model resnet18=FILE.")
    torch.save(resnet18(num_classes=3).state_dict(), tmp_path / "plain.pth")
    message = refused("score", "--model", tmp_path / "plain.pth", "--data", f"d={source}", "--out", tmp_path / "out")
    assert message.endswith(f"do not say of which network they are; give --model NAME={tmp_path / 'plain.pth'}.")


def test_the_micro_batch_is_a_part_of_the_run_where_it_cuts_a_batch(
    source: Path, init: Path, tuned: Path, tmp_path: Path
) -> None:
    """With the whole batch or more, the run is the one without it."""
    copied = Path(shutil.copytree(tuned, tmp_path / "copied"))
    tune(source, init, copied, micro_batch=5)
    assert files(copied) == files(tuned)
    assert "micro_batch: (absent) -> 2" in refused(*words(source, init, copied, micro_batch=2))
    tune(source, init, tmp_path / "cut", micro_batch=2, epochs=1)
    assert "micro-batch is 0" in refused(*words(source, init, tmp_path / "none", micro_batch=0))
    said = refused(*words(source, init, tmp_path / "plain", method="plain", micro_batch=2))
    assert "--micro-batch" in said
