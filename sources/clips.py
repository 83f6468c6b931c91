"""Decodes clips to pixels as published: frames spread over the whole clip, resized and cropped (paper 2, section 3.2).

Frames are taken by their number, whatever the rate or the time stamps say. Each is turned upright if the file says that
it is rotated; audio and non-square pixels are ignored. A frame is resized as an image is (`sources.decode`): by
torchvision's `resize` of a Pillow image, bilinear, and then `center_crop`, so 320x240 becomes 149x112 and loses 18
columns on the left. What cannot be decoded to its end is a broken clip: a part of it would pass for a shorter one.
"""

import io
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, cast

import torch
from PIL import Image
from torch import Tensor

from basics.errors import UserError, WorkError
from sources.decode import View, pixels_of

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

MAX_FRAMES = 2**20
"""Frames of the longest clip, ten hours of it: a damaged file may claim any number."""
_MAX_PIXELS = 2**26
"""Pixels of the largest frame (8K has half as many)."""
_CONTAINERS = "avi,mov,mp4,matroska,webm,mpeg,mpegts"
"""FFmpeg's names of the formats that are opened. Others, such as playlists, name further files."""
_DURATION = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")
_TOLERANCE = 0.5
"""Frames by which a stream may be shorter than it says, by rounding."""
_UNKNOWN_SIZE = 2**31 - 1
_WITH_LENGTH = ("avi", "mov,mp4,m4a,3gp,3g2,mj2")
"""FFmpeg's names of the formats whose header has the length of each stream."""
_NO_PICTURE = 16
"""Bytes of the largest packet without a picture: it repeats the last one, or stands for one packed with the last."""
_WITH_HIDDEN_FRAMES = frozenset({"vp8", "vp9", "av1", "libdav1d", "libvpx-vp9"})
"""Codecs of which some packets are no pictures but what later ones refer to."""
_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
"""By the angle counter-clockwise."""


class BrokenClipError(WorkError):
    """A clip that cannot be decoded. The message names it."""


@dataclass(frozen=True, kw_only=True)
class ClipView:
    """The part of a clip that a network sees."""

    frames: int = 40
    """Number of frames."""
    size: int = 112
    """Side of the square, in pixels."""

    def __post_init__(self) -> None:
        for name, value in (("number of frames", self.frames), ("image size", self.size)):
            if value < 1:
                raise UserError(f"The {name} is {value}; give 1 or more.")


def sampled_frames(count: int, wanted: int) -> list[int]:
    """Return which frames of a clip are taken, as published.

    Every `count // wanted`-th from the first one on; a clip that is too short is repeated from its beginning.

    Args:
        count: frames of the clip, 1 or more.
        wanted: frames to take.
    """
    if count < wanted:
        return list(itertools.islice(itertools.cycle(range(count)), wanted))
    return list(range(0, count // wanted * wanted, count // wanted))


def require_decoder() -> ModuleType:
    """Return the package that decodes video (PyAV), silenced: what is wrong with a file is in its exceptions.

    Raises:
        UserError: it is not installed.
    """
    try:
        import av
        import av.logging
    except ImportError as error:
        raise UserError("Clips need PyAV, which is not installed; pip install 'advbn-gen[video]'.") from error
    av.logging.set_level(av.logging.PANIC)
    return av


def decode_clip(content: bytes, name: str, view: ClipView) -> Tensor:
    """Decode a video file to the frames that a network sees.

    Args:
        content: The encoded file.
        name: Name of the record, for the error.
        view: Number and size of the frames.

    Returns:
        uint8 tensor (3, T, S, S) with T and S as in `view`.

    Raises:
        BrokenClipError: it is empty or no video, has no video stream or no frame, or it cannot be decoded to its end.
        UserError: PyAV is not installed.
    """
    av = require_decoder()
    if not content:
        raise BrokenClipError(f"The clip {name} is broken: the file is empty.")
    try:
        frames = _sampled(content, view, name)
    except Exception as error:
        # Besides FFmpeg's own, anything that Pillow or PyAV raise on impossible sizes and times. FFmpeg lacks memory
        # where a damaged file asks for too much.
        if isinstance(error, MemoryError) and not isinstance(error, av.FFmpegError):
            raise
        raise BrokenClipError(f"The clip {name} is broken: {_reason(error)}.") from error
    return torch.stack(frames, dim=1)


def _sampled(content: bytes, view: ClipView, name: str) -> list[Tensor]:
    """Return the sampled frames (3, S, S). The file is decoded twice only if it does not say how many it has."""
    _require_whole_riff(content)
    with _opened(content) as (container, stream):
        expected = stream.frames
        guessed = sampled_frames(expected, view.frames) if 0 < expected <= MAX_FRAMES else []
        found, count = _chosen(container, stream, guessed, view, name)
    if not count:
        raise ValueError("it has no frames")
    wanted = sampled_frames(count, view.frames)
    if not found.keys() >= set(wanted):
        with _opened(content) as (container, stream):
            found, _ = _chosen(container, stream, wanted, view, name)
    return [found[number] for number in wanted]


def _require_whole_riff(content: bytes) -> None:
    """Refuse an AVI that is shorter than its header says: FFmpeg takes lost frames for such as were never there."""
    size = int.from_bytes(content[4:8], "little")
    # Programs that cannot go back to the header leave 0 or the largest number there.
    if content[:4] == b"RIFF" and 0 < size < _UNKNOWN_SIZE and len(content) < size + 7:
        raise ValueError(f"it is cut off: {len(content)} of {size + 8} bytes are there")


@contextmanager
def _opened(content: bytes) -> "Iterator[tuple[InputContainer, VideoStream]]":
    av = require_decoder()
    options = {"format_whitelist": _CONTAINERS}
    with av.open(io.BytesIO(content), mode="r", container_options=options, metadata_errors="ignore") as container:
        # The best one: a cover picture is a stream as well.
        stream = cast("VideoStream | None", container.streams.best("video"))
        if stream is None:
            raise ValueError("it has no video stream")
        stream.codec_context.options = {"max_pixels": str(_MAX_PIXELS)}
        # The threads of the caller decode clips side by side.
        stream.codec_context.thread_count = 1
        yield container, stream


def _chosen(
    container: "InputContainer", stream: "VideoStream", wanted: Sequence[int], view: ClipView, name: str
) -> tuple[dict[int, Tensor], int]:
    """Return the wanted frames by their numbers, and how many the file has."""
    numbers, found, count = set(wanted), {}, 0
    for number, frame in enumerate(_frames(container, stream)):
        if number in numbers:
            found[number] = _pixels(frame, view, name)
        count = number + 1
        if count > MAX_FRAMES:
            raise ValueError(f"it has more than {MAX_FRAMES} frames")
    return found, count


def _frames(container: "InputContainer", stream: "VideoStream") -> "Iterator[VideoFrame]":
    """Yield all frames.

    Raises:
        ValueError: the file is cut off, or a frame is damaged or lost.
    """
    count, expected, start, end = 0, 0, 0.0, 0.0
    frame_time = 1 / float(stream.average_rate or 1)
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise ValueError(f"it is cut off or damaged after {count} frames")
        expected += packet.size > _NO_PICTURE and not packet.is_discard
        if packet.pts is not None and packet.time_base is not None:
            start = min(start, float(packet.pts * packet.time_base))
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        for frame in packet.decode():
            if frame.is_corrupt:
                raise ValueError(f"it is damaged after {count} frames")
            count += 1
            yield frame
    seconds = _seconds(container, stream)
    if end - start + _TOLERANCE * frame_time < seconds:
        raise ValueError(f"it ends after {end - start:.2f} of {seconds:.2f} seconds")
    if count < expected and stream.codec_context.name not in _WITH_HIDDEN_FRAMES:
        raise ValueError(f"{expected - count} of its {expected} frames cannot be decoded")


def _seconds(container: "InputContainer", stream: "VideoStream") -> float:
    """Return the length of a video stream by the file's header; 0 if the header does not say it.

    MPEG's streams have no header, and FFmpeg guesses their length.
    """
    if container.format.name in _WITH_LENGTH:
        return float((stream.duration or 0) * (stream.time_base or 0))
    # Matroska and WebM have the length of a single stream only among their tags.
    found = _DURATION.fullmatch(stream.metadata.get("DURATION", ""))
    if found is None:
        return 0.0
    hours, minutes, seconds = map(float, found.groups())
    return (hours * 60 + minutes) * 60 + seconds


def _pixels(frame: "VideoFrame", view: ClipView, name: str) -> Tensor:
    image: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
    turn = _TURNS.get(round(frame.rotation) % 360)
    return pixels_of(image if turn is None else image.transpose(turn), View(crop=view.size, resize=view.size), name)


def _reason(error: Exception) -> str:
    # Of a frame that cannot be resized, without the name, which the message has already.
    text = str(getattr(error, "strerror", None) or error).rpartition(" is broken: ")[2]
    return text.rstrip(".") or type(error).__name__
