"""The decoder's upsampled convolutions: the low-resolution rewrite against upsample + pad + convolve.

    python -m benchmarks.upsampled_conv

Forward and backward (input gradient only, as in the ascent), both alternately in one run; prints time ratios.
"""

import statistics
from collections.abc import Callable

import click
import torch
from torch import Tensor

from benchmarks.timing import seconds_of
from decoders.adain import UpsampledConv

SHAPES = ((256, 32), (128, 64), (64, 128), (32, 6), (16, 12), (8, 24))
"""Channels and side of the small image: the published decoder at 256 px, and the drawn world's at 48 px."""


@click.command()
@click.option("--batch", default=8, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--device", default="cpu", show_default=True)
def main(batch: int, rounds: int, device: str) -> None:
    """Print plain time / rewritten time for each layer."""
    for channels, side in SHAPES:
        layer = UpsampledConv(channels, channels).requires_grad_(False)
        layer = layer.to(device).to(memory_format=torch.channels_last)
        image = torch.randn(batch, channels, side, side).to(device, memory_format=torch.channels_last)
        pair = (layer.plain, layer.rewritten)
        seconds = [[_time(module, image) for module in pair] for _ in range(rounds + 1)][1:]
        ratio = statistics.median(old / new for old, new in seconds)
        click.echo(f"{channels:4d} channels, {side:3d} -> {2 * side:3d} px: plain / rewritten = {ratio:.2f}")


def _time(module: Callable[[Tensor], Tensor], image: Tensor) -> float:
    leaf = image.clone().requires_grad_()
    return seconds_of(lambda: torch.autograd.grad(module(leaf).sum(), leaf), str(image.device))


if __name__ == "__main__":
    main()
