"""Two real processes that share a batch perturb it as one process does the whole, if statistics are synchronised."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed

from attacks.statistics import AdvBNConfig, one_process
from downstream.advbn import AdvBNNetwork
from downstream.task import over_processes
from networks.classifiers import build_network
from networks.cuts import cut_of
from tests.processes import preloaded
from tests.support import seeded, with_lived_in_batch_norm

BATCH = 6
LABEL = torch.tensor([0, 1, 2, 3, 0, 1])


def network(*, synchronised: bool) -> AdvBNNetwork:
    with seeded(0):
        plain = with_lived_in_batch_norm(build_network("resnet18", 4, 1 / 8)).double()
    average = over_processes if synchronised else one_process
    return AdvBNNetwork(plain, cut_of("resnet18"), AdvBNConfig(), average).double()


def features(net: AdvBNNetwork) -> Tensor:
    image = torch.randn(BATCH, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    # Halves with very different statistics.
    image[::2] *= 3
    return net.features(image)


def part(rank: int, meeting: Path, out: Path) -> None:
    """What one of the two processes does: perturb its half, with both kinds of statistics."""
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    found = {}
    for synchronised in (True, False):
        net = network(synchronised=synchronised)
        found[str(synchronised)] = torch.stack(net.perturb(features(net)[rank::2], LABEL[rank::2]).deltas)
    torch.save(found, out / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_both_processes_perturb_as_one_does_the_whole(tmp_path: Path) -> None:
    processes = [preloaded().Process(target=part, args=(rank, tmp_path / "meeting", tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    net = network(synchronised=False)
    whole = torch.stack(net.perturb(features(net), LABEL).deltas)
    assert torch.equal(first["True"], second["True"])
    assert torch.allclose(first["True"], whole)
    # Each process by itself goes another way.
    assert not torch.allclose(first["False"], second["False"])
    assert not torch.allclose(first["False"], whole)
    assert torch.equal(over_processes(whole), whole), "one process alone needs no partner"
