"""Where the time of one batch goes on a CPU, and how much of the machine's own matrix rate the ascent reaches.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.batch_profile --source IMAGES --image-size 256 --batch-size 8

In one run: the rate of a large matrix product, one batch through the perturbation with its time, page faults and busy
threads, and the same batch under torch's profiler, by kind of operation. Operations are counted by torch from the
convolutions and products that are really carried out.
"""

import resource
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import matrix_rate
from benchmarks.workload import loaded_batches, run_text, workload, workload_options
from pipeline.job import Job, Product, prepare
from pipeline.worker import ready_worker

KINDS = {
    "convolution, backward": ("convolution_backward",),
    "convolution, forward": ("conv",),
    "matrix product": ("mm", "linear"),
    "padding and joining (concatenation)": ("cat", "pad"),
    "copies and changes of layout": ("copy", "clone", "contiguous", "_to_copy", "fill", "zero"),
    "pooling": ("pool",),
    "batch norm": ("batch_norm",),
    "ReLU and other arithmetic by element": (
        "relu", "threshold", "add", "mul", "div", "sub", "clamp", "sign", "sum", "mean", "softmax", "nll", "where",
    ),
}  # fmt: skip
"""Kind of operation -> parts of the operators' names, the first that fits counts."""
OTHER = "other operators"
GEMM_SIDE = 3072


@dataclass(frozen=True)
class Pass:
    """What one batch took."""

    seconds: float
    busy_seconds: float
    """Summed over threads."""
    page_faults: int
    switches: int
    """Times that a thread had to wait and another got its core."""


@click.command()
@workload_options
@click.option("--rounds", default=2, show_default=True)
@click.option("--gemm-side", default=GEMM_SIDE, show_default=True, help="Side of the square matrices.")
def main(rounds: int, gemm_side: int, **settings: Any) -> None:
    """Print the rates, the shares of the kinds, page faults and busy threads."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = workload(folder, **{**settings, "batches": 1})
        job = prepare(config, (Product(folder=folder / "out", name="benchmark", perturbed=True),))
        work, compute = _work(job), ready_worker(job.requirements).shifter.compute
        work()  # warms up
        operations = _operations(work)
        shares, rates = [], []
        for _ in range(rounds):
            before, done, after = matrix_rate(compute, gemm_side), measured(work), matrix_rate(compute, gemm_side)
            rate = statistics.mean((before, after))
            rates.append(operations / done.seconds)
            shares.append(rates[-1] / rate)
            click.echo(
                f"{done.seconds:.2f} s, {rates[-1] / 1e9:.1f} GFLOP/s of {rate / 1e9:.1f} ({shares[-1]:.1%}); threads "
                f"busy {done.busy_seconds / done.seconds / torch.get_num_threads():.1%} of the time; "
                f"{done.page_faults} page faults, {done.switches} waits"
            )
        _print_kinds(work)
    click.echo(
        f"{operations / 1e9:.0f} GFLOP a batch; median {statistics.median(shares):.1%} of the rate of a product of "
        f"{gemm_side} x {gemm_side} matrices ({run_text(job)})"
    )


def _work(job: Job) -> Callable[[], object]:
    perturber = ready_worker(job.requirements).perturber
    assert perturber is not None
    ((image, label),) = loaded_batches(job)
    return lambda: perturber(image, label, job.config.attack)


def _operations(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def measured(work: Callable[[], object]) -> Pass:
    """Do some work, and return what it took."""
    used, start, busy = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter(), time.process_time()
    work()
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    now = resource.getrusage(resource.RUSAGE_SELF)
    return Pass(seconds, busy, now.ru_minflt - used.ru_minflt, now.ru_nvcsw - used.ru_nvcsw)


def _print_kinds(work: Callable[[], object]) -> None:
    start = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        work()
    wall = time.perf_counter() - start
    seconds = Counter[str]()
    for event in found.key_averages():
        seconds[kind_of(event.key)] += event.self_cpu_time_total / 1e6
    for kind, value in seconds.most_common():
        click.echo(f"{value / wall:7.1%}  {kind}")
    click.echo(f"{1 - sum(seconds.values()) / wall:7.1%}  between operators (Python, the profiler itself)")


def kind_of(operator: str) -> str:
    """Return the kind of an operator such as `aten::mkldnn_convolution`."""
    name = operator.rpartition("::")[2]
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), OTHER)


if __name__ == "__main__":
    main()
