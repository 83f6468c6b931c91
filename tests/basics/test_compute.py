"""Devices and precisions."""

import pytest
import torch

from basics.compute import Compute, choose_compute
from basics.errors import UserError


def switches() -> tuple[object, ...]:
    backend = torch.backends.cudnn
    return torch.get_float32_matmul_precision(), backend.allow_tf32, backend.deterministic, backend.benchmark


def test_auto_is_what_is_there() -> None:
    chosen = choose_compute("auto", "auto")
    assert chosen.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_compute("cpu", "auto") == Compute(device=torch.device("cpu"), precision="fp32")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.float32), ("fp64", torch.float64)]
)
def test_weights_have_the_type_of_the_precision(precision: str, dtype: torch.dtype) -> None:
    assert choose_compute("cpu", precision).dtype == dtype


@pytest.mark.parametrize(("precision", "lowered"), [("fp32", False), ("bf16", True)])
def test_only_bf16_lowers_convolutions(precision: str, lowered: bool) -> None:
    with choose_compute("cpu", precision).autocast():
        found = torch.nn.functional.conv2d(torch.zeros(1, 3, 4, 4), torch.zeros(2, 3, 3, 3)).dtype
    assert found == (torch.bfloat16 if lowered else torch.float32)


@pytest.mark.parametrize(
    ("device", "precision", "message"),
    [
        ("cpu", "tf32", "tf32 exists on CUDA devices only"),
        ("cpu", "fp16", "'fp16'; give one of auto, fp32, tf32, bf16, fp64"),
        ("tpu", "auto", "no device 'tpu'"),
        ("", "auto", "no device ''"),
        ("cuda:99", "auto", "cuda:99 is not on this machine"),
        ("cpu:3", "auto", "cpu:3 is not on this machine"),
        ("meta", "auto", "meta is not on this machine"),
    ],
)
def test_what_does_not_exist_is_refused(device: str, precision: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose_compute(device, precision)


def test_switches_are_set_inside_and_put_back_after() -> None:
    before = switches()
    with choose_compute("cpu", "fp32").kernels():
        assert switches() == ("highest", False, True, False)
    assert switches() == before
    with Compute(device=torch.device("cpu"), precision="tf32").kernels():
        assert switches() == ("high", True, True, False)
    assert switches() == before


def test_switches_are_put_back_after_an_error() -> None:
    before = switches()
    torch.backends.cudnn.benchmark = True
    try:
        with pytest.raises(RuntimeError), choose_compute("cpu", "fp64").kernels():
            raise RuntimeError
        assert torch.backends.cudnn.benchmark is True
    finally:
        torch.backends.cudnn.benchmark = bool(before[3])
    assert switches() == before
