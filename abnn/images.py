"""The test images that a trained network is shown: of its size and of its classes."""

from abnn.checkpoint import Checkpoint
from basics.errors import UserError
from sources.base import Source
from sources.decode import decode_rgb
from sources.opening import open_source
from training.data import TrainingImages, evenly


def open_test(address: str) -> Source:
    """Open the held-out part of a data set of two parts, whether it is called `test` or `val`.

    Raises:
        UserError: there is neither, or it cannot be read.
    """
    try:
        return open_source(address, split="test")
    except UserError as error:
        try:
            return open_source(address, split="val")
        except UserError:
            raise error from None


def shown_images(
    checkpoint: Checkpoint, source: Source, limit: int | None, twin: Checkpoint | None = None
) -> TrainingImages:
    """Return images for a network, at most so many, evenly spread.

    Args:
        checkpoint: the network.
        source: labelled images.
        limit: how many at most.
        twin: another network that has to see the same images.

    Raises:
        UserError: they are of other classes, or of another size.
    """
    for each in (checkpoint, *([twin] if twin else [])):
        _require_fitting(each, source)
    if twin is not None and twin.plan.image_size != checkpoint.plan.image_size:
        raise UserError(f"The twin {twin.name} has images of another size than {checkpoint.name}; give another --twin.")
    return TrainingImages(source, checkpoint.plan.image_size, records=evenly(source.records, limit))


def _require_fitting(checkpoint: Checkpoint, source: Source) -> None:
    found, needed = source.classes.names, checkpoint.classes
    if len(found) != len(needed):
        raise UserError(
            f"The network {checkpoint.name} tells {len(needed)} classes apart, but {source.address} has {len(found)}; "
            "give test images of the classes that it was trained on."
        )
    if found != needed:
        different = next(pair for pair in zip(found, needed, strict=True) if pair[0] != pair[1])
        raise UserError(
            f"The classes of {source.address} are not those of the network {checkpoint.name} ({different[0]} stands "
            f"where it has {different[1]}); give test images of the classes that it was trained on."
        )
    if not checkpoint.resized:
        require_native(source, checkpoint.plan.image_size, f"the network {checkpoint.name} was trained on no others")


def require_native(source: Source, image_size: int, mend: str) -> None:
    """Refuse images that are not of a size already; the first one is looked at.

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
