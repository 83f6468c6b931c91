"""Frames are those that PyAV decodes at the published positions, resized as Pillow does; a broken file is named."""

import io
import sys
import tarfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from basics.errors import UserError
from sources import clips
from sources.clips import BrokenClipError, ClipView, decode_clip, sampled_frames
from tests.sources.clip_files import Pixels, all_frames, opened, pictures, sound_only, turned, video

SMALL = ClipView(frames=4, size=16)
FORMS = [
    ("avi", "mpeg4"), ("avi", "mjpeg"), ("mp4", "mpeg4"), ("matroska", "mpeg4"), ("mov", "mpeg4"),
    ("mpeg", "mpeg1video"), ("webm", "libvpx"),
]  # fmt: skip


def naive(frames: list[Pixels], wanted: int) -> list[int]:
    """The published sampling as its list of file names: from 1, every floor(n / wanted)-th, the first `wanted`."""
    names = list(range(1, len(frames) + 1))
    picked = names[:: max(1, len(frames) // wanted)][:wanted]
    while len(picked) < wanted:
        picked += names[: wanted - len(picked)]
    return [name - 1 for name in picked]


def by_pillow(picture: Pixels, size: int) -> Pixels:
    """Pillow's own bilinear resize of the short side, and a crop around the centre."""
    height, width = picture.shape[:2]
    sides = (size * width // height, size) if width >= height else (size, size * height // width)
    image = Image.fromarray(picture).resize(sides, Image.Resampling.BILINEAR)
    left, top = round((sides[0] - size) / 2), round((sides[1] - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def expected(content: bytes, view: ClipView) -> torch.Tensor:
    frames = all_frames(content)
    taken = [by_pillow(frames[number], view.size) for number in naive(frames, view.frames)]
    return torch.from_numpy(np.stack(taken)).permute(3, 0, 1, 2)


@pytest.mark.parametrize(
    ("count", "wanted", "found"),
    [
        (4, 4, [0, 1, 2, 3]),
        (7, 4, [0, 1, 2, 3]),
        (8, 4, [0, 2, 4, 6]),
        (11, 4, [0, 2, 4, 6]),
        (3, 4, [0, 1, 2, 0]),
        (1, 3, [0, 0, 0]),
        (9, 1, [0]),
    ],
)
def test_frames_are_spread_as_published(count: int, wanted: int, found: list[int]) -> None:
    assert sampled_frames(count, wanted) == found


@pytest.mark.parametrize(("count", "span"), [(79, 0.51), (119, 0.66), (186, 0.84), (80, 0.99)])
def test_the_spans_are_the_published_ones(count: int, span: float) -> None:
    found = sampled_frames(count, 40)
    assert len(found) == len(set(found)) == 40
    assert round((found[-1] + 1) / count, 2) == span


def test_every_length_is_sampled_as_the_list_of_files_was() -> None:
    for count in range(1, 200):
        assert sampled_frames(count, 40) == naive([np.zeros(0, np.uint8)] * count, 40)


@pytest.mark.parametrize(("form", "codec"), FORMS)
@pytest.mark.parametrize("count", [3, 9])
def test_frames_of_every_container_are_pyavs_own(form: str, codec: str, count: int) -> None:
    content = video(pictures(count), form, codec)
    assert torch.equal(decode_clip(content, "a.avi", SMALL), expected(content, SMALL))


@pytest.mark.parametrize(("width", "height"), [(48, 32), (32, 48), (50, 34), (38, 30), (16, 16)])
def test_sides_are_resized_as_by_pillow(width: int, height: int) -> None:
    content = video(pictures(5, width, height), codec="mjpeg")
    assert torch.equal(decode_clip(content, "a.avi", SMALL), expected(content, SMALL))


def test_odd_sides_are_decoded() -> None:
    content = video(pictures(5, 47, 33), "matroska", "ffv1")
    found = decode_clip(content, "a.mkv", SMALL)
    assert torch.equal(found, expected(content, SMALL))


def test_a_frame_of_the_published_size_loses_18_columns() -> None:
    (picture,) = pictures(1, 320, 240)
    content = video([picture], codec="mjpeg")
    resized = np.asarray(Image.fromarray(all_frames(content)[0]).resize((149, 112), Image.Resampling.BILINEAR))
    found = decode_clip(content, "a.avi", ClipView(frames=1))
    assert found.shape == (3, 1, 112, 112)
    assert np.array_equal(found[:, 0].permute(1, 2, 0), resized[:, 18:130])


def test_rates_and_times_do_not_matter() -> None:
    frames = pictures(9)
    plain = decode_clip(video(frames, "matroska", "ffv1"), "a.mkv", SMALL)
    odd = video(frames, "matroska", "ffv1", rate=Fraction(30000, 1001))
    varying = video(frames, "matroska", "ffv1", times=[0, 1, 2, 9, 10, 11, 40, 41, 90])
    for content in (odd, varying):
        assert torch.equal(decode_clip(content, "a.mkv", SMALL), plain)


@pytest.mark.parametrize("form", ["avi", "mp4"])
def test_sound_is_ignored(form: str) -> None:
    frames = pictures(9)
    silent, loud = (video(frames, form, audio=audio) for audio in (False, True))
    assert torch.equal(decode_clip(loud, "a.avi", SMALL), decode_clip(silent, "a.avi", SMALL))


@pytest.mark.parametrize(("degrees", "quarters"), [(90, 3), (180, 2), (270, 1)])
def test_a_picture_that_is_shown_turned_is_turned(degrees: int, quarters: int) -> None:
    content = video(pictures(4), "mp4")
    upright = [np.rot90(frame, quarters).copy() for frame in all_frames(content)]
    taken = torch.from_numpy(np.stack([by_pillow(frame, SMALL.size) for frame in upright])).permute(3, 0, 1, 2)
    assert torch.equal(decode_clip(turned(content, degrees), "a.mp4", SMALL), taken)


def cut(content: bytes, share: float) -> bytes:
    return content[: int(len(content) * share)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"not a video" * 40, "Invalid data"),
        (bytes(5000), "Invalid data"),
        (sound_only(), "no video stream"),
        (b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n#EXT-X-ENDLIST\n", "Invalid data"),
    ],
)
def test_what_is_no_video_is_named(content: bytes, reason: str) -> None:
    with pytest.raises(BrokenClipError, match=rf"^The clip x/a\.avi is broken: .*{reason}.*\.$"):
        decode_clip(content, "x/a.avi", SMALL)


@pytest.mark.parametrize(("form", "codec"), [each for each in FORMS if each[0] != "mpeg"])  # says nothing of its length
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_a_file_that_is_cut_off_is_broken(form: str, codec: str, share: float) -> None:
    content = video(pictures(30), form, codec)
    with pytest.raises(BrokenClipError, match=r"^The clip a\.avi is broken: "):
        decode_clip(cut(content, share), "a.avi", SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg"])
def test_a_damaged_file_never_gives_fewer_frames_in_silence(codec: str) -> None:
    content = video(pictures(6), codec=codec)
    view = ClipView(frames=7, size=8)
    assert whole(decode_clip(content, "a.avi", view))
    dice = np.random.default_rng(0)
    broken = 0
    for number in range(60):
        damaged = bytearray(content)
        at = int(dice.integers(12, len(content) - 40))
        if number % 2:
            damaged[at : at + 4] = dice.bytes(4)
        else:
            del damaged[at : at + int(dice.integers(1, 200))]
        try:
            found = decode_clip(bytes(damaged), "a.avi", view)
        except BrokenClipError:
            broken += 1
        else:
            assert whole(found), (number, at)
    assert broken >= 30


def whole(clip_3TSS: torch.Tensor) -> bool:
    """Whether the last frame, and no other, is the first one again: as it is if the file has one frame fewer."""
    again = [torch.equal(frame, clip_3TSS[:, 0]) for frame in clip_3TSS.unbind(1)]
    return again == [True, *[False] * (len(again) - 2), True]


def test_a_damaged_file_that_asks_for_too_much_memory_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[Exception] = [MemoryError(), av.error.MemoryError(12, "Cannot allocate memory")]

    def without_memory(*_: object) -> None:
        raise raised.pop()

    monkeypatch.setattr(clips, "_sampled", without_memory)
    with pytest.raises(BrokenClipError, match="Cannot allocate memory"):
        decode_clip(b"x", "a.avi", SMALL)
    with pytest.raises(MemoryError):
        decode_clip(b"x", "a.avi", SMALL)


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg"])
def test_frames_that_an_avi_leaves_out_are_not_missed(codec: str) -> None:
    """Its header counts them, too."""
    content = video(pictures(9), codec=codec, times=[0, 1, 2, 9, 10, 11, 20, 21, 25])
    with opened(content) as container:
        assert container.streams.video[0].frames == 26
    assert torch.equal(decode_clip(content, "a.avi", SMALL), expected(content, SMALL))


def test_frames_that_are_not_to_be_shown_are_left_out() -> None:
    """As those before the beginning of an MP4 that was cut without compressing it again."""
    target = io.BytesIO()
    with opened(video(pictures(12), "mp4")) as whole_file, av.open(target, mode="w", format="mp4") as container:
        stream = container.add_stream_from_template(whole_file.streams.video[0])
        for packet in whole_file.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                packet.pts -= 4 * packet.duration
                packet.dts -= 4 * packet.duration
                container.mux(packet)
    content = target.getvalue()
    with opened(content) as container:
        assert container.streams.video[0].frames == 12
    assert len(all_frames(content)) == 8
    assert torch.equal(decode_clip(content, "a.mp4", SMALL), expected(content, SMALL))


@pytest.mark.parametrize("size", [0, 2**32 - 1])
def test_an_avi_of_unknown_size_is_read(size: int) -> None:
    content = video(pictures(5))
    unknown = content[:4] + size.to_bytes(4, "little") + content[8:]
    assert torch.equal(decode_clip(unknown, "a.avi", SMALL), decode_clip(content, "a.avi", SMALL))


def test_without_pyav_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"pip install 'advbn-gen\[video\]'"):
        decode_clip(b"x", "a.avi", SMALL)


@pytest.mark.parametrize("name", ["frames", "size"])
def test_a_view_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="is 0; give 1 or more"):
        ClipView(**{name: 0})


@pytest.fixture(scope="module")
def real(shared_data: Path) -> Path:
    path = shared_data / "ucf101-6class-test-sub.tar"
    if not path.exists():
        pytest.skip(f"no real clips: {path} is absent")
    return path


@pytest.mark.slow
def test_frames_of_real_clips_are_pyavs_own(real: Path) -> None:
    view = ClipView()
    with tarfile.open(real) as tar:
        members = [member for member in tar if member.isfile()]
        for member in members[::6]:
            file = tar.extractfile(member)
            assert file is not None
            content = file.read()
            frames = all_frames(content)
            assert len(frames) >= 40
            assert frames[0].shape == (240, 320, 3)
            assert torch.equal(decode_clip(content, member.name, view), expected(content, view))
