"""The motion of a drawn clip is its label, and no single frame says which it is."""

import pickle

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binomtest, kstest

from basics.errors import UserError
from sources.clips import ClipView, decode_clip
from sources.drawn.clips import CLIP_FRAMES, CLIPS_PER_CLASS, MOTIONS, Course, DrawnClips, State, draw_clip, shape_mask
from tests.sources.clip_files import all_frames, opened

Grey = npt.NDArray[np.float64]
SIDE, FRAMES = 32, 12
TRAINED, TESTED = 24, 16
CHANCE = 1 / len(MOTIONS["target"])


def test_a_clip_is_an_avi_of_jpegs_each_by_itself() -> None:
    source = DrawnClips("test", 16)
    content = source.read(source.records[0])
    with opened(content) as container:
        (stream,) = container.streams
        assert (container.format.name, stream.codec_context.name, stream.frames) == ("avi", "mjpeg", CLIP_FRAMES)
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert all(packet.is_keyframe for packet in packets)
        assert len({bytes(packet)[:2] for packet in packets}) == 1
    assert len(all_frames(content)) == CLIP_FRAMES
    assert decode_clip(content, "a.avi", ClipView(frames=4, size=8)).shape == (3, 4, 8, 8)


def test_clips_depend_on_seed_split_set_and_record_alone() -> None:
    source = DrawnClips("test", 16)
    record = source.records[-1]
    content = source.read(record)
    assert pickle.loads(pickle.dumps(source.part([record]))).read(record) == content
    others = [
        DrawnClips("test", 16, 1), DrawnClips("train", 16), DrawnClips("test", 18),
        DrawnClips("test", 16, motions="pretraining"),
    ]  # fmt: skip
    assert len({content, source.read(source.records[0]), *(each.read(each.records[-1]) for each in others)}) == 6
    assert len({each.address for each in (source, *others)}) == 4, "splits share the address"


def test_records_name_class_split_and_number() -> None:
    source = DrawnClips("train")
    assert source.records[0].name == "anticlockwise/anticlockwise-train-0001.avi"
    assert len(source.records) == CLIPS_PER_CLASS["train"] * source.classes.count
    assert set(MOTIONS["target"]).isdisjoint(MOTIONS["pretraining"])
    for names in MOTIONS.values():
        assert list(names) == sorted(names), "as in a folder"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"split": "val"}, "no split 'val'; choose one of train, test"),
        ({"motions": "x"}, "no drawn motions 'x'; choose one of target, pretraining"),
        ({"size": 8}, "at least 16"),
        ({"seed": -1}, "negative"),
    ],
)
def test_what_cannot_be_drawn_is_refused(words: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DrawnClips(**words)  # type: ignore[arg-type]


def grey_clip(motion: str, number: int) -> Grey:
    """One clip (T, S, S) in 0 to 1, as small as its motion can be seen in."""
    rng = np.random.default_rng([7, list(MOTIONS["target"]).index(motion), number])
    frames = draw_clip(MOTIONS["target"][motion], SIDE, rng, FRAMES)
    return np.stack([np.asarray(frame.convert("L"), np.float64) / 255 for frame in frames])


@pytest.fixture(scope="module")
def clips() -> tuple[Grey, npt.NDArray[np.int64]]:
    """Clips (class, number, T, S, S)."""
    found = np.stack([[grey_clip(name, number) for number in range(TRAINED + TESTED)] for name in MOTIONS["target"]])
    return found, np.arange(len(found))


def accuracy(features: Grey) -> tuple[int, int]:
    """Correct and all answers of ridge regression on features (class, number, D), trained on the first numbers."""
    classes, _, size = features.shape
    train, test = (part.reshape(-1, size) for part in (features[:, :TRAINED], features[:, TRAINED:]))
    mean, spread = train.mean(0), train.std(0) + 1e-9
    train, test = ((part - mean) / spread for part in (train, test))
    target = np.repeat(np.eye(classes), TRAINED, axis=0)
    weights = np.linalg.solve(train.T @ train + size * np.eye(size), train.T @ (target - target.mean(0)))
    found = (test @ weights).argmax(1) == np.repeat(np.arange(classes), features.shape[1] - TRAINED)
    return int(found.sum()), len(found)


def nearest(features: Grey) -> tuple[int, int]:
    """The same of the nearest neighbour."""
    classes, _, size = features.shape
    train, test = (part.reshape(-1, size) for part in (features[:, :TRAINED], features[:, TRAINED:]))
    distances = (train**2).sum(1)[None] - 2 * test @ train.T
    found = distances.argmin(1) // TRAINED == np.repeat(np.arange(classes), features.shape[1] - TRAINED)
    return int(found.sum()), len(found)


def moving(clip: Grey) -> Grey:
    """How much each pixel (T, S, S) differs from the still ground, which is the median over the clip."""
    return np.abs(clip - np.median(clip, axis=0))


def features_of_motion(clip: Grey) -> Grey:
    """Mean changes from frame to frame of the moving part's centre, of its size, and of its angular moments."""
    part = moving(clip)
    turn = np.exp(2j * np.pi * np.arange(SIDE) / SIDE)
    # The frame's opposite sides are joined, so the centre is an angle.
    across, down = part.sum(1) @ turn, part.sum(2) @ turn
    found = [np.angle(at[1:] * at[:-1].conj()).mean() for at in (across, down)]
    found.append(float(np.median(np.diff(np.log(part.sum((1, 2)) + 1)))))
    centred = [
        np.roll(frame, tuple(SIDE // 2 - round(float(np.angle(at)) / 2 / np.pi * SIDE) for at in centre), (0, 1))
        for frame, *centre in zip(part, down, across, strict=True)
    ]
    line = np.arange(SIDE) - SIDE // 2
    plane = line[None] + 1j * line[:, None]
    for order in (1, 2, 3):
        moments = np.stack(centred).reshape(len(part), -1) @ (plane**order).ravel()
        turned = moments[1:] * moments[:-1].conj()
        found.append(float((turned / (np.abs(turned) + 1e-9)).imag.mean()))
    return np.array(found)


@pytest.mark.slow
def test_a_single_frame_says_nothing_of_the_class_and_motion_does(clips: tuple[Grey, npt.NDArray[np.int64]]) -> None:
    every, _ = clips
    small = every.reshape(*every.shape[:3], SIDE // 4, 4, SIDE // 4, 4).mean((4, 6))
    for frame in (0, FRAMES // 2, FRAMES - 1):
        for judge in (accuracy, nearest):
            correct, count = judge(small[:, :, frame].reshape(*small.shape[:2], -1))
            assert binomtest(correct, count, CHANCE).pvalue > 0.01, (frame, judge, correct, count)
    correct, count = accuracy(np.stack([[features_of_motion(clip) for clip in row] for row in every]))
    assert binomtest(correct, count).proportion_ci().low > 0.5, (correct, count)


@pytest.mark.parametrize("motions", MOTIONS)
def test_at_any_moment_position_angle_and_size_are_uniform_in_every_class(motions: str) -> None:
    """By the definition of the motions alone: a uniform start, and a way that does not depend on it."""
    dice = np.random.default_rng(0)
    for name, motion in MOTIONS[motions].items():
        for time in (0.0, 0.4, 0.975):
            start = dice.uniform(0, 1, (150, 4))
            ways = [motion(time, random_course(dice)) for _ in start]
            at = (start + np.array([[way.x, way.y, way.angle / 2 / np.pi, way.growth] for way in ways])) % 1
            for column in at.T:
                assert kstest(column, "uniform").pvalue > 1e-4, (name, time)


def random_course(dice: np.random.Generator) -> Course:
    return Course(dice.uniform(0.6, 1), dice.uniform(0, 2 * np.pi))


def test_a_shape_that_leaves_the_frame_comes_in_on_the_other_side() -> None:
    side = 64
    centre = np.asarray(shape_mask("arrow", side, State(0.5, 0.5, 0.3, 0.9)))
    assert not any(edge.any() for edge in (centre[0], centre[-1], centre[:, 0], centre[:, -1]))
    for across, down in ((31, 0), (0, 30), (-29, 28), (64, 64), (33, -95)):
        moved = shape_mask("arrow", side, State(0.5 + across / side, 0.5 + down / side, 0.3, 0.9))
        different = np.asarray(moved) != np.roll(centre, (down, across), (0, 1))
        # Pillow rounds the corners of polygons, towards 0 on both sides of it.
        assert different.sum() < 0.06 * (centre > 0).sum(), (across, down)
