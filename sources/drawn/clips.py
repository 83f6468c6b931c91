"""Drawn clips: moving shapes whose motion is the label, which no single frame gives away.

In every class the position of the shape is uniform on a square whose opposite sides are joined, its angle is uniform,
and so is the logarithm of its size, which starts again at the smallest after the largest. A motion changes one of the
three at a constant rate, or to and fro, from a random start: so at any moment all three are as they are in every other
class. Frames are stored as JPEGs, each by itself, in an AVI: no compressor sees the motion.

Surfaces are plain and the shape is the lighter one: from so few clips, a small network learns motions of these, and
with the textures of the drawn images it does not.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple, Self

import numpy as np
from PIL import Image, ImageDraw

from basics.errors import UserError
from sources.base import ClassMap, ImageRecord, Source
from sources.clips import require_decoder
from sources.content import FileState
from sources.drawn.drawing import outline_of
from sources.drawn.source import DEFAULT_SIZE, require_drawable

CLIPS_VERSION = 1
"""Increased whenever the same seed would draw other clips."""
CLIP_FRAMES = 40
"""Frames of a clip, as many as the published networks see."""
CLIPS_PER_CLASS = {"train": 200, "test": 50}
"""Clips of each class by split."""

_SHAPES = ("arrow", "bolt", "crescent", "heart", "triangle")
"""Shapes that a turn by less than half a right angle does not bring back to themselves."""
_RATE = 25
"""Frames a second."""
_SUPERSAMPLING = 2
_SMALLEST, _LARGEST = 0.15, 0.35
"""Range of the radius of a shape, as a part of the clip's width."""
_DARK, _LIGHT = (0, 80), (150, 256)
"""Ranges of the colour values of the ground and of the shape."""
_SPEED = (0.6, 1.0)
"""Way of a motion over the whole clip: widths of the clip, half turns, or times the range of sizes."""
_QUALITY = 90
"""Of the JPEGs."""
_SPLIT_NUMBERS = {split: number for number, split in enumerate(CLIPS_PER_CLASS)}


class State(NamedTuple):
    """How the shape is drawn at one moment."""

    x: float
    """Position in widths of the clip; its whole part does not matter."""
    y: float
    angle: float
    """Angle in radians, clockwise."""
    growth: float
    """Position in the range of sizes; its whole part does not matter."""


class Course(NamedTuple):
    """What is random in a motion."""

    speed: float
    """See `_SPEED`."""
    phase: float
    """Angle in radians at which a motion to and fro, or around, begins."""


Motion = Callable[[float, Course], State]
"""(time from 0 to 1, course) -> how far the shape has moved from its random start."""


def _straight(x: float, y: float) -> Motion:
    return lambda time, course: State(x * course.speed * time, y * course.speed * time, 0.0, 0.0)


def _turning(sign: int) -> Motion:
    return lambda time, course: State(0.0, 0.0, sign * math.pi * course.speed * time, 0.0)


def _resizing(sign: int) -> Motion:
    return lambda time, course: State(0.0, 0.0, 0.0, sign * course.speed * time)


def _circling(sign: int) -> Motion:
    def moved(time: float, course: Course) -> State:
        angle = course.phase + sign * 2 * math.pi * course.speed * time
        return State(0.2 * math.cos(angle), 0.2 * math.sin(angle), 0.0, 0.0)

    return moved


def _swinging(time: float, course: Course) -> State:
    return State(0.0, 0.0, 0.8 * math.sin(course.phase + 4 * math.pi * course.speed * time), 0.0)


def _pulsing(time: float, course: Course) -> State:
    return State(0.0, 0.0, 0.0, 0.3 * math.sin(course.phase + 4 * math.pi * course.speed * time))


_DIAGONAL = math.sqrt(0.5)
MOTIONS: Mapping[str, Mapping[str, Motion]] = {
    "target": {
        "anticlockwise": _turning(-1),
        "clockwise": _turning(1),
        "down": _straight(0, 1),
        "growing": _resizing(1),
        "left": _straight(-1, 0),
        "right": _straight(1, 0),
        "shrinking": _resizing(-1),
        "up": _straight(0, -1),
    },
    "pretraining": {
        "down-left": _straight(-_DIAGONAL, _DIAGONAL),
        "down-right": _straight(_DIAGONAL, _DIAGONAL),
        "orbit-anticlockwise": _circling(-1),
        "orbit-clockwise": _circling(1),
        "pulsing": _pulsing,
        "swinging": _swinging,
        "up-left": _straight(-_DIAGONAL, -_DIAGONAL),
        "up-right": _straight(_DIAGONAL, -_DIAGONAL),
    },
}
"""Motion at each label, by set: those of the data set that is attacked, and others to train a substitute on."""


class DrawnClips(Source):
    """One split of the drawn clips, drawn clip by clip as it is read.

    Args:
        split: One of `CLIPS_PER_CLASS`.
        size: Width and height in pixels.
        seed: Seed of the clips.
        motions: One of `MOTIONS`.

    Raises:
        UserError: there are no such clips, or nothing can be drawn in this size or with this seed.
    """

    def __init__(
        self, split: str = "test", size: int = DEFAULT_SIZE, seed: int = 0, *, motions: str = "target"
    ) -> None:
        if split not in CLIPS_PER_CLASS:
            raise UserError(f"The drawn clips have no split {split!r}; choose one of {', '.join(CLIPS_PER_CLASS)}.")
        if motions not in MOTIONS:
            raise UserError(f"There are no drawn motions {motions!r}; choose one of {', '.join(MOTIONS)}.")
        require_drawable(size, seed)
        self.split, self.size, self.seed, self.motions = split, size, seed, motions
        of = "" if motions == "target" else f"{motions}, "
        self.address = f"drawn clips ({of}seed {seed}, {size} px)"
        names = tuple(MOTIONS[motions])
        self.classes = ClassMap(names=names, imagenet=False)
        self.order = "ImageFolder"
        self.is_split = True
        self._numbers = {
            ImageRecord(f"{name}/{name}-{split}-{index:04d}.avi", label): index
            for label, name in enumerate(names)
            for index in range(1, CLIPS_PER_CLASS[split] + 1)
        }
        self.records = list(self._numbers)

    def part(self, records: Sequence[ImageRecord]) -> Self:
        """Return the same source reduced to some of its records."""
        part = super().part(records)
        part._numbers = {record: self._numbers[record] for record in records}
        return part

    def file_states(self, records: Sequence[ImageRecord]) -> list[FileState]:
        """Return a state for each record, with the version of the drawing for that of a file.

        So nothing that was stored of clips that were drawn otherwise is taken for these.
        """
        return [FileState(0, tag=f"{self.address}, version {CLIPS_VERSION}")] * len(records)

    def read(self, record: ImageRecord) -> bytes:
        """Draw one clip and return it as an AVI of JPEGs.

        Raises:
            FileNotFoundError: the record is not one of this split.
            UserError: PyAV is not installed.
        """
        if record not in self._numbers:
            raise FileNotFoundError(f"{self.address} has no {record.name} in {self.split}")
        set_number = list(MOTIONS).index(self.motions)
        number = self._numbers[record]
        rng = np.random.default_rng([self.seed, _SPLIT_NUMBERS[self.split], set_number, record.label, number])
        motion = MOTIONS[self.motions][self.classes.names[record.label]]
        return avi_bytes(draw_clip(motion, self.size, rng, CLIP_FRAMES))


def draw_clip(motion: Motion, size: int, rng: np.random.Generator, frames: int) -> list[Image.Image]:
    """Draw the frames (RGB) of one clip.

    Args:
        motion: One of `MOTIONS`.
        size: Width and height in pixels.
        rng: What all that is random in the clip is drawn from.
        frames: Number of frames.
    """
    shape = _SHAPES[int(rng.integers(len(_SHAPES)))]
    side = size * _SUPERSAMPLING
    ground, fill = _plain(side, _DARK, rng), _plain(side, _LIGHT, rng)
    x, y, angle, growth = rng.uniform(0, 1, 4)
    start = State(x, y, 2 * math.pi * angle, growth)
    course = Course(rng.uniform(*_SPEED), rng.uniform(0, 2 * math.pi))
    drawn = []
    for frame in range(frames):
        moved = motion(frame / frames, course)
        state = State._make(at + by for at, by in zip(start, moved, strict=True))
        drawn.append(Image.composite(fill, ground, shape_mask(shape, side, state)).reduce(_SUPERSAMPLING))
    return drawn


def _plain(side: int, values: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    red, green, blue = rng.integers(*values, 3).tolist()
    return Image.new("RGB", (side, side), (red, green, blue))


def shape_mask(shape: str, side: int, state: State) -> Image.Image:
    """Draw the shape, white on black (L), and again behind each side of the frame that it reaches over."""
    radius = _SMALLEST * (_LARGEST / _SMALLEST) ** (state.growth % 1)
    cos, sin = math.cos(state.angle) * radius, math.sin(state.angle) * radius
    x, y = state.x % 1, state.y % 1
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    for points, ink in outline_of(shape):
        for across in _copies(x, radius):
            for down in _copies(y, radius):
                placed = [
                    ((across + px * cos - py * sin) * side, (down + px * sin + py * cos) * side) for px, py in points
                ]
                draw.polygon(placed, fill=255 * ink)
    return mask


def _copies(at: float, radius: float) -> list[float]:
    """Return where a shape is drawn along one axis so that it is seen wherever it reaches."""
    return [each for each in (at - 1, at, at + 1) if -radius < each < 1 + radius]


def avi_bytes(frames: Sequence[Image.Image]) -> bytes:
    """Return frames of one size as an AVI whose frames are JPEGs.

    They are compressed by Pillow and only packed by FFmpeg, without the names of its versions: the same bytes anywhere.
    """
    av = require_decoder()
    stream_file = io.BytesIO()
    with av.open(stream_file, mode="w", format="avi", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("mjpeg", rate=_RATE)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuvj420p"
        stream.time_base = Fraction(1, _RATE)
        for number, frame in enumerate(frames):
            jpeg = io.BytesIO()
            frame.save(jpeg, "JPEG", quality=_QUALITY)
            packet = av.Packet(jpeg.getvalue())
            packet.stream, packet.time_base = stream, stream.time_base
            packet.pts = packet.dts = number
            packet.duration, packet.is_keyframe = 1, True
            container.mux(packet)
    return stream_file.getvalue()
