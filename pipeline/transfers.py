"""Copies between the CPU and a device; with a CUDA device neither side waits for the other.

On other devices these are plain copies.
"""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(value: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device. A CUDA device copies it when it comes to it, and the CPU goes on meanwhile."""
    if device.type != "cuda":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)


class Arrivals:
    """Tensors on their way to the CPU, whose values are there once `wait` has returned."""

    def __init__(self) -> None:
        self._event: torch.cuda.Event | None = None

    def to_host(self, value: Tensor) -> Tensor:
        """Return a tensor on the CPU that will have the values of `value`."""
        if value.device.type != "cuda":
            return value.cpu()
        host = torch.empty_like(value, device="cpu", pin_memory=True).copy_(value, non_blocking=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record(torch.cuda.current_stream(value.device))
        return host

    def wait(self) -> None:
        """Wait until every tensor has arrived."""
        if self._event is not None:
            self._event.synchronize()
