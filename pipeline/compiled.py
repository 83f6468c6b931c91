"""Networks compiled by torch.compile for passes of one size; needs a C++ compiler on a CPU, and Triton on a GPU.

Legend: N images of a pass.
"""

import subprocess
import sys
import warnings
from functools import cache
from importlib import import_module

import torch
from torch import Tensor, nn

from basics.errors import UserError
from basics.progress import say

_COMPILABLE = ("cpu", "cuda")
_OWN_WARNING = r"The \.grad attribute of a Tensor that is not a leaf"
_RECOMPILE_LIMIT = 64
"""Variants of one function: networks share the code of torch's modules, and each is compiled with gradients and
without. torch's own limit is 8, beyond which it goes on uncompiled without a word."""


class CompiledForSize(nn.Module):
    """A network compiled for passes of `size` samples; a pass of another size, such as a last one, is not compiled.

    Args:
        network: the network; it may be moved and converted until the first pass.
        size: samples in a pass.
    """

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network, self.size = network, size
        self.compiled = torch.compile(network, dynamic=False)

    def forward(self, value_N: Tensor) -> Tensor:
        """Return what the network returns."""
        if len(value_N) != self.size:
            plain: Tensor = self.network(value_N)
            return plain
        _ignore_torchs_own_look_at_gradients()
        result: Tensor = self.compiled(value_N)
        return result


def _ignore_torchs_own_look_at_gradients() -> None:
    """Ignore a warning that torch causes itself where it compiles: it looks at this attribute of all that is passed.

    Set again at every pass and not taken back, as in `sources.decode`: decoding threads set filters of their own.
    """
    first = warnings.filters[0] if warnings.filters else None
    if first is None or getattr(first[1], "pattern", None) != _OWN_WARNING:
        warnings.filterwarnings("ignore", _OWN_WARNING)


@cache
def compiler_of(device: torch.device) -> str:
    """Return name and version of the compiler for a device, after trying it, and let torch's compilation be repeatable.

    Raises:
        UserError: there is none, or it does not work.
    """
    # Here, because these imports take seconds.
    from torch._dynamo import config as dynamo_config
    from torch._inductor import config as inductor_config

    if device.type not in _COMPILABLE:
        raise UserError(f"Networks are not compiled on {device.type}; leave out --compile.")
    dynamo_config.recompile_limit = _RECOMPILE_LIMIT
    dynamo_config.fail_on_recompile_limit_hit = True
    if hasattr(inductor_config, "deterministic"):  # since torch 2.10
        inductor_config.deterministic = True
    say("Networks are compiled at their first passes, which takes minutes.")
    try:
        name = _triton() if device.type == "cuda" else _cpp_compiler()
        torch.compile(_tried)(torch.ones(2, device=device))
    except (RuntimeError, ImportError, OSError, subprocess.CalledProcessError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        needed = "Triton" if device.type == "cuda" else "a C++ compiler such as g++"
        raise UserError(
            f"--compile needs {needed} that works ({reason}); install it, or leave out --compile."
        ) from error
    return name


def _tried(value: Tensor) -> Tensor:
    return value * 2 + 1


def is_compilation_error(error: BaseException) -> bool:
    """Whether an error says that a network cannot be compiled."""
    dynamo = sys.modules.get("torch._dynamo.exc")
    return dynamo is not None and isinstance(error, dynamo.TorchDynamoException | dynamo.FailOnRecompileLimitHit)


def compilation_failure(error: BaseException) -> str:
    """Return a sentence on such an error, and what helps."""
    first_line = str(error).partition("\n")[0]
    return f"A network cannot be compiled ({first_line}); leave out --compile."


def _triton() -> str:
    # By its module: the distribution has other names for other GPUs.
    return f"triton {import_module('triton').__version__}"


def _cpp_compiler() -> str:
    from torch._inductor.cpp_builder import get_cpp_compiler

    command = [get_cpp_compiler(), "--version"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 (torch runs it, too)
    return shown.partition("\n")[0]
