"""Cost of a fine-tuning step with AdvBN, by the number of ascent steps and the cut (Table 9), beside a plain step.

    python -m benchmarks.finetuning_step

Whole training steps of a full-width ResNet-50 with fresh weights, all kinds alternately in one run; prints ratios of
their best times over the rounds, beside the ratios of the paper's training hours.
"""

import copy

import click
import torch
from torch import nn
from torch.optim import SGD

from attacks.pixels import PixelConfig
from attacks.statistics import AdvBNConfig
from benchmarks.timing import seconds_of
from downstream.advbn import AdvBNNetwork
from downstream.methods import METHODS, MethodLoss
from networks.classifiers import build_network
from networks.cuts import cut_of
from networks.normalise import Normalise

ARCH, CLASSES = "resnet50", 1000
PUBLISHED_HOURS = {
    ("conv2", 3): 30, ("conv2", 4): 36, ("conv2", 5): 43, ("conv2", 6): 48, ("conv2", 7): 53, ("conv2", 8): 59,
    ("conv3", 6): 31, ("conv4", 6): 15,
}  # fmt: skip
"""Table 9: (cut, ascent steps) -> training hours on four RTX 2080 Ti."""
DEFAULT = ("conv2", 6)


@click.command()
@click.option("--batch", default=8, show_default=True)
@click.option("--image-size", default=224, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--device", default="cpu", show_default=True)
def main(batch: int, image_size: int, rounds: int, device: str) -> None:
    """Print each kind's time relative to six steps at conv2, and to a plain step at its own cut."""
    torch.manual_seed(0)
    network = build_network(ARCH, CLASSES)
    kinds = [*PUBLISHED_HOURS, *((cut, 0) for cut in ("conv2", "conv3", "conv4"))]
    seconds: dict[tuple[str, int], list[float]] = {kind: [] for kind in kinds}
    for number in range(rounds + 1):
        for kind in kinds:
            duration = _time(network, kind, batch, image_size, device)
            if number:  # the first round warms up
                seconds[kind].append(duration)
    # The best of the rounds: other work on the machine only ever adds time.
    best = {kind: min(values) for kind, values in seconds.items()}
    click.echo("cut     m    time / m=6 at conv2    published hours / 48    time / plain step")
    for kind, hours in PUBLISHED_HOURS.items():
        ours, theirs = best[kind] / best[DEFAULT], hours / PUBLISHED_HOURS[DEFAULT]
        click.echo(f"{kind[0]}   {kind[1]}    {ours:19.2f}    {theirs:20.2f}    {best[kind] / best[kind[0], 0]:17.2f}")
    click.echo(f"m=6 at conv2: {best[DEFAULT]:.2f} s a step of {batch} images at {image_size} px")


def _time(network: nn.Module, kind: tuple[str, int], batch: int, image_size: int, device: str) -> float:
    """Return the seconds of one training step; 0 ascent steps stand for plain fine-tuning."""
    cut, steps = kind
    method = METHODS["advbn" if steps else "plain"]
    # A copy, because the layers that one cut freezes are trained with another cut.
    split = AdvBNNetwork(copy.deepcopy(network), cut_of(ARCH, cut), AdvBNConfig(steps=steps))
    trained = MethodLoss(split, method, Normalise(), PixelConfig()).to(device).train()
    optimizer = SGD([weight for weight in trained.parameters() if weight.requires_grad], lr=1e-6, momentum=0.9)
    image = torch.rand(batch, 3, image_size, image_size, device=device)
    label = torch.randint(CLASSES, (batch,), device=device)

    def step() -> None:
        terms = trained(image, label)
        loss = sum(value for name, value in terms.items() if name.endswith("_loss"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return seconds_of(step, device)


if __name__ == "__main__":
    main()
