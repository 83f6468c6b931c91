"""`advbn-gen train-autoencoder` and `import-autoencoder`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from basics.progress import say
from commands.options import (
    FILE,
    FOLDER,
    encoder_option,
    given,
    json_option,
    loaders_option,
    overwrite_option,
    print_result,
    training_options,
)


@click.command(short_help="Train the decoder of a frozen encoder.")
@encoder_option
@click.option(
    "--source",
    envvar="ADVBN_SOURCE",
    show_envvar=True,
    help="Training images. [default: the embedded drawn world]",
)
@click.option("--labels", type=FILE, help="Label list or devkit of a flat ILSVRC2012 folder.")
@click.option("--val", "held_out", help="Held-out images. [default: one in twenty of the source, at most 1,000]")
@click.option(
    "--encoder-weights",
    metavar="F",
    help="File, or seed:N for fresh weights (trials). [default: torchvision's published ones]",
)
@click.option("--image-size", type=int, help="Side of the crops. [default: 256; the drawn world: 48]")
@click.option("--out", type=FOLDER, help="Run folder. [default: ./autoencoder-ENCODER]")
@click.option(
    "--schedule", type=click.Choice(["constant", "cosine"]), help="Learning-rate schedule. [default: constant]"
)
@click.option("--checkpoint-every", type=int, help="Steps between two checkpoints in an epoch. [default: 500]")
@loaders_option
@training_options
@overwrite_option
@json_option
def train_autoencoder(**options: Any) -> None:
    """Train a decoder to invert a frozen encoder: pixel MSE + 1e-8 total variation, Adam 1e-4.

    Given again, the same command goes on from its checkpoint. Writes autoencoder.safetensors, metrics.jsonl and
    reconstructions/epoch-*.png (originals above their reconstructions).

    \b
    Examples:
      advbn-gen train-autoencoder --encoder vgg
      advbn-gen train-autoencoder --encoder resnet --source ILSVRC2012/train --out autoencoder-resnet
      advbn-gen train-autoencoder --encoder packaged:efficientnet-lite0@blocks.1 --source ILSVRC2012/train
    """
    import experiments
    from basics.errors import UserError
    from decoders.request import train_autoencoder as train
    from encoders import file_name_of, split_encoder
    from networks.classifiers import PUBLISHED
    from pipeline.drawn_networks import drawn_request
    from training.folder import is_first_process

    (encoder, own_weights), source = split_encoder(options["encoder"]), options["source"]
    if own_weights is not None and not (own_weights == PUBLISHED and options["encoder_weights"]):
        if options["encoder_weights"] is not None:
            raise UserError(f"--encoder {options['encoder']} names its weights; leave out --encoder-weights.")
        options["encoder_weights"] = own_weights
    out = options["out"] or Path(f"autoencoder-{file_name_of(encoder)}")
    if source is None:
        say("No --source: using the embedded drawn world.")
        request = drawn_request(encoder, out, options["encoder_weights"])
    else:
        request = experiments.autoencoder(encoder, source, out)
    config = replace(request.training, **given(**{name: options[name] for name in _CONFIG_OPTIONS}))
    request = replace(request, training=config, **given(**{name: options[name] for name in _REQUEST_OPTIONS}))
    result = train(request, overwrite=options["overwrite"])
    if not is_first_process(options["devices"]):
        return
    path, metadata = result.files["autoencoder"], result.metadata
    lines = [f"held-out PSNR {metadata['held_out_psnr']:.1f} dB, MSE {metadata['held_out_mse']:.5f}", str(path)]
    print_result({"autoencoder": str(path), **metadata}, lines, as_json=options["as_json"])


_REQUEST_OPTIONS = ("labels", "held_out", "encoder_weights", "width", "limit")
_CONFIG_OPTIONS = (
    "loaders", "epochs", "batch_size", "lr", "seed", "image_size", "schedule", "checkpoint_every",
    "device", "devices", "precision",
)  # fmt: skip


@click.command(short_help="Published AdaIN files -> autoencoder.safetensors.")
@encoder_option
@click.option(
    "--encoder-weights",
    type=FILE,
    required=True,
    help="vgg_normalised.pth, or torchvision's state dict of the encoder's network.",
)
@click.option("--decoder-weights", type=FILE, required=True, help="decoder.pth.")
@click.option("--out", type=FILE, required=True, help="File to write.")
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
@json_option
def import_autoencoder(  # noqa: PLR0913, PLR0917 (click passes every option)
    encoder: str, encoder_weights: Path, decoder_weights: Path, out: Path, overwrite: bool, as_json: bool
) -> None:
    """Turn published encoder and decoder weights into one self-describing file; code in a pickle is never run.

    \b
    Example:
      advbn-gen import-autoencoder --encoder vgg --encoder-weights vgg_normalised.pth \\
        --decoder-weights decoder.pth --out autoencoder.safetensors
    """
    from basics.errors import UserError
    from basics.files import require_writable_folder
    from decoders.published import import_autoencoder as convert_published

    if out.is_dir():
        raise UserError(f"The output {out} is a folder; give a file.")
    if out.exists() and not overwrite:
        raise UserError(f"The file {out} is there already; give another --out, or --overwrite.")
    require_writable_folder(out.absolute().parent)
    module = convert_published(encoder, encoder_weights, decoder_weights, out)
    result = {"autoencoder": str(out), "encoder": encoder, "width": module.width}
    print_result(result, [f"{encoder} autoencoder, width {module.width:g}: {out}"], as_json=as_json)
