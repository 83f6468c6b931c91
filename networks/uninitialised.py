"""Networks built only to be given weights: initialising those of a VGG-19 takes longer than reading them."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

_INITIALISE: set[Callable[..., Any]] = {init.uniform_, init.normal_, init.kaiming_uniform_}
"""Those functions of `torch.nn.init` that a mode sees."""
_DRAW: set[Callable[..., Any]] = {Tensor.uniform_, Tensor.normal_}
"""What the others call, some of them (`trunc_normal_`) until the numbers lie within bounds; 0 always does."""


class Uninitialised(TorchFunctionMode):
    """A context in which layers draw no random weights: their memory stays as it is, or is filled with 0.

    Constants are still set, and torch's random generators do not move. The network may only be used once all of its
    weights have been replaced (`networks.checkpoints.load_into`), or for its shapes.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call `func`, unless it draws random numbers into its first argument."""
        if func in _INITIALISE:
            return args[0] if args else kwargs["tensor"]
        if func in _DRAW:
            return args[0].zero_()
        return func(*args, **(kwargs or {}))
