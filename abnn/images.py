"""Test images for a trained network: of its image size and of its classes."""

from abnn.checkpoint import Checkpoint
from basics.errors import UserError
from sources.base import Source
from sources.classes import require_agreeing
from sources.decode import decode_rgb
from sources.opening import open_source
from training.data import TrainingImages, evenly


def open_test(address: str) -> Source:
    """Open the held-out split of a data set, whether it is called `test` or `val`.

    Raises:
        UserError: the data set has neither, or cannot be read.
    """
    try:
        return open_source(address, split="test")
    except UserError as error:
        try:
            return open_source(address, split="val")
        except UserError:
            raise error from None


def images_for(
    checkpoint: Checkpoint, source: Source, limit: int | None, surrogate: Checkpoint | None = None
) -> TrainingImages:
    """Return test images for a network.

    Args:
        checkpoint: the network.
        source: labelled images.
        limit: how many at most, evenly spread over the source; None takes all.
        surrogate: another network that has to take the same images.

    Raises:
        UserError: they are of other classes, or of another size.
    """
    for each in (checkpoint, *([surrogate] if surrogate else [])):
        _require_fitting(each, source)
    if surrogate is not None and surrogate.plan.image_size != checkpoint.plan.image_size:
        raise UserError(
            f"The surrogate {surrogate.name} has images of another size than {checkpoint.name}; give another "
            "--surrogate."
        )
    return TrainingImages(source, checkpoint.plan.image_size, records=evenly(source.records, limit))


def _require_fitting(checkpoint: Checkpoint, source: Source) -> None:
    require_agreeing(
        f"the network {checkpoint.name}", checkpoint.class_map, source.address, source.classes,
        "give test images of the classes that it was trained on",
    )  # fmt: skip
    if not checkpoint.resized:
        require_native(source, checkpoint.plan.image_size, f"the network {checkpoint.name} was trained on no others")


def require_native(source: Source, image_size: int, mend: str) -> None:
    """Refuse images that do not have a size as they are stored; only the first one is opened.

    Raises:
        UserError: see above.
    """
    record = source.records[0]
    size = decode_rgb(source.read(record), record.name).size
    if size != (image_size, image_size):
        raise UserError(
            f"The images of {source.address} are not {image_size}x{image_size} ({record.name} is {size[0]}x{size[1]}); "
            f"{mend}."
        )
