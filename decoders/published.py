"""Converts the published AdaIN files to an autoencoder of this program."""

from pathlib import Path

from basics.files import digest_file
from decoders.autoencoder import Autoencoder, autoencoder_from_encoder, save_autoencoder, weights_of_encoder
from encoders import encoder_kind, split_encoder
from networks.checkpoints import known_by, load_into, read_weights


def import_autoencoder(encoder: str, encoder_weights: Path, decoder_weights: Path, out: Path) -> Autoencoder:
    """Turn published encoder and decoder weights into one `autoencoder.safetensors`.

    Args:
        encoder: name of the encoder.
        encoder_weights: `vgg_normalised.pth`, or a torchvision state dict.
        decoder_weights: `decoder.pth`, with the indices of the published Sequential.
        out: file to write.

    Raises:
        UserError: a file is missing, unreadable, holds code, or does not fit.
    """
    kind = encoder_kind(split_encoder(encoder)[0])
    module, form = autoencoder_from_encoder(kind, weights_of_encoder(kind, encoder_weights))
    decoder = module.decoder
    load_into(decoder, read_weights(decoder_weights, known_by(decoder)), f"the decoder of the {encoder} encoder")
    origin = {
        "imported": {
            "encoder_file": encoder_weights.name,
            "encoder_file_sha256": digest_file(encoder_weights),
            "decoder_file": decoder_weights.name,
            "decoder_file_sha256": digest_file(decoder_weights),
        }
    }
    save_autoencoder(out, module, form, origin)
    return module
