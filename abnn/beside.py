"""A target put beside a substitute: adaptive layers behind the target's blocks, of the shapes that they get."""

from collections.abc import Sequence

from torch import nn

from abnn.layer import AdaptiveBatchNorm, LayerConfig
from abnn.network import ABNN
from abnn.stages import shapes_of, tapped
from basics.errors import UserError
from networks.normalise import Normalise
from networks.shapes import like_weights


def put_beside(  # noqa: PLR0913 (two networks, where, and how)
    target: nn.Module,
    substitute: nn.Module,
    *,
    blocks: Sequence[str],
    taps: Sequence[str],
    size: Sequence[int],
    layer: LayerConfig | None = None,
    normalise: nn.Module | None = None,
    normalise_substitute: nn.Module | None = None,
    names: tuple[str, str] = ("target", "substitute"),
) -> ABNN:
    """Return a network of one's own as an adaptive batch normalisation network (ABNN paper, section 2).

    It takes images (N, 3, H, W) or clips (N, 3, T, H, W) in [0, 1] and returns the target's logits (N, K). Both
    networks become part of it, and all of it gets the device and the data type of the target.

    Args:
        target: the network whose logits are returned and whose weights learn.
        substitute: the network beside it, trained on other data; it is frozen.
        blocks: names of the target's modules behind which it is adapted.
        taps: names of the substitute's modules whose features adapt it, as many.
        size: (H, W) of the images, or (T, H, W) of the clips.
        layer: variant of the adaptive layers; None takes the default.
        normalise: prepares colours for the target; None: by ImageNet's mean and deviation.
        normalise_substitute: prepares them for the substitute; None: in the same way.
        names: what messages call the two networks.

    Raises:
        UserError: there are no such modules, they are not as many, or the networks do not take the size.

    Example:
        >>> import torch
        >>> from torchvision.models import resnet18
        >>> from advbn_gen import put_beside
        >>> target, substitute = resnet18(num_classes=10), resnet18(num_classes=5)
        >>> blocks = ["layer1", "layer2"]
        >>> network = put_beside(target, substitute, blocks=blocks, taps=blocks, size=(32, 32))
        >>> network(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    if len(blocks) != len(taps):
        raise UserError(
            f"The {names[0]} has {len(blocks)} blocks and the {names[1]} {len(taps)}; name as many modules of each "
            "with --blocks and --taps."
        )
    shapes = zip(shapes_of(target, blocks, size, names[0]), shapes_of(substitute, taps, size, names[1]), strict=True)
    layers = [AdaptiveBatchNorm(shape[0], substitute_shape, layer) for shape, substitute_shape in shapes]
    normalise = normalise or Normalise(axes=len(size))
    network = ABNN(target, blocks, tapped(substitute, taps, names[1]), layers, normalise, normalise_substitute)
    return network.to(like_weights(target))
