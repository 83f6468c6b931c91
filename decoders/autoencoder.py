"""Encoder and decoder together, as one file with metadata."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from basics.errors import UserError
from decoders.adain import build_decoder
from encoders import EncoderKind, encoder_kind
from networks.checkpoints import (
    StateDict,
    load_into,
    own_metadata,
    read_metadata,
    read_safetensors,
    read_weights,
    weights_checksum,
    write_safetensors,
)
from networks.classifiers import classifier_metadata, given_colours
from networks.normalise import Normalise
from networks.specs import load_with_weights
from networks.weight_files import AUTOENCODER_FILE
from networks.width import require_width

FORMAT = "advbn-gen autoencoder"
VERSION = 1


class Autoencoder(nn.Module):
    """A frozen encoder with its decoder: images (N, 3, H, W) in [0, 1] -> reconstructions of the same shape."""

    def __init__(self, kind: EncoderKind, width: float = 1.0) -> None:
        super().__init__()
        require_width(width)
        self.kind, self.width = kind, width
        self.encoder = kind.build(width).requires_grad_(False).eval()
        self.decoder = build_decoder(kind, width)

    def train(self, mode: bool = True) -> "Autoencoder":
        """Switch the decoder's mode; the encoder stays in eval mode, its batch norm is fixed."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, image_N3HW: Tensor) -> Tensor:
        """Reconstruct images; the result is not clamped."""
        decoded: Tensor = self.decoder(self.encoder(image_N3HW))
        return decoded


@dataclass(frozen=True, kw_only=True)
class AutoencoderFile:
    """An autoencoder as it was read, with its file's metadata."""

    module: Autoencoder
    encoder_form: str
    """Form of the encoder's weights, `adain` or `torchvision`, which implies how colours are prepared; of a network's
    front, their origin (see `networks.classifiers.Classifier.weights`)."""
    checksum: str
    """SHA-256 over all weights."""
    origin: dict[str, Any] = field(default_factory=dict)
    """How it was trained or imported."""

    def summary(self) -> dict[str, Any]:
        """Return its entry in a manifest."""
        return {
            "encoder": self.module.kind.name,
            "width": self.module.width,
            "encoder_form": self.encoder_form,
            "sha256": self.checksum,
        }


def save_autoencoder(path: Path, module: Autoencoder, encoder_form: str, origin: dict[str, Any]) -> None:
    """Write `autoencoder.safetensors` atomically: its weights, and as metadata what they are and how they were made."""
    state = module.state_dict()
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "encoder": module.kind.name,
        "encoder_form": encoder_form,
        "width": module.width,
        "sha256": weights_checksum(state),
        "encoder_sha256": weights_checksum(module.encoder.state_dict()),
        "decoder_sha256": weights_checksum(module.decoder.state_dict()),
        "facts": origin,
    }
    write_safetensors(path, state, metadata)


def load_autoencoder(path: Path, encoder: str | None = None) -> AutoencoderFile:
    """Read an autoencoder, in eval mode, every weight checked against the file's own checksum.

    Args:
        path: a file that `save_autoencoder` wrote, or the run folder that holds it.
        encoder: refuse any other encoder than this.

    Raises:
        UserError: missing, truncated, damaged or foreign file; a newer version; another encoder.
    """
    path = _file_of(path)
    state, stored = read_safetensors(path)
    metadata = own_metadata(stored, FORMAT)
    if not metadata:
        raise UserError(
            f"The file {path} is not an autoencoder of this program; make one with "
            "`advbn-gen train-autoencoder` or `advbn-gen import-autoencoder`."
        )
    if metadata["version"] > VERSION:
        raise UserError(f"The autoencoder {path} was written by a newer advbn-gen; update this one.")
    if encoder is not None and metadata["encoder"] != encoder:
        raise UserError(
            f"The autoencoder {path} has the encoder {metadata['encoder']}, not {encoder}; "
            f"give --encoder {metadata['encoder']} or another --autoencoder."
        )
    if weights_checksum(state) != metadata["sha256"]:
        raise UserError(
            f"The autoencoder {path} is damaged: its weights do not match its checksum; fetch or make it again."
        )
    module = Autoencoder(encoder_kind(metadata["encoder"]), metadata["width"])
    load_into(module, state, f"the autoencoder in {path}")
    module.eval().requires_grad_(False)
    return AutoencoderFile(
        module=module, encoder_form=metadata["encoder_form"], checksum=metadata["sha256"], origin=metadata["facts"]
    )


def _file_of(path: Path) -> Path:
    """Return the file that a path means: itself, or the one in a run folder.

    Raises:
        UserError: it is a folder without an autoencoder.
    """
    if not path.is_dir():
        return path
    file = path / AUTOENCODER_FILE
    if not file.is_file():
        raise UserError(
            f"The folder {path} holds no {AUTOENCODER_FILE}; give a run folder of `advbn-gen train-autoencoder`, or a "
            "file."
        )
    return file


def require_encoder(path: Path, kind: EncoderKind, weights: str) -> None:
    """Refuse an autoencoder around another front, or around one with other weights.

    Args:
        path: an autoencoder's file, or its run folder.
        kind: encoder that is a network's front.
        weights: weights of its network (see `networks.specs.split_spec`).

    Raises:
        UserError: see above, or the weights cannot be had.
    """
    autoencoder = load_autoencoder(path, kind.name)
    expected, _ = kind.convert(network_state(kind, weights)[0])
    if weights_checksum(autoencoder.module.encoder.state_dict()) != weights_checksum(expected):
        raise UserError(
            f"The autoencoder {path} is around other weights of {kind.network} ({autoencoder.encoder_form}) than "
            f"--encoder says ({weights}); give one that was trained with these."
        )


def network_state(kind: EncoderKind, weights: str) -> tuple[StateDict, str]:
    """Return all weights of the network of which an encoder is the front, and their origin.

    Raises:
        UserError: they cannot be had, or are of a narrower network.
    """
    network = str(kind.network)
    try:
        found = load_with_weights(network, weights, None, "--encoder")
    except UserError as error:
        # The module belongs to what is to be given instead: the network alone is no encoder.
        behind = kind.name.removeprefix(network)
        raise UserError(str(error).replace(f"{network}=FILE", f"{network}=FILE{behind}")) from error
    if found.width != 1:
        raise UserError(
            f"The weights of {kind.network} have width {found.width:g}; its front serves at width 1 only; give others."
        )
    if found.given_colours is not None:
        raise UserError(
            f"The weights of {kind.network} go with colours of their own ({found.given_colours.describe()}); its front "
            "serves with the network's usual ones only; give weights trained with these, or register an encoder of "
            "your own (docs/extending.md)."
        )
    return found.module[1].state_dict(), found.weights  # type: ignore[index]


def autoencoder_from_encoder(kind: EncoderKind, weights: StateDict) -> tuple[Autoencoder, str]:
    """Build an autoencoder around published encoder weights, its decoder fresh from torch's global generator.

    Returns:
        The autoencoder and the name of the form that the weights came in.

    Raises:
        UserError: the weights do not fit the encoder.
    """
    converted, form = kind.convert(weights)
    module = Autoencoder(kind, kind.width_of(converted))
    load_encoder(module, converted)
    return module, form


def weights_of_encoder(kind: EncoderKind, path: Path) -> StateDict:
    """Read published or trained weights of an encoder.

    Raises:
        UserError: the file cannot be read, or is a classifier's of ours with other colours than ImageNet's, which
            encoders prepare.
    """
    state = read_weights(path, kind.knows)
    metadata = classifier_metadata(read_metadata(path)) if path.suffix == ".safetensors" else {}
    colours = given_colours(metadata, Normalise())
    if colours is not None:
        raise UserError(
            f"The weights {path} go with colours of their own ({colours.describe()}), and the encoder {kind.name} "
            "prepares ImageNet's; give weights trained with these."
        )
    return state


def load_encoder(module: Autoencoder, state: StateDict) -> None:
    """Load an autoencoder's encoder.

    Raises:
        UserError: the weights do not fit.
    """
    load_into(module.encoder, state, f"the {module.kind.name} encoder")
