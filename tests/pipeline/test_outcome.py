"""The outcome of each kind of error in the work on a shard."""

import errno
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from basics.errors import UserError, WorkError
from basics.ownership import FolderTakenError
from pipeline.generate import generate_shard
from pipeline.job import Job
from pipeline.outcome import Outcome
from pipeline.perturbation import Ascent


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (WorkError("the image is broken"), Outcome.FAILED),
        (UserError("the store has no such credentials"), Outcome.FAILED),
        (FolderTakenError(Path("out")), Outcome.FATAL),
        (OSError(errno.EIO, "the disk does not answer"), Outcome.TRANSIENT),
        (OSError(errno.ENOSPC, "the disk is full"), Outcome.MACHINE_FAULT),
        (OSError(errno.EDQUOT, "the quota is used up"), Outcome.MACHINE_FAULT),
        (OSError(errno.EFBIG, "the file is too large"), Outcome.MACHINE_FAULT),
        (MemoryError("of the CPU"), Outcome.MACHINE_FAULT),
        (torch.OutOfMemoryError("of the GPU"), Outcome.MACHINE_FAULT),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), Outcome.MACHINE_FAULT),
    ],
)
def test_an_error_has_one_outcome(
    job: Job, monkeypatch: pytest.MonkeyPatch, error: Exception, outcome: Outcome
) -> None:
    def fail(_: object) -> NoReturn:
        raise error

    job.datasets[0].folder.mkdir()
    monkeypatch.setattr(job.source, "read", fail)
    result = generate_shard(job, 3)
    assert result.outcome is outcome
    assert result.reason.startswith("shard 3: ")
    assert str(error) in result.reason


def test_full_memory_is_answered_with_what_the_command_has(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> NoReturn:
        raise MemoryError

    job.datasets[0].folder.mkdir()
    monkeypatch.setattr(job.source, "read", fail)
    assert "Give a smaller --micro-batch" in generate_shard(job, 3).reason
    monkeypatch.setattr(Ascent, "rendered", {"ledger": "perturbations.h5"})
    reason = generate_shard(job, 3).reason
    assert "--micro-batch" not in reason
    assert "--device cpu" in reason


def test_an_unknown_error_is_not_hidden(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> NoReturn:
        raise RuntimeError("CUDA error")

    job.datasets[0].folder.mkdir()
    monkeypatch.setattr(job.source, "read", fail)
    with pytest.raises(RuntimeError, match="CUDA error"):
        generate_shard(job, 3)


def test_a_process_that_cannot_load_the_networks_is_the_wrong_environment(job: Job, tmp_path: Path) -> None:
    """The shard is not to blame, and another process makes it."""
    config = replace(job.config, autoencoder=str(tmp_path / "none.safetensors"))
    result = generate_shard(replace(job, requirements=replace(job.requirements, config=config)), 3)
    assert result.outcome is Outcome.WRONG_ENVIRONMENT
    assert "none.safetensors" in result.reason
