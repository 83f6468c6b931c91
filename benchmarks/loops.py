"""Reading shards, rendering, a fine-tuning step and PGD, each against a plain loop that does the same.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.loops --only render --only attack

Both loops of a comparison first have to give the same result, or the command fails: shards and renderings as they are
timed, the other two in double precision, because a sign decides each step of an attack and rounding can turn it. Then
they take turns, with as many threads. A ratio above 1 means that ours is faster.
"""

import copy
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path

import click
import h5py
import numpy as np
import torch
import torch.nn.functional as F
import webdataset as wds
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD

from abnn.named_attacks import AttackOptions, attack_of
from abnn.plan import NetworkPlan, build
from attacks.pixels import PixelConfig
from attacks.statistics import AdvBNConfig
from basics.compute import available_cores, choose_compute
from benchmarks.reference import (
    image_batches,
    plain_ascent,
    plain_images,
    plain_networks,
    plain_shift,
    save_pngs,
    share_near,
    with_torch_layers,
)
from benchmarks.timing import seconds_of, summary, timed_round
from benchmarks.workload import workload
from downstream.advbn import AdvBNNetwork
from downstream.auxiliary import SETS, state_with
from downstream.methods import METHODS, MethodLoss
from experiments import CIFAR10
from networks.classifiers import build_network
from networks.cuts import cut_of
from networks.normalise import IMAGENET_MEAN, IMAGENET_STD, Normalise
from pipeline.dataset.layout import LEDGER
from pipeline.job import Job, prepare, products_of
from pipeline.render import RenderRequest, render_job
from pipeline.renderable import read_renderable
from pipeline.run import run
from pipeline.worker import use_threads
from sources.decode import decode_rgb
from sources.opening import open_source
from tests.support import image_folder

SAME = 1e-9
"""Largest relative difference in double precision."""
CLASSES = ("a", "b")
LEARNING_RATE, MOMENTUM = 1e-3, 0.9


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the loops work on."""

    images: int
    """Images of the shards that are read or rendered."""
    image_size: int
    """Side of these images, and of the fine-tuning step's, in pixels."""
    batch_size: int
    """Images in a batch."""
    arch: str
    """Network that is fine-tuned."""
    width: float
    """Scale of all networks' channels."""
    device: str
    """Device."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two loops that do the same."""

    plain: Callable[[], object]
    """The plain loop."""
    ours: Callable[[], object]
    """The same work by this program."""
    what: str
    """What they work on, for the line of the result."""


def shards(folder: Path, sizes: Sizes) -> Pair:
    """Return loops over the decoded images and labels of a data set's shards: ours is what scoring reads with.

    Raises:
        click.ClickException: images or labels differ.
    """
    data = _data_set(folder, sizes).datasets[0].folder
    names = _tars(Path(str(data)))

    def plain() -> Iterator[tuple[Image.Image, int]]:
        yield from wds.WebDataset(names, shardshuffle=False).decode("pil").to_tuple("png", "cls")

    def ours() -> Iterator[tuple[Image.Image, int]]:
        source = open_source(str(data))
        for record in source.records:
            yield decode_rgb(source.read(record), record.name), record.label

    expected, found = ([(image.tobytes(), label) for image, label in loop()] for loop in (plain, ours))
    _require(len(expected) == sizes.images and expected == found, "shards", "images or labels differ")
    return Pair(plain=lambda: list(plain()), ours=lambda: list(ours()), what=f"{sizes.images} images of {_side(sizes)}")


def render(folder: Path, sizes: Sizes) -> Pair:
    """Return the rendering of a ledger, without its preparation, and a serial loop that saves the images as files.

    Raises:
        click.ClickException: a value of an image differs by more than one grey level.
    """
    job = _data_set(folder, sizes)
    ledger = Path(str(job.datasets[0].folder)) / LEDGER
    request = RenderRequest(
        ledger=ledger, source=job.config.source, autoencoder=job.config.autoencoder, device=sizes.device
    )
    # Prepared once, as the networks of the plain loop are.
    rendering = render_job(request, read_renderable(ledger), folder / "rendered")
    numbers = count()

    def ours() -> Path:
        out = folder / f"rendered{next(numbers)}"
        run(replace(rendering, datasets=(replace(rendering.datasets[0], folder=out),)))
        return out

    plain = _plain_rendering(job, ledger, folder / "plain")
    plain()
    expected = [np.asarray(Image.open(path)) for path in sorted((folder / "plain").glob("*.png"))]
    images = wds.WebDataset(_tars(ours()), shardshuffle=False).decode("pil").to_tuple("png")
    near = share_near([np.asarray(image) for (image,) in images], expected)
    _require(near == 1, "render", f"only {near:.4%} of the values are within one grey level")
    return Pair(plain=plain, ours=ours, what=f"{sizes.images} images of {_side(sizes)}, {sizes.width:g} wide")


def finetune(_: Path, sizes: Sizes) -> Pair:
    """Return a whole training step with AdvBN, and a plainly written one.

    Raises:
        click.ClickException: their losses, or the weights after one step, differ.
    """
    torch.manual_seed(0)
    network = build_network(sizes.arch, 10, sizes.width)
    image = torch.rand(sizes.batch_size, 3, sizes.image_size, sizes.image_size, device=sizes.device)
    label = torch.arange(sizes.batch_size, device=sizes.device) % 10
    exact = copy.deepcopy(network).double()
    plain, ours = _PlainStep(exact, sizes), _OurStep(exact, sizes)
    losses = [step(image.double(), label) for step in (plain, ours)]
    _require(_close(*losses), "finetune", f"the losses are {losses[0]} and {losses[1]}")
    for name, weight in plain.weights().items():
        _require(_close(weight, ours.weights()[name]), "finetune", f"the weights of {name} differ after a step")
    plain, ours = _PlainStep(network, sizes), _OurStep(network, sizes)
    return Pair(
        plain=lambda: plain(image, label),
        ours=lambda: ours(image, label),
        what=f"a step of {sizes.arch}, {sizes.width:g} wide, {sizes.batch_size} images of {_side(sizes)}",
    )


def attack(_: Path, sizes: Sizes) -> Pair:
    """Return the PGD of `abnn attack` on a network of CIFAR-10, and a plain one.

    Raises:
        click.ClickException: the attacked images differ.
    """
    torch.manual_seed(0)
    side = CIFAR10.training.image_size
    network = build(NetworkPlan(arch=CIFAR10.target, classes=10, image_size=side, width=sizes.width))
    network.to(sizes.device).eval().requires_grad_(False)
    image = torch.rand(sizes.batch_size, 3, side, side, device=sizes.device)
    label = torch.arange(sizes.batch_size, device=sizes.device) % 10
    named = attack_of("pgd", CIFAR10, AttackOptions())

    def plain(network: nn.Module, image: Tensor) -> Tensor:
        torch.manual_seed(1)
        return _plain_pgd(network, image, label, CIFAR10.pixels)

    def ours(network: nn.Module, image: Tensor) -> Tensor:
        torch.manual_seed(1)
        return named(network, image, label, 0)

    exact = copy.deepcopy(network).double()
    expected, found = (loop(exact, image.double()) for loop in (plain, ours))
    _require(_close(found, expected) and not _close(expected, image.double()), "attack", "the attacked images differ")
    return Pair(
        plain=partial(plain, network, image),
        ours=partial(ours, network, image),
        what=f"{named.name} on {CIFAR10.target}, {sizes.width:g} wide, {sizes.batch_size} images of {side} px",
    )


COMPARISONS: dict[str, Callable[[Path, Sizes], Pair]] = {
    "shards": shards, "render": render, "finetune": finetune, "attack": attack
}  # fmt: skip


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(COMPARISONS)), help="Comparisons. [default: all]")
@click.option("--rounds", default=5, show_default=True)
@click.option("--images", default=32, show_default=True, help="Images of the shards.")
@click.option("--image-size", default=64, show_default=True)
@click.option("--batch-size", default=8, show_default=True)
@click.option("--arch", default="resnet18", show_default=True, help="Network that is fine-tuned.")
@click.option("--width", default=0.5, show_default=True, help="Scale of all networks' channels.")
@click.option("--device", default="cpu", show_default=True)
def main(only: tuple[str, ...], rounds: int, **options: float) -> None:
    """Print, for each comparison, the ratio of each round, in the median and of the best times."""
    sizes = Sizes(**options)  # type: ignore[arg-type]
    compute = choose_compute(sizes.device, "fp32")
    use_threads(available_cores())  # as many as a job takes
    for name in only or COMPARISONS:
        with tempfile.TemporaryDirectory() as folder, compute.kernels():
            pair = COMPARISONS[name](Path(folder), sizes)
            timed = []
            for number in range(rounds + 1):
                each = timed_round(
                    number, *(partial(seconds_of, loop, sizes.device) for loop in (pair.plain, pair.ours))
                )
                if number:  # the first round warms up
                    timed.append(each)
                    click.echo(f"{name}: plain {each.plain:.3f} s, ours {each.ours:.3f} s, ratio {each.ratio:.3f}")
        click.echo(
            f"{name}: {summary(timed)}, same results ({pair.what}, {compute.kind}, {torch.get_num_threads()} threads)"
        )


def _side(sizes: Sizes) -> str:
    return f"{sizes.image_size} px"


def _tars(folder: Path) -> list[str]:
    return sorted(map(str, folder.glob("*.tar")))


def _require(same: bool, name: str, difference: str) -> None:
    if not same:
        raise click.ClickException(f"{name}: {difference}")


def _close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= SAME * expected.abs().max())


def _data_set(folder: Path, sizes: Sizes) -> Job:
    """Make a data set of images of soft random colours, with two large steps of the ascent."""
    if sizes.images % sizes.batch_size:
        raise click.ClickException(f"give a number of images that batches of {sizes.batch_size} make up")
    source = image_folder(folder / "images", per_class=-(-sizes.images // len(CLASSES)), classes=CLASSES)
    config = workload(
        folder, encoder="vgg", batches=sizes.images // sizes.batch_size, batch_size=sizes.batch_size,
        source=str(source), width=sizes.width, classifier="shufflenet_v2_x0_5", image_size=sizes.image_size,
        attack=AdvBNConfig(steps=2, step_size=0.4), device=sizes.device, precision="fp32",
    )  # fmt: skip
    job = prepare(config, products_of(config, folder / "out", "benchmark-advbn"))
    run(job)
    return job


def _plain_rendering(job: Job, ledger: Path, out: Path) -> Callable[[], None]:
    """Return a serial loop: decode, encode, shift by the ledger's multipliers, decode, save the files one by one."""
    config = job.config
    autoencoder, _ = plain_networks(config, job.source.classes.count)
    autoencoder = with_torch_layers(autoencoder).to(config.device)
    images, _ = plain_images(job)
    with h5py.File(ledger) as file:
        rows = [torch.from_numpy(file[name][:]).float().to(config.device) for name in ("delta_mean", "delta_std")]

    @torch.no_grad()
    def loop() -> None:
        out.mkdir(exist_ok=True)
        batches = image_batches(images, config.batch_size, config.image_size, config.device, torch.float32)
        for (first, image), *deltas in zip(batches, *rows, strict=True):
            feat = autoencoder.encoder(image)
            delta_mean, delta_std = (delta.view(1, -1, 1, 1) for delta in deltas)
            save_pngs(autoencoder.decoder(plain_shift(feat, delta_mean, delta_std)), out, first)

    return loop


class _OurStep:
    """Training steps with AdvBN on a copy of a network."""

    def __init__(self, network: nn.Module, sizes: Sizes) -> None:
        self.network = AdvBNNetwork(copy.deepcopy(network), cut_of(sizes.arch), AdvBNConfig())
        dtype = next(network.parameters()).dtype
        self.loss = MethodLoss(self.network, METHODS["advbn"], Normalise(), PixelConfig()).to(sizes.device, dtype)
        self.loss.train()
        trained = [weight for weight in self.loss.parameters() if weight.requires_grad]
        self.optimizer = SGD(trained, lr=LEARNING_RATE, momentum=MOMENTUM)

    def __call__(self, image_N3HW: Tensor, label_N: Tensor) -> Tensor:
        """Take a step, and return both terms of the loss."""
        terms = self.loss(image_N3HW, label_N)
        losses = torch.stack([terms["clean_loss"], terms["adversarial_loss"]])
        self.optimizer.zero_grad()
        losses.sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return losses.detach()

    def weights(self) -> dict[str, Tensor]:
        """Return what a step changes, with both sets of batch norm."""
        heads = {which: state_with(self.network.head, which) for which in SETS}
        return {f"{which} {name}": value for which, state in heads.items() for name, value in state.items()}


class _PlainStep:
    """The same steps, written down for a ResNet cut behind its first block."""

    def __init__(self, network: nn.Module, sizes: Sizes) -> None:
        self.front, self.main = _cut_resnet(copy.deepcopy(network).to(sizes.device))
        self.front.eval().requires_grad_(False)
        # The second head has batch norms of its own, and shares all other weights.
        shared = {
            id(w): w for part in self.main.modules() if not _is_norm(part) for w in part.parameters(recurse=False)
        }
        self.auxiliary = copy.deepcopy(self.main, shared)
        trained = list(dict.fromkeys([*self.main.parameters(), *self.auxiliary.parameters()]))
        self.optimizer = SGD(trained, lr=LEARNING_RATE, momentum=MOMENTUM)
        self.mean, self.std = (
            torch.tensor(colours, device=sizes.device).view(1, 3, 1, 1) for colours in (IMAGENET_MEAN, IMAGENET_STD)
        )

    def __call__(self, image_N3HW: Tensor, label_N: Tensor) -> Tensor:
        """Take a step, and return both terms of the loss."""
        with torch.no_grad():
            feat = self.front((image_N3HW - self.mean) / self.std)
        self.auxiliary.eval()
        deltas = plain_ascent(feat, label_N, self.auxiliary)
        self.main.train()
        self.auxiliary.train()
        clean = F.cross_entropy(self.main(feat), label_N)
        adversarial = F.cross_entropy(self.auxiliary(plain_shift(feat, *deltas)), label_N)
        self.optimizer.zero_grad()
        (clean + adversarial).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return torch.stack([clean, adversarial]).detach()

    def weights(self) -> dict[str, Tensor]:
        """Return what a step changes, with both heads' batch norm."""
        heads = zip(SETS, (self.main, self.auxiliary), strict=True)
        return {f"{which} {name}": value for which, head in heads for name, value in head.state_dict().items()}


def _cut_resnet(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return the two parts of a ResNet as sequences of its modules, under their own names."""
    parts = dict(network.named_children())
    last = parts.pop("fc")
    named = [*parts.items(), ("flatten", nn.Flatten()), ("fc", last)]
    behind = list(parts).index("layer1") + 1
    return nn.Sequential(OrderedDict(named[:behind])), nn.Sequential(OrderedDict(named[behind:]))


def _is_norm(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm)


def _plain_pgd(network: nn.Module, image_N3HW: Tensor, label_N: Tensor, config: PixelConfig) -> Tensor:
    """Return attacked images: PGD as it is usually written (Madry et al. 2018)."""
    moved = (image_N3HW + config.eps * (2 * torch.rand_like(image_N3HW) - 1)).clamp(0, 1)
    for _ in range(config.steps):
        moved.requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(network(moved), label_N, reduction="sum"), moved)
        moved = moved.detach() + config.step_size * slope.sign()
        moved = image_N3HW + (moved - image_N3HW).clamp(-config.eps, config.eps)
        moved = moved.clamp(0, 1)
    return moved.detach()


if __name__ == "__main__":
    main()
