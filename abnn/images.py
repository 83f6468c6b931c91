"""Test images and clips for trained networks: of their size and of their classes."""

from collections.abc import Sequence
from pathlib import Path

from abnn.checkpoint import Checkpoint
from abnn.options import HeldOutOptions
from abnn.plan import NetworkPlan
from basics.errors import UserError
from basics.options import refuse_unused_options
from sources.base import Source
from sources.classes import require_agreeing
from sources.clips import ClipView
from sources.decode import decode_rgb
from sources.opening import open_held_out
from sources.ucf101 import open_clips, training_digests
from training.clips import TrainingClips, decoded_clips
from training.data import TrainingImages, evenly_spread


def open_test_for(checkpoints: Sequence[Checkpoint], address: str | None, clips: HeldOutOptions) -> Source:
    """Open the held-out split of what networks take, images or clips.

    Args:
        checkpoints: the networks.
        address: where it is; None draws clips.
        clips: how clips are found.

    Raises:
        UserError: some of the networks take images and others clips; options do not fit what they take; or the data
            set cannot be read.
    """
    if takes_clips(checkpoints):
        number = 1 if clips.split_number is None else clips.split_number
        return open_clips(address, split="test", lists=clips.split_lists, number=number)
    refuse_unused_options(sorted(clips.given()), f"with {checkpoints[0].name}, which takes images")
    if address is None:
        raise UserError(f"The network {checkpoints[0].name} takes images; give --data with what holds test images.")
    return open_held_out(address)


def require_unseen(checkpoints: Sequence[Checkpoint], address: str | None, clips: HeldOutOptions) -> None:
    """Refuse test clips of one published split for networks of another, which were trained on some of them.

    Args:
        checkpoints: the networks.
        address: where the clips are.
        clips: how they are found.

    Raises:
        UserError: see above.
    """
    if address is None or not takes_clips(checkpoints):
        return
    number = clips.split_number or 1
    digests = training_digests(address, clips.split_lists)
    for checkpoint in checkpoints:
        others = [each for each, digest in digests.items() if digest == checkpoint.records]
        if others and number not in others:
            raise UserError(
                f"The network {checkpoint.name} was trained on split {others[0]} of {address}, whose training clips "
                f"are test clips of split {number} in part; give --split-number {others[0]}."
            )


def takes_clips(checkpoints: Sequence[Checkpoint]) -> bool:
    """Return whether networks take clips, and not images.

    Raises:
        UserError: some take images and others clips.
    """
    of_clips = [each.name for each in checkpoints if each.plan.frames is not None]
    of_images = [each.name for each in checkpoints if each.plan.frames is None]
    if of_clips and of_images:
        raise UserError(
            f"The network {of_images[0]} takes images and {of_clips[0]} takes clips; give networks of one kind."
        )
    return bool(of_clips)


class HeldOut:
    """Test images or clips of a source, for networks of any size; clips of one size are decoded once.

    Args:
        source: labelled images or clips.
        limit: how many at most, evenly spread over the source; None takes all.
        cache: file that keeps decoded clips.
    """

    def __init__(self, source: Source, limit: int | None, cache: Path | None = None) -> None:
        self.source, self.limit, self.cache = source, limit, cache
        self._clips: dict[ClipView, TrainingClips] = {}

    def for_plan(self, plan: NetworkPlan) -> TrainingImages:
        """Return the images or clips for a network; clips that cannot be decoded are left out, with a notice.

        Raises:
            UserError: no clip can be decoded, or the cache does not fit.
        """
        records = evenly_spread(self.source.records, self.limit)
        if plan.frames is None:
            return TrainingImages(self.source, plan.image_size, records=records)
        view = ClipView(frames=plan.frames, size=plan.image_size)
        if view not in self._clips:
            self._clips[view] = decoded_clips(self.source, records, view, self.cache)
        return self._clips[view]


def require_fitting(checkpoint: Checkpoint, source: Source, surrogate: Checkpoint | None = None) -> None:
    """Refuse test images that are of other classes than a network, or of another size.

    Args:
        checkpoint: the network.
        source: labelled images or clips.
        surrogate: another network that has to take the same images.

    Raises:
        UserError: see above.
    """
    for each in (checkpoint, *([surrogate] if surrogate else [])):
        _require_fitting(each, source)
    if surrogate is not None and surrogate.plan.size != checkpoint.plan.size:
        what = "images" if checkpoint.plan.frames is None else "clips"
        raise UserError(
            f"The surrogate {surrogate.name} has {what} of another size than {checkpoint.name}; give another "
            "--surrogate."
        )


def _require_fitting(checkpoint: Checkpoint, source: Source) -> None:
    require_agreeing(
        f"the network {checkpoint.name}", checkpoint.class_map, source.address, source.classes,
        "give test images of the classes that it was trained on",
    )  # fmt: skip
    if checkpoint.plan.frames is None and not checkpoint.resized:
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
