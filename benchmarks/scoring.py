"""Speed of scoring beside a plain loop over the same images: torchvision's decoding and transforms, network, argmax.

    python -m benchmarks.scoring --source FOLDER --arch resnet18 --limit 128

Both take turns in one process, with the same network, batch size and number of loader processes.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import click
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import get_model

from basics.compute import Compute, choose_compute
from basics.loading import fitting_loaders
from downstream.scoring import ScoringConfig, image_bytes, predict, views_of, wanted_score
from downstream.testset import TestSet, open_test_set
from networks.classifiers import Classifier
from networks.normalise import IMAGENET_MEAN, IMAGENET_STD
from networks.specs import load_model

SAME = 0.99
"""Share of the images of which both must predict the same class; rounding may change a close decision."""


@click.command()
@click.option("--source", required=True, help="Class folders.")
@click.option("--arch", default="resnet18", show_default=True, help="torchvision network, with seeded weights.")
@click.option("--limit", default=128, show_default=True, help="Only the first N images.")
@click.option("--batch-size", default=64, show_default=True)
@click.option("--loaders", type=int, help="Decoding processes of both. [default: as `score`]")
@click.option("--rounds", default=3, show_default=True)
@click.option("--device", default="auto", show_default=True)
def main(source: str, arch: str, limit: int, batch_size: int, loaders: int | None, rounds: int, device: str) -> None:
    """Print images per second of both in each round, and the ratio of their best times; fail if predictions differ."""
    compute = choose_compute(device, "auto")
    data, model = open_test_set("data", source, limit=limit), load_model(f"{arch}=seed:0")
    views = views_of([model], data)
    batch_bytes = batch_size * image_bytes(views)
    config = ScoringConfig(
        batch_size=batch_size, loaders=fitting_loaders(loaders, compute, batch_bytes=batch_bytes, tensors=2)
    )
    plain = _plain_loop(source, arch, model, data, compute, config)
    loops: dict[str, Callable[[], Tensor]] = {"plain": plain, "ours": partial(_ours, model, data, compute, config)}
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    images = len(data.records)
    for number in range(rounds + 1):
        # Each begins as often as the other: what comes second finds the files in memory.
        timed = {name: _timed(loops[name], compute) for name in sorted(loops, reverse=number % 2 == 0)}
        same = float((timed["plain"][1] == timed["ours"][1]).float().mean())
        if same < SAME:
            raise click.ClickException(f"only {same:.1%} of the predictions are the same")
        if number:  # the first round warms up
            for name, (duration, _) in timed.items():
                seconds[name].append(duration)
            theirs, own = seconds["plain"][-1], seconds["ours"][-1]
            click.echo(
                f"plain {images / theirs:.1f} images/s, ours {images / own:.1f} images/s, ratio {theirs / own:.2f} "
                f"({same:.1%} same predictions)"
            )
    median = statistics.median(plain / ours for plain, ours in zip(seconds["plain"], seconds["ours"], strict=True))
    # The best of the rounds as well: other work on the machine only ever adds time.
    click.echo(
        f"ratio {min(seconds['plain']) / min(seconds['ours']):.2f} of the best times, {median:.2f} in the median: "
        f"{arch}, {images} images, batches of {batch_size}, {config.loaders} loaders, {compute.kind}, "
        f"{compute.precision}, {torch.get_num_threads()} threads"
    )


def _ours(model: Classifier, data: TestSet, compute: Compute, config: ScoringConfig) -> Tensor:
    """Return the class that scoring predicts for each image (N)."""
    (scored,) = predict([(dict(wanted_score("model", model, data, compute).row), model)], data, compute, config).scored
    return torch.from_numpy(scored.predictions["all"].classes_NK[:, 0])


def _plain_loop(
    source: str, arch: str, model: Classifier, data: TestSet, compute: Compute, config: ScoringConfig
) -> Callable[[], Tensor]:
    """Return a function that predicts the class of each image (N) as torchvision's own examples do."""
    view = data.view(model.view)
    prepare = transforms.Compose(
        [
            transforms.Resize(view.resize or view.crop),
            transforms.CenterCrop(view.crop),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    images = Subset(ImageFolder(source, prepare), range(len(data.records)))
    network = get_model(arch, num_classes=model.classes)
    network.load_state_dict(model.module[1].state_dict())  # type: ignore[index]
    network.to(compute.device).eval()

    @torch.no_grad()
    def predicted() -> Tensor:
        loader = DataLoader(images, batch_size=config.batch_size, num_workers=config.loaders or 0)
        with compute.kernels():
            found = [network(image.to(compute.device)).argmax(1).cpu() for image, _ in loader]
        return torch.cat(found).int()

    return predicted


def _timed(function: Callable[[], Tensor], compute: Compute) -> tuple[float, Tensor]:
    start = time.perf_counter()
    found = function()
    if compute.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, found


if __name__ == "__main__":
    main()
