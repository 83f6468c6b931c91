"""Small video files of every kind, made by PyAV."""

import io
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
from av.video.stream import VideoStream

Pixels = npt.NDArray[np.uint8]


def pictures(count: int, width: int = 48, height: int = 32, seed: int = 0) -> list[Pixels]:
    """Soft random pictures (H, W, 3), each different."""
    dice = np.random.default_rng(seed)
    coarse = dice.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    return [picture[rows][:, columns] for picture in coarse]


def video(
    frames: Sequence[Pixels],
    form: str = "avi",
    codec: str = "mpeg4",
    *,
    rate: Fraction | int = 25,
    audio: bool = False,
    times: Sequence[int] | None = None,
) -> bytes:
    """A video file of some frames; `times` are the frames' moments where they are not one rate apart."""
    target = io.BytesIO()
    with av.open(target, mode="w", format=form) as container:
        stream = cast("VideoStream", container.add_stream(codec, rate=rate))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        sound = container.add_stream("pcm_s16le" if form == "avi" else "aac", rate=8000) if audio else None
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts = times[number]
                frame.time_base = 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), format="s16", layout="mono")
            samples.sample_rate = 8000
            container.mux(sound.encode(samples))
            container.mux(sound.encode(None))
    return target.getvalue()


def sound_only() -> bytes:
    """A file with an audio stream and nothing else."""
    target = io.BytesIO()
    with av.open(target, mode="w", format="avi") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), format="s16", layout="mono")
        samples.sample_rate = 8000
        container.mux(stream.encode(samples))
        container.mux(stream.encode(None))
    return target.getvalue()


def turned(mp4: bytes, degrees: int) -> bytes:
    """The same MP4 with a matrix that turns its picture clockwise when it is shown."""
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    matrix = struct.pack(">9i", cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30)
    # In the header of the track: version, times, identity, duration, then layer and volume, before the matrix.
    at = mp4.index(b"tkhd") + 4 + 4 + 8 + 4 + 4 + 4 + 8 + 8
    plain = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    assert mp4[at : at + 36] == plain
    return mp4[:at] + matrix + mp4[at + 36 :]


@contextmanager
def opened(content: bytes) -> Iterator[Any]:
    """A file opened by PyAV, to compare with."""
    with av.open(io.BytesIO(content)) as container:
        yield container


def all_frames(content: bytes) -> list[Pixels]:
    """All frames of a file as PyAV decodes them, RGB."""
    with opened(content) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
