"""How far attacks move a substitute's statistics: `python -m docs.experiments.drift RUN_FOLDER DATA`."""

import sys
from pathlib import Path

import click
import torch

from abnn.adaptive import adaptive_attack, drift
from abnn.benchmarks import benchmark_of
from abnn.checkpoint import load_checkpoint
from abnn.images import HeldOut
from abnn.named_attacks import Pgd
from abnn.network import ABNN
from experiments import BENCHMARKS
from sources.opening import open_source
from training.evaluation import batched

IMAGES = 200


def main(folder: str, data: str) -> None:
    """Print the drift of noise, of the paper's attack, and of attacks that aim at it."""
    checkpoint = load_checkpoint(Path(folder))
    network, pixels = checkpoint.module, benchmark_of(checkpoint.task, BENCHMARKS).pixels
    if not isinstance(network, ABNN):
        sys.exit(f"{folder} has no substitute")
    image, label = next(batched(HeldOut(open_source(data, split="test"), IMAGES).for_plan(checkpoint.plan), IMAGES))
    image = image / 255
    torch.manual_seed(0)
    signs = (torch.rand_like(image) - 0.5).sign()
    attacked = {
        "noise": (image + pixels.eps * signs).clamp(0, 1),
        "the paper's PGD": Pgd(config=pixels)(network, image, label, 0),
        **{
            f"margin + {weight:g} x drift": adaptive_attack(network, pixels, weight)(image, label)
            for weight in (0.0, 1.0, 100.0)
        },
    }
    with torch.no_grad():
        clean = network.adaptations(image)
        for name, moved in attacked.items():
            adaptations = network.adaptations(moved)
            accuracy = (network.logits(moved, adaptations).argmax(1) == label).double().mean()
            moves = drift(adaptations, clean, len(image)).mean()
            click.echo(f"{name}: drift {float(moves):.2f}, accuracy {float(accuracy):.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
