"""The adaptive batch normalisation network (ABNN paper, section 2): a target beside a frozen substitute."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from abnn.layer import Adaptation, AdaptiveBatchNorm
from networks.normalise import Normalise


class ABNN(nn.Module):
    """Images (N, 3, H, W), or clips (N, 3, T, H, W), in [0, 1] -> logits (N, K), through both networks side by side.

    Behind each of some blocks of the target is an adaptive layer, fed by the substitute's feature of the same
    number. The substitute is never updated and stays in evaluation mode; gradients pass through both networks (ABNN
    paper, section 2). `put_beside` makes one of any two networks.

    Args:
        target: network whose logits are returned; it keeps the names of its modules.
        blocks: names of the target's modules behind which the layers are.
        substitute: images -> features by number: a dictionary with the keys "0", "1", ...
        layers: one a block.
        normalise: prepares colours for the target; None does it by ImageNet's mean and deviation, for images.
        normalise_substitute: prepares them for the substitute; None does it in the same way.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from advbn_gen import ABNN, put_beside
        >>> target = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
        >>> network = put_beside(target, nn.Sequential(nn.Conv2d(3, 4, 3)), blocks=["0"], taps=["0"], size=(32, 32))
        >>> isinstance(network, ABNN), network(torch.rand(2, 3, 32, 32)).shape
        (True, torch.Size([2, 10]))
        >>> network.train().substitute.training, len(network.adaptations(torch.rand(2, 3, 32, 32)))
        (False, 1)
    """

    def __init__(  # noqa: PLR0913, PLR0917 (its parts)
        self,
        target: nn.Module,
        blocks: Sequence[str],
        substitute: nn.Module,
        layers: Sequence[AdaptiveBatchNorm],
        normalise: nn.Module | None = None,
        normalise_substitute: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.normalise, self.target = normalise or Normalise(), target
        self.normalise_substitute = normalise_substitute or self.normalise
        self.substitute = substitute.requires_grad_(False).eval()
        self.layers = nn.ModuleList(layers)
        self._adaptations: Sequence[Adaptation] = ()
        for number, block in enumerate(blocks):
            target.get_submodule(block).register_forward_hook(partial(self._adapted, number))

    def train(self, mode: bool = True) -> "ABNN":
        """Set training mode, of everything but the substitute: its running statistics must not move."""
        super().train(mode)
        self.substitute.eval()
        return self

    def adaptations(self, image: Tensor) -> list[Adaptation]:
        """Return the substitute's adaptation of each layer to images."""
        features = self.substitute(self.normalise_substitute(image))
        return [layer.adapt(features[str(number)]) for number, layer in enumerate(self.layers)]  # type: ignore[operator]

    def logits(self, image: Tensor, adaptations: Sequence[Adaptation]) -> Tensor:
        """Return the target's logits for images under given adaptations of its layers."""
        self._adaptations = adaptations
        try:
            logits: Tensor = self.target(self.normalise(image))
        finally:
            self._adaptations = ()
        return logits

    def forward(self, image: Tensor) -> Tensor:
        """Images -> logits."""
        return self.logits(image, self.adaptations(image))

    def _adapted(self, number: int, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        adapted: Tensor = self.layers[number](output, self._adaptations[number])
        return adapted
