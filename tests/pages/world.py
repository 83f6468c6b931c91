"""The files that the documentation's commands name, in small: images, clips, and networks with seeded weights."""

import shutil
import tarfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import torch
from torchvision.models import resnet50

from networks.classifiers import build_network
from tests import shifted
from tests.abnn.clip_runs import settle
from tests.abnn.trained import small_world
from tests.authors import authors_state, networks_with_other_batch_norm
from tests.devkit import write_devkit
from tests.pages.reduced import ATTACKED, ATTACKED_DRAWN, NETWORKS, PUBLISHED
from tests.sources.clip_files import pictures, video
from tests.support import (
    WNIDS,
    image_folder,
    published_decoder,
    published_vgg,
    seeded,
    tiny_autoencoder,
    tiny_classifier,
)

DRAWN_CLASSES = 12
_IMAGENETTE = tuple(f"n0{number}" for number in (
    1440764, 2102040, 2979186, 3000684, 3028079, 3394916, 3417042, 3425413, 3445777, 3888257,
))  # fmt: skip
_CLIPS = ("Archery", "Biking")


def build_inputs(folder: Path) -> Path:
    """Write everything that a user brings; takes seconds."""
    folder.mkdir(parents=True)
    _write_imagenet(folder)
    _write_test_sets(folder)
    _write_weights(folder)
    _write_clips(folder)
    small_world(folder / "cifar10")
    _link(folder, cifar="cifar10")
    image_folder(folder / "photographs", classes=("",), per_class=4)
    return folder


def _write_imagenet(folder: Path) -> None:
    image_folder(folder / "ILSVRC2012/train", per_class=6)
    for seed, name in enumerate(("train", "val")):
        image_folder(folder / "imagenette" / name, per_class=2, classes=_IMAGENETTE, seed=seed)
    validation = folder / "ILSVRC2012_val"
    validation.mkdir()
    truth = [(5 * number) % 1000 + 1 for number in range(8)]
    for number, path in enumerate(sorted(image_folder(folder / "flat", per_class=8, seed=2).rglob("*.JPEG"))[:8], 1):
        path.rename(validation / f"ILSVRC2012_val_{number:08}.JPEG")
    shutil.rmtree(folder / "flat")
    devkit = write_devkit(folder, truth)
    with tarfile.open(folder / "devkit.tar.gz", "w:gz") as tar:
        tar.add(devkit, devkit.name)
    shutil.rmtree(devkit)
    for name in ("train", "val"):
        with tarfile.open(folder / f"{name}.tar", "w") as tar:
            tar.add(folder / "imagenette" / name, "")
    shutil.copy(folder / "val.tar", folder / "imagenette/val.tar")
    _link(
        folder, train="imagenette/train", val="imagenette/val", IMAGES="imagenette/val", FOLDER="imagenette/val",
        **{"ILSVRC2012_devkit_t12.tar.gz": "devkit.tar.gz"},
    )  # fmt: skip


def _write_test_sets(folder: Path) -> None:
    shifted.corrupted(folder / "ImageNet-C", classes=WNIDS, per_class=1)
    shifted.filtered(folder / "ImageNet-Instagram", classes=WNIDS)
    for number, name in enumerate(("sketch", "Stylized-ImageNet/val", "drawn/val", "drawn/imagenet-sketch")):
        classes = shifted.CLASSES if name.startswith("drawn") else WNIDS
        image_folder(folder / name, per_class=2, classes=classes, seed=3 + number)
    shifted.corrupted(folder / "drawn/imagenet-c", per_class=1)
    shifted.filtered(folder / "drawn/imagenet-instagram")
    image_folder(folder / "drawn/imagenet-style/val", per_class=2, classes=shifted.CLASSES, seed=9)
    _link(folder, stylized="Stylized-ImageNet")


def _write_weights(folder: Path) -> None:
    networks = folder / NETWORKS
    networks.mkdir()
    for encoder in ("vgg", "resnet"):
        tiny_autoencoder(networks / f"{encoder}.safetensors", encoder)
    tiny_classifier(folder / ATTACKED, classes=1000, image_size=32)
    tiny_classifier(folder / ATTACKED_DRAWN, classes=DRAWN_CLASSES)
    for seed, name in enumerate(PUBLISHED):
        tiny_classifier(networks / f"{name}.safetensors", 1000, name, seed, image_size=32)
    _link(folder, **{"autoencoder.safetensors": f"{NETWORKS}/vgg.safetensors"})
    torch.save(published_vgg(), folder / "vgg_normalised.pth")
    torch.save(published_decoder(), folder / "decoder.pth")
    with seeded(0):
        torch.save(build_network("resnet18", len(_IMAGENETTE)).state_dict(), folder / "ten.pth")
        torch.save(build_network("resnet50", 1000).state_dict(), folder / "augmix.pth")
        for name in ("resnext-101", "resnet-18"):
            network = build_network(f"hara_{name.replace('-', '')}", 400)
            settle(network, torch.rand(4, 3, 4, 32, 32))
            state = {f"module.{key}": value for key, value in network.state_dict().items()}
            torch.save({"epoch": 1, "state_dict": state}, folder / f"{name}-kinetics.pth")
    _link(folder, **dict.fromkeys((f"{name}.pth" for name in ("mine", "cutmix", "aa", "fast-aa")), "augmix.pth"))
    content = {"arch": "resnet50", "state_dict": authors_state(*networks_with_other_batch_norm(resnet50))}
    torch.save(content, folder / "advbn_res50.pth.tar")
    for seed, name in enumerate(("plain-0", "advbn-0")):
        shifted.run_folder(folder / name, seed)


def _write_clips(folder: Path) -> None:
    """UCF-101 with its published lists, clips of other classes, and as six classes."""
    lists = folder / "data/ucfTrainTestlist"
    lists.mkdir(parents=True)
    names = [f"{name}/v_{name}_g{group:02}_c01.avi" for name in _CLIPS for group in (1, 2, 8, 9)]
    _write_videos(folder / "data/UCF-101", names)
    label = {name: str(number) for number, name in enumerate(_CLIPS, 1)}
    # As published, groups 1 to 7 are for testing.
    train = "".join(f"{name} {label[name.split('/')[0]]}\n" for name in names if _group(name) > 7)
    (lists / "classInd.txt").write_text("".join(f"{number} {name}\n" for name, number in label.items()))
    (lists / "trainlist01.txt").write_text(train)
    (lists / "testlist01.txt").write_text("".join(f"{name}\n" for name in names if name not in train))
    _write_videos(
        folder / "kinetics",
        [
            f"{split}/{name}/{number}.mp4"
            for split, name, number in product(("train", "val"), ("juggling", "yoga"), range(4))
        ],
    )
    _link(folder, **{"UCF-101": "data/UCF-101", "ucf101-6class": "data/UCF-101", "CLIPS": "data/UCF-101"})


def _group(name: str) -> int:
    return int(name.rpartition("_g")[2][:2])


def _write_videos(folder: Path, names: Sequence[str]) -> None:
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(video(pictures(6, seed=seed), path.suffix.removeprefix(".")))


def _link(folder: Path, **targets: str) -> None:
    for name, target in targets.items():
        (folder / name).symlink_to(target)
