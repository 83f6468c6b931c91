"""Networks compiled by torch.compile, on the CPU: the same results, and what is recorded and refused."""

import json
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from attacks.statistics import AdvBNConfig
from basics.compute import choose_compute
from basics.errors import UserError
from decoders.autoencoder import load_autoencoder
from pipeline import compiled
from pipeline.batch_arithmetic import PerturbedBatch, Perturber, Shifter
from pipeline.compiled import CompiledForSize, compiler_of
from pipeline.generate import generate_shard
from pipeline.job import Job
from pipeline.outcome import Outcome
from tests.pipeline.world import World, members, tar_of
from tests.support import advbn_gen, refused, seeded

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


class Counted(nn.Module):
    """A network that counts the passes that Python code of its own makes: a compiled one makes none."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = 0

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_compiling():
            self.plain += 1
        return value.relu() + 1


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's quick backend, which captures networks as the usual one does, but generates no code for them."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


@pytest.mark.usefixtures("quick")
def test_only_passes_of_the_size_are_compiled() -> None:
    network = Counted()
    both = CompiledForSize(network, 4)
    for size in (4, 3, 4, 1):
        value = torch.arange(float(size)) - 1
        assert torch.equal(both(value), value.relu() + 1)
    assert network.plain == 2


@needs_compiler
@pytest.mark.slow
def test_compiled_networks_make_the_same_images_in_double_precision(world: World) -> None:
    """A batch of 4 in passes of 3 and 1: one compiled, the other not."""
    dice = torch.Generator().manual_seed(0)
    image = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8, generator=dice)
    label = torch.tensor([0, 1, 2, 3])

    def perturbed(compiled_size: int | None) -> PerturbedBatch:
        with seeded(1):
            classifier = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 7 * 7, 4))
        autoencoder = load_autoencoder(world.autoencoder).module
        shifter = Shifter(autoencoder, choose_compute("cpu", "fp64"), micro_batch=3, compiled_size=compiled_size)
        return Perturber(shifter, classifier)(image, label, AdvBNConfig(steps=2))

    compiler_of(torch.device("cpu"))
    plain, found = perturbed(None), perturbed(3)
    assert torch.equal(found.perturbed_N3HW, plain.perturbed_N3HW)
    assert torch.equal(found.delta_std_C, plain.delta_std_C)
    torch.testing.assert_close(found.losses_SN, plain.losses_SN, rtol=1e-9, atol=1e-12)
    assert not torch.equal(plain.perturbed_N3HW, plain.reconstructed_N3HW)


@needs_compiler
@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_compiled_run_is_recorded_refused_and_repaired_as_such(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    half = world.half()
    assert half.make(out, "--compile", micro_batch=3).code == 0
    arithmetic = json.loads((out / "manifest.json").read_text())["identity"]["arithmetic"]
    assert re.search(r"g\+\+|GCC|clang", arithmetic["compiled"])
    before = members(tar_of(out, 0))
    tar_of(out, 0).write_bytes(b"")
    assert "arithmetic.compiled" in refused(*half.words(out, micro_batch=3))
    assert advbn_gen("verify", out, "--repair").code == 0
    assert members(tar_of(out, 0)) == before
    rendered = advbn_gen(
        "render", out / "perturbations.h5", "--source", world.source, "--autoencoder", world.autoencoder,
        "--out", tmp_path / "rendered", "--json",
    )  # fmt: skip
    assert rendered.code == 0, rendered.err
    assert not rendered.result["bytes_promised"], "rendering compiles nothing, and says that it differs"


def test_a_missing_compiler_is_said_before_any_work(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor.exc import InvalidCxxCompiler

    def missing() -> str:
        raise InvalidCxxCompiler

    compiler_of.cache_clear()
    monkeypatch.setattr(compiled, "_cpp_compiler", missing)
    said = refused(*world.words(tmp_path / "out", "--compile"))
    assert "--compile needs a C++ compiler such as g++ that works" in said
    assert "leave out --compile." in said
    assert not (tmp_path / "out").exists()


def test_a_device_that_nothing_is_compiled_for_is_refused() -> None:
    with pytest.raises(UserError, match="not compiled on mps; leave out --compile"):
        compiler_of(torch.device("mps"))


def test_a_network_that_cannot_be_compiled_ends_the_run(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import FailOnRecompileLimitHit

    def fail(_: object) -> None:
        raise FailOnRecompileLimitHit("too many variants")

    job.datasets[0].folder.mkdir()
    monkeypatch.setattr(job.source, "read", fail)
    result = generate_shard(job, 3)
    assert result.outcome is Outcome.FATAL
    assert result.reason == "shard 3: A network cannot be compiled (too many variants); leave out --compile."
