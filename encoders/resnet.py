"""ResNet-50 up to the end of conv2_3, torchvision's `layer1` (paper: the encoder of ImageNet-AdvBN-ResNet)."""

from collections import OrderedDict

from torch import nn

from basics.errors import UserError
from encoders.registry import EncoderKind, register
from networks.checkpoints import StateDict
from networks.classifiers import build_network
from networks.cuts import RECTIFIED
from networks.normalise import Normalise

FRONT = ("conv1", "bn1", "relu", "maxpool", "layer1")
"""torchvision's names of the modules up to conv2_3."""


def build(width: float = 1.0) -> nn.Sequential:
    """Build the front of torchvision's ResNet-50 behind ImageNet's normalisation.

    (N, 3, H, W) in [0, 1] -> (N, 256 * width, H / 4, W / 4). Used in eval mode: batch norm is a fixed affine map.
    """
    network = build_network("resnet50", classes=1, width=width)
    front = OrderedDict((name, getattr(network, name)) for name in FRONT)
    return nn.Sequential(OrderedDict(normalise=Normalise(), **front))


def convert(state: StateDict) -> tuple[StateDict, str]:
    """Return the part of a torchvision ResNet-50 state dict that `build` needs.

    Raises:
        UserError: the names are not those of a ResNet-50.
    """
    kept = {name: value for name, value in state.items() if name.split(".")[0] in FRONT}
    if "layer1.2.bn3.running_var" not in kept:
        raise UserError(
            "The encoder weights are not a ResNet-50 (no layer1.2.bn3.running_var); give torchvision's resnet50."
        )
    # The first stage of a deeper ResNet has the shapes of ResNet-50's, but was trained in another network.
    if "layer3.6.conv1.weight" in state:
        raise UserError("The encoder weights are of a ResNet-101 or deeper; give torchvision's resnet50.")
    return kept, "torchvision"


register(
    EncoderKind(
        name="resnet",
        channels=256,
        reduction=4,
        limits=RECTIFIED,
        classifier="resnet50",
        build=build,
        convert=convert,
    )
)
