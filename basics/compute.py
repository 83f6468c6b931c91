"""The device and the precision in which networks run."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import nn

from basics.allocation import keep_freed_memory
from basics.errors import UserError

Precision = Literal["fp32", "tf32", "bf16", "fp64"]
PRECISIONS = ("auto", *get_args(Precision))

_AMPERE = (8, 0)


@dataclass(frozen=True, kw_only=True)
class Compute:
    """A device and a precision. All that computes with the same object uses the same arithmetic."""

    device: torch.device
    """Device that networks and images are on."""
    precision: Precision
    """Type or mode of arithmetic."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of weights and images (autocast lowers it inside a bf16 run)."""
        return torch.float64 if self.precision == "fp64" else torch.float32

    def training_layout(self, network: nn.Module) -> torch.memory_format:
        """Return the memory format of a network and its images while it is trained: channels_last where it is faster.

        Not on the CPU: there torch 2.15's weight gradient of a strided 1x1 convolution with 4 channels writes past its
        memory in this layout. And not for clips, whose 3D convolutions have weights of five axes.
        """
        images = all(weight.ndim < 5 for weight in network.parameters())
        return torch.channels_last if self.device.type == "cuda" and images else torch.contiguous_format

    @property
    def kind(self) -> str:
        """Hardware kind, for manifests: the promise of equal bytes holds within one kind."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type

    @contextmanager
    def kernels(self) -> Iterator[None]:
        """Set torch's global switches for this precision and for repeatable kernels, and restore them afterwards."""
        before = (
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.allow_tf32,
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.benchmark,
        )
        tf32 = self.precision == "tf32"
        try:
            torch.set_float32_matmul_precision("high" if tf32 else "highest")
            torch.backends.cudnn.allow_tf32 = tf32
            torch.backends.cudnn.deterministic = True
            torch.backends.cudnn.benchmark = False
            yield
        finally:
            torch.set_float32_matmul_precision(before[0])
            torch.backends.cudnn.allow_tf32 = before[1]
            torch.backends.cudnn.deterministic = before[2]
            torch.backends.cudnn.benchmark = before[3]

    def autocast(self) -> torch.autocast:
        """Return the context in which convolutions run in bf16, if that is the precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def choose_compute(device: str, precision: str) -> Compute:
    """Resolve `auto`: the first CUDA device if there is one, else the CPU; tf32 on Ampere and newer, else fp32.

    Everything that runs a network begins here, so this is also where the process begins to keep the memory that it
    frees.

    Raises:
        UserError: no such device, or a precision that it does not have.
    """
    keep_freed_memory()
    chosen = torch.device(_device_name(device))
    if precision == "auto":
        newer = chosen.type == "cuda" and torch.cuda.get_device_capability(chosen) >= _AMPERE
        return Compute(device=chosen, precision="tf32" if newer else "fp32")
    if precision not in get_args(Precision):
        raise UserError(f"The precision is {precision!r}; give one of {', '.join(PRECISIONS)}.")
    if precision == "tf32" and chosen.type != "cuda":
        raise UserError(f"The precision tf32 exists on CUDA devices only, not on {chosen.type}; give fp32.")
    if precision == "fp64" and chosen.type == "mps":
        raise UserError("The precision fp64 does not exist on mps; give --device cpu.")
    return Compute(device=chosen, precision=precision)  # type: ignore[arg-type]


def _device_name(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind, index = torch.device(device).type, torch.device(device).index or 0
    except RuntimeError as error:
        raise UserError(f"There is no device {device!r}; give auto, cpu, cuda, cuda:N or mps.") from error
    present = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }.get(kind, 0)
    if index >= present:
        raise UserError(f"The device {device} is not on this machine; give --device auto or cpu.")
    return device


def machine_kind(device: torch.device) -> str:
    """Return the kind of machine that computes: a GPU's name, or the processor's and its cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    return f"{processor}, {available_cores()} cores" + ("" if device.type == "cpu" else f", {device.type}")


def available_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
