"""The whole job against a plain reference of the published procedure (section 3, appendix B), nothing clever in it.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.reference --source FOLDER --image-size 256 --batch-size 8 --batches 1

The reference is a serial loop over the batches of an image folder: decode, encode, ascend, decode, classify, and save
one PNG after the other. It has the networks' weights and no other code of this program: layers are torch's own, tensors
are contiguous, and a batch is passed as a whole. Both take turns in one process and use as many threads. That process
keeps the memory that it frees, which is a setting of ours that the reference profits from as well. A ratio above 1
means that ours is faster.

Images of ours have to be those of the reference. In double precision (`--precision fp64`) this fails if one value
differs by more than one grey level; in single precision a sign of a gradient may differ, so that the share of equal
values is only printed.

Legend: N images of the batch, C feature channels.
"""

import copy
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.timing import summary, timed_round
from benchmarks.workload import CLASSIFIER_WEIGHTS, run_text, whole_shard, workload, workload_options
from decoders.adain import UpsampledConv
from decoders.autoencoder import Autoencoder, load_autoencoder
from encoders.padding import ReflectionPad
from networks.cuts import RECTIFIED
from networks.specs import load_with_weights
from pipeline.config import GenerationConfig
from pipeline.job import Job, Product, prepare
from pipeline.worker import use_threads

EPS, STEPS, STEP_SIZE = 1.1, 6, 0.2
"""Appendix B.1."""


@click.command()
@workload_options
@click.option("--precision", type=click.Choice(("fp32", "tf32", "fp64")), default="fp32", show_default=True)
@click.option("--rounds", default=3, show_default=True)
def main(rounds: int, **settings: Any) -> None:
    """Print each round's seconds and ratio, and the median; fail if images differ in double precision."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = workload(folder, **settings)
        job = prepare(config, (Product(folder=folder / "out", name="benchmark", perturbed=True),))
        use_threads(job.requirements.threads)
        reference = _Reference(job)
        reference(folder / "first", images=1)  # as `prepare` has passed one image through ours
        timed = []
        for number in range(rounds):
            plain, ours = folder / f"plain{number}", folder / f"ours{number}"
            timed.append(timed_round(number, partial(reference, plain), partial(whole_shard, job, ours)))
            near = share_near(_saved(plain), _sharded(ours))
            if config.precision == "fp64" and near < 1:
                raise click.ClickException(f"only {near:.4%} of the values are within one grey level of the reference")
            click.echo(
                f"reference {timed[-1].plain:.2f} s, ours {timed[-1].ours:.2f} s, ratio {timed[-1].ratio:.3f} "
                f"({near:.2%} of the values within one grey level)"
            )
    click.echo(f"{summary(timed)} ({run_text(job)})")


def plain_reference(
    images: Sequence[Path],
    labels: Sequence[int],
    autoencoder: Autoencoder,
    classifier: nn.Module,
    out: Path,
    *,
    batch_size: int,
    image_size: int,
    steps: int = STEPS,
    step_size: float = STEP_SIZE,
    eps: float = EPS,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    tf32: bool = False,
) -> float:
    """Make the perturbed images of a folder's, and return how long that took, without moving the networks.

    Args:
        images: files, in ImageFolder's order.
        labels: true classes of the images.
        autoencoder: a copy of it is used, with torch's own layers.
        classifier: images in [0, 1] -> logits; it is moved, frozen and put into evaluation mode.
        out: new folder for `000000.png`, ...
        batch_size: images whose statistics are perturbed together.
        image_size: side of the square images, in pixels.
        steps: ascent steps.
        step_size: of each.
        eps: radius of the ball around 1.
        device: device.
        dtype: type of weights and images.
        tf32: whether convolutions and matrix products on a CUDA device run in TF32.
    """
    plain = with_torch_layers(autoencoder)
    for network in (plain, classifier):
        network.to(device, dtype).to(memory_format=torch.contiguous_format).eval().requires_grad_(False)
    attacked = nn.Sequential(plain.decoder, classifier)
    out.mkdir(parents=True)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=tf32):
        start = time.perf_counter()
        for first, image in image_batches(images, batch_size, image_size, device, dtype):
            label = torch.tensor(labels[first : first + batch_size], device=device)
            with torch.no_grad():
                feat = plain.encoder(image)
            deltas = plain_ascent(feat, label, attacked, steps=steps, step_size=step_size, eps=eps)
            with torch.no_grad():
                save_pngs(plain.decoder(plain_shift(feat, *deltas)), out, first)
        return time.perf_counter() - start


def with_torch_layers(autoencoder: Autoencoder) -> Autoencoder:
    """Return a copy in which padding and upsampling are torch's own layers, as in the published code."""
    plain = copy.deepcopy(autoencoder)
    for path, layer in list(plain.named_modules()):
        if isinstance(layer, ReflectionPad):
            plain.set_submodule(path, nn.ReflectionPad2d(1))
        elif isinstance(layer, UpsampledConv):
            conv = nn.Conv2d(layer.in_channels, layer.out_channels, 3)
            conv.load_state_dict(layer.state_dict())
            plain.set_submodule(path, nn.Sequential(nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), conv))
    return plain.requires_grad_(False)


def image_batches(
    images: Sequence[Path], batch_size: int, image_size: int, device: str, dtype: torch.dtype
) -> Iterator[tuple[int, Tensor]]:
    """Yield the position of each batch's first image, and the images (N, 3, H, W) in [0, 1]."""
    # The last two are ToTensor, whose type is always float32.
    prepare_image = transforms.Compose(
        [
            transforms.Resize(image_size),
            transforms.CenterCrop(image_size),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(dtype),
        ]
    )
    for first in range(0, len(images), batch_size):
        batch = [prepare_image(Image.open(path).convert("RGB")) for path in images[first : first + batch_size]]
        yield first, torch.stack(batch).to(device)


def plain_shift(feat_NCHW: Tensor, delta_mean_C: Tensor, delta_std_C: Tensor) -> Tensor:
    """Return features with shifted statistics (section 3), held above 0 as in the published code."""
    mean_C = feat_NCHW.mean(dim=(0, 2, 3), keepdim=True)
    return F.relu(delta_std_C * (feat_NCHW - mean_C) + delta_mean_C * mean_C)


def plain_ascent(
    feat_NCHW: Tensor,
    label_N: Tensor,
    network: nn.Module,
    *,
    steps: int = STEPS,
    step_size: float = STEP_SIZE,
    eps: float = EPS,
) -> tuple[Tensor, Tensor]:
    """Return the multipliers of means and of standard deviations after all steps.

    Args:
        feat_NCHW: clean features.
        label_N: true classes.
        network: features -> logits.
        steps: ascent steps.
        step_size: of each.
        eps: radius of the ball around 1.
    """
    deltas = [feat_NCHW.new_ones(1, feat_NCHW.shape[1], 1, 1) for _ in range(2)]
    for _ in range(steps):
        for delta in deltas:
            delta.requires_grad_()
        loss = F.cross_entropy(network(plain_shift(feat_NCHW, *deltas)), label_N, reduction="sum")
        gradients = torch.autograd.grad(loss, deltas)
        pairs = zip(deltas, gradients, strict=True)
        deltas = [(delta.detach() + step_size * slope.sign()).clamp(1 - eps, 1 + eps) for delta, slope in pairs]
    return deltas[0], deltas[1]


def save_pngs(image_N3HW: Tensor, out: Path, first: int) -> None:
    """Round images as torchvision's `save_image` does, and save one after the other."""
    pixels = image_N3HW.mul(255).add(0.5).clamp(0, 255).permute(0, 2, 3, 1).to("cpu", torch.uint8).numpy()
    for position, image in enumerate(pixels):
        Image.fromarray(image).save(out / f"{first + position:06d}.png")


class _Reference:
    """The plain reference, with the networks and the images of a job."""

    def __init__(self, job: Job) -> None:
        self.config = job.config
        self.autoencoder, self.classifier = plain_networks(job.config, job.source.classes.count)
        self.images, self.labels = plain_images(job)

    def __call__(self, out: Path, images: int | None = None) -> float:
        """Return how long it takes to make the images in a new folder, or the first ones."""
        config = self.config
        return plain_reference(
            self.images[:images], self.labels[:images], self.autoencoder, self.classifier, out,
            batch_size=config.batch_size, image_size=config.image_size, device=plain_device(config.device),
            dtype=torch.float64 if config.precision == "fp64" else torch.float32, tf32=config.precision == "tf32",
        )  # fmt: skip


def plain_networks(config: GenerationConfig, classes: int) -> tuple[Autoencoder, nn.Module]:
    """Load the networks of a run again, apart from those that it uses itself.

    Raises:
        click.ClickException: the features are not those of a ReLU.
    """
    if config.kind.limits != RECTIFIED:
        raise click.ClickException(f"features of {config.encoder} do not come out of a ReLU, as the reference's do")
    name = config.classifier or config.kind.classifier
    autoencoder = load_autoencoder(Path(str(config.autoencoder))).module
    return autoencoder, load_with_weights(name, CLASSIFIER_WEIGHTS, classes).module


def plain_images(job: Job) -> tuple[list[Path], list[int]]:
    """Return the files of a job in ImageFolder's order, and its labels: those of the networks' outputs.

    Raises:
        click.ClickException: its source is no folder of class folders.
    """
    root = Path(str(job.config.source))
    if not root.is_dir():
        raise click.ClickException(f"{root} is no folder; the reference reads a folder of class folders")
    images = [Path(path) for path, _ in ImageFolder(str(root)).samples[: job.plan.images]]
    records = [job.records[index] for index in range(job.plan.images)]
    if [path.relative_to(root).as_posix() for path in images] != [record.name for record in records]:
        raise click.ClickException(f"the images of {root} are not in ImageFolder's order")
    return images, [record.label for record in records]


def plain_device(device: str) -> str:
    """Return the device that `auto` stands for."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _saved(folder: Path) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]


def _sharded(folder: Path) -> list[np.ndarray[Any, Any]]:
    (path,) = folder.glob("*.tar")
    with tarfile.open(path) as tar:
        return [np.asarray(Image.open(tar.extractfile(each))) for each in tar if each.name.endswith(".png")]  # type: ignore[arg-type]


def share_near(found: Sequence[np.ndarray[Any, Any]], expected: Sequence[np.ndarray[Any, Any]]) -> float:
    """Return the share of values of images that are within one grey level of others.

    Raises:
        click.ClickException: these are not as many images.
    """
    if not found or len(found) != len(expected):
        raise click.ClickException(f"{len(found)} images of one and {len(expected)} of the other")
    return float((np.abs(np.stack(found).astype(int) - np.stack(expected).astype(int)) <= 1).mean())


if __name__ == "__main__":
    main()
