"""Description of an encoder, and the registry of all encoders."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from basics.errors import UserError
from networks.checkpoints import StateDict
from networks.cuts import Limits
from networks.width import scaled

_SMALLEST_FEATURE_SIDE = 2
"""Reflection padding of one position needs a second one to mirror."""


@dataclass(frozen=True, kw_only=True)
class EncoderKind:
    """One kind of encoder, such as the paper's two (appendix B.1).

    Its network maps images (N, 3, H, W) in [0, 1] to features (N, channels * width, H / reduction, W / reduction);
    whatever normalisation it needs happens inside.

    Attributes:
        name: its name on the command line.
        channels: feature channels at full width.
        reduction: pixels of the image's side per feature position.
        limits: least and greatest feature, such as of a ReLU; perturbed features are held to them, too (published
            code).
        classifier: classifier that the ascent attacks by default: torchvision's name, or `timm:NAME`.
        build: width -> network with fresh weights.
        convert: published state dict (any accepted form) -> state dict of the network, and the form's name; raises
            UserError if the form is unknown.
        network: of a network's front, the network (see `encoders.fronts`): it is whole, and a width is the decoder's
            alone.

    Example:
        >>> from torch import nn
        >>> from advbn_gen import EncoderKind
        >>> kind = EncoderKind(
        ...     name="patches", channels=8, reduction=4, limits=(0, float("inf")), classifier="resnet18",
        ...     build=lambda width: nn.Sequential(nn.Conv2d(3, int(8 * width), 4, stride=4), nn.ReLU()),
        ...     convert=lambda state: (state, "ours"),
        ... )
        >>> kind.name, kind.build(0.5)[0].out_channels
        ('patches', 4)
    """

    name: str
    channels: int
    reduction: int
    limits: Limits
    classifier: str
    build: Callable[[float], nn.Module]
    convert: Callable[[StateDict], tuple[StateDict, str]]
    network: str | None = None

    def require_size(self, image_size: int) -> None:
        """Check the side of the images.

        Raises:
            UserError: the encoder cannot halve it evenly, or it is too small for its padding.
        """
        least = _SMALLEST_FEATURE_SIDE * self.reduction
        if image_size % self.reduction or image_size < least:
            raise UserError(
                f"The image size is {image_size}, but the encoder {self.name} needs a multiple of "
                f"{self.reduction}, at least {least}; the published size is 256."
            )

    def knows(self, state: StateDict) -> bool:
        """Return whether a state dict is of a form that `convert` takes, as far as its names say."""
        try:
            self.convert(state)
        except UserError:
            return False
        return True

    def width_of(self, state: StateDict) -> float:
        """Return the width of a converted state dict, derived from its last convolution.

        Raises:
            UserError: it has no convolution.
        """
        kernels = [value for value in state.values() if value.ndim == 4]
        if not kernels:
            raise UserError(f"The {self.name} encoder weights hold no convolution; give another file.")
        return kernels[-1].shape[0] / self.channels

    def feature_channels(self, width: float) -> int:
        """Return the number of feature channels at a width; a network's front has all of them at any."""
        return self.channels if self.network else scaled(self.channels, width)


ENCODERS: dict[str, EncoderKind] = {}


def register(kind: EncoderKind) -> EncoderKind:
    """Add an encoder to the registry, beside the paper's (appendix B.1); it is then known by its name.

    Other processes of a run know it only if an installed package registers it, see docs/extending.md.

    Args:
        kind: the encoder.

    Raises:
        UserError: there is one of that name.

    Example:
        >>> from torch import nn
        >>> from advbn_gen import EncoderKind, register_encoder
        >>> kind = EncoderKind(
        ...     name="registered-patches", channels=8, reduction=4, limits=(0, float("inf")), classifier="resnet18",
        ...     build=lambda width: nn.Sequential(nn.Conv2d(3, int(8 * width), 4, stride=4), nn.ReLU()),
        ...     convert=lambda state: (state, "ours"),
        ... )
        >>> register_encoder(kind) is kind
        True
    """
    if kind.name in ENCODERS:
        raise UserError(f"There is an encoder {kind.name} already; give this one another name.")
    ENCODERS[kind.name] = kind
    return kind
