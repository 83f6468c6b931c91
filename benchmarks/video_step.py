"""Cost of a training step on clips by defence: time, peak memory and operations, beside the paper's formula (Table 2).

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.video_step

Whole training steps of the UCF-101 benchmark's networks with fresh weights on random clips, each defence in a process
of its own, whose peak memory is then that of the step (with about 0.4 GiB of the libraries).
"""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

import click
import torch
from torch.optim import SGD

from abnn.cost import operations, passes
from abnn.layer import LayerConfig
from abnn.plan import NetworkPlan, SubstitutePlan, build
from abnn.results import PLAIN_PASSES
from abnn.task import ADVERSARIAL, MOMENTUM, DefenceLoss
from basics.compute import choose_compute
from basics.memory import peak_memory
from benchmarks.timing import synchronise
from experiments import UCF101
from networks.recomputation import recompute_activations

CLASSES, KINETICS_CLASSES = 101, 400
KINDS = ("none", "abnn", "abnn, r3d_18", "pgd-at", "oudefend")
"""Defences; behind the comma another substitute than the benchmark's."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one kind of step is measured on."""

    kind: str
    """One of KINDS."""
    batch: int
    """Clips."""
    frames: int
    """Frames of a clip."""
    image_size: int
    """Side of a frame, in pixels."""
    width: float
    """Scale of the channels of both networks."""
    recompute: bool
    """Whether activations are computed again in the backward pass."""
    rounds: int
    """Steps that are timed; the best counts."""
    device: str
    """Device."""

    @property
    def defence(self) -> str:
        """The defence of its kind."""
        return self.kind.partition(",")[0]

    @property
    def plan(self) -> NetworkPlan:
        """What its network is made of."""
        plan = NetworkPlan(
            arch=UCF101.target, classes=CLASSES, image_size=self.image_size, frames=self.frames, width=self.width,
            denoise=self.defence == "oudefend",
        )  # fmt: skip
        if self.defence != "abnn":
            return plan
        arch = self.kind.partition(", ")[2] or UCF101.substitute
        beside = SubstitutePlan(arch=arch, classes=KINETICS_CLASSES, width=self.width)
        return replace(plan, layer=LayerConfig(), substitute=beside)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a step took."""

    gigaflop: float
    """Operations of convolutions and matrix products."""
    seconds: float
    """Shortest time of a step."""
    busy_seconds: float
    """Shortest time that the process computed for it, over all of its threads; other work on the machine adds less to
    this."""
    gibibytes: float
    """Peak memory: of the process on the CPU, of tensors on a GPU."""


def measure(step: Step) -> Measured:
    """Make real steps in this process."""
    torch.manual_seed(0)
    compute = choose_compute(step.device, "fp32")
    network = build(step.plan)
    if step.recompute:
        recompute_activations(network)
    pixels = UCF101.pixels if step.defence in ADVERSARIAL else None
    trained = DefenceLoss(network, pixels).to(compute.device).train()
    optimizer = SGD([weight for weight in trained.parameters() if weight.requires_grad], lr=1e-4, momentum=MOMENTUM)
    clip = torch.rand(step.batch, 3, step.frames, step.image_size, step.image_size, device=compute.device)
    label = torch.arange(step.batch, device=compute.device) % CLASSES

    def work() -> None:
        optimizer.zero_grad()
        trained(clip, label)["loss"].backward()
        optimizer.step()

    gigaflop = operations(work) / 1e9
    seconds, busy = map(min, zip(*(_seconds(work, step.device) for _ in range(step.rounds)), strict=True))
    on_gpu = compute.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else peak_memory()
    return Measured(gigaflop=gigaflop, seconds=seconds, busy_seconds=busy, gibibytes=peak / 2**30)


def _seconds(work: Callable[[], None], device: str) -> tuple[float, float]:
    """Return how long some work took, and how long the process computed for it."""
    synchronise(device)
    start, busy = time.perf_counter(), time.process_time()
    work()
    synchronise(device)
    return time.perf_counter() - start, time.process_time() - busy


@click.command()
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, help="Kinds of steps. [default: all]")
@click.option("--batch", default=1, show_default=True)
@click.option("--frames", default=UCF101.frames, show_default=True)
@click.option("--image-size", default=UCF101.training.image_size, show_default=True)
@click.option("--width", default=1.0, show_default=True)
@click.option("--recompute", is_flag=True, help="Compute activations again in the backward pass.")
@click.option("--rounds", default=1, show_default=True)
@click.option("--device", default="cpu", show_default=True)
def main(kinds: tuple[str, ...], rounds: int, **options: float) -> None:
    """Print what each kind of step takes, also relative to the first kind, and the paper's relative cost."""
    click.echo("defence           s   busy s    GiB    GFLOP   busy/first  GFLOP/first  formula/plain")
    first: Measured | None = None
    for kind in kinds or KINDS:
        step = Step(kind=kind, rounds=rounds, **options)  # type: ignore[arg-type]
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            found = pool.submit(measure, step).result()
        first = first or found
        formula = passes(step.defence, UCF101.pixels.steps) / PLAIN_PASSES
        click.echo(
            f"{kind:12} {found.seconds:6.1f} {found.busy_seconds:8.1f} {found.gibibytes:6.2f} {found.gigaflop:8.1f} "
            f"{found.busy_seconds / first.busy_seconds:12.2f} {found.gigaflop / first.gigaflop:12.2f} {formula:14.1f}"
        )


if __name__ == "__main__":
    main()
