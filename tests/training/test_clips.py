"""Clips are decoded once, broken ones are left out and named, and stored or kept ones are those that are decoded."""

import os
import threading
from pathlib import Path

import pytest
import torch

from basics.errors import UserError
from sources.base import Source
from sources.clips import ClipView, decode_clip
from sources.opening import open_source
from tests.sources.clip_files import pictures, video
from training import clips as clips_module
from training import data as data_module
from training.clips import TrainingClips, decoded_clips, training_clips
from training.config import TrainingConfig
from training.data import epoch_batches
from training.evaluation import batched

VIEW = ClipView(frames=3, size=8)
BROKEN = "b/1.avi"


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    names = [f"{name}/{number}.avi" for name in ("a", "b") for number in range(4)]
    return {name: video(pictures(4, 16, 16, seed), codec="mjpeg") for seed, name in enumerate(names)}


@pytest.fixture
def folder(tmp_path: Path, contents: dict[str, bytes]) -> Path:
    for name, content in contents.items():
        path = tmp_path / "clips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "clips"


def opened(folder: Path) -> Source:
    return open_source(str(folder), media="clip")


def config(**changed: object) -> TrainingConfig:
    values = {"epochs": 1, "batch_size": 2, "lr": 0.1, "image_size": VIEW.size, **changed}
    return TrainingConfig(**values)  # type: ignore[arg-type]


def right(clips: TrainingClips) -> bool:
    """Whether every clip is the decoded one, in every epoch."""
    for index, record in enumerate(clips.records):
        expected = decode_clip(clips.source.read(record), record.name, VIEW)
        for epoch in (0, 7):
            clip, label = clips[epoch, index]
            if not torch.equal(clip, expected) or label != record.label:
                return False
    return True


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the clips that are decoded, in no particular order."""
    names: list[str] = []
    lock = threading.Lock()

    def recorded(content: bytes, name: str, view: ClipView) -> torch.Tensor:
        with lock:
            names.append(name)
        return decode_clip(content, name, view)

    monkeypatch.setattr(clips_module, "decode_clip", recorded)
    return names


@pytest.fixture(params=["memory", "again", "cache", "cache and memory"])
def way(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path | None:
    """Each way in which decoded clips are kept, as the file of the cache."""
    if "memory" not in request.param:
        monkeypatch.setattr(clips_module, "CACHE_BYTES", 0)
        monkeypatch.setattr(data_module, "CACHE_BYTES", 0)
    return tmp_path / "c.h5" if "cache" in request.param else None


def test_clips_are_the_decoded_ones_however_they_are_kept(folder: Path, way: Path | None, decoded: list[str]) -> None:
    source = opened(folder)
    clips = decoded_clips(source, source.records, VIEW, way)
    assert right(clips)
    assert sorted(decoded)[:8] == sorted(record.name for record in source.records) or way is None
    assert (len(clips), clips.image_bytes, clips.composition.own) == (8, 3 * 3 * 8 * 8, 8)
    assert clips.digest() == TrainingClips(source, VIEW).digest()
    assert clips.content == "".join(source.state_checksums(source.records))


def test_broken_clips_are_named_and_left_out(
    folder: Path, way: Path | None, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / BROKEN).write_bytes((folder / BROKEN).read_bytes()[:900])
    source = opened(folder)
    for _ in range(2):
        clips = decoded_clips(source, source.records, VIEW, way)
        assert BROKEN not in [record.name for record in clips.records]
        assert len(clips) == 7
        assert right(clips)
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Left out")]
        assert len(said) == 1
        assert said[0].startswith(f"Left out of {folder}: 1 of 8 clips. The clip {BROKEN} is broken: ")


def test_if_all_are_broken_it_is_refused(folder: Path) -> None:
    for path in folder.rglob("*.avi"):
        path.write_bytes(b"")
    source = opened(folder)
    with pytest.raises(UserError, match=r"None of the 8 clips of .* can be used \(The clip .* the file is empty\.\)"):
        decoded_clips(source, source.records, VIEW)


def test_many_broken_clips_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in sorted(folder.rglob("*.avi"))[:5]:
        path.write_bytes(b"")
    source = opened(folder)
    assert len(decoded_clips(source, source.records, VIEW)) == 3
    assert "5 of 8 clips. The clip a/0.avi is broken: " in (said := capsys.readouterr().err)
    assert said.strip().splitlines()[-1].endswith(" ... and 2 more.")


def test_a_clip_that_cannot_be_read_is_refused(folder: Path) -> None:
    source = opened(folder)
    (folder / BROKEN).unlink()
    with pytest.raises(UserError, match=rf"The clip {BROKEN} of .* cannot be read \(No such file or directory\)"):
        decoded_clips(source, source.records, VIEW)


def test_a_full_cache_decodes_nothing_and_reads_no_file(
    folder: Path, tmp_path: Path, decoded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    source = opened(folder)
    first = decoded_clips(source, source.records, VIEW, tmp_path / "c.h5")
    before = (tmp_path / "c.h5").read_bytes()
    decoded.clear()
    capsys.readouterr()
    again = decoded_clips(source, source.records, VIEW, tmp_path / "c.h5")
    assert all(torch.equal(first[0, index][0], again[0, index][0]) for index in range(8))
    assert not decoded
    assert not capsys.readouterr().err
    assert (tmp_path / "c.h5").read_bytes() == before


def test_a_full_cache_is_read_where_it_cannot_be_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened(folder)
    decoded_clips(source, source.records, VIEW, tmp_path / "c.h5")
    opened_for: list[int] = []
    open_file = os.open

    def recorded(path: object, flags: int, *words: int) -> int:
        opened_for.extend([flags] * (path == tmp_path / "c.h5"))
        return open_file(path, flags, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", recorded)
    assert right(decoded_clips(source, source.records, VIEW, tmp_path / "c.h5"))
    assert opened_for
    assert not any(flags & (os.O_RDWR | os.O_WRONLY) for flags in opened_for)


def test_an_interrupted_run_goes_on(
    folder: Path,
    tmp_path: Path,
    decoded: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = opened(folder)
    monkeypatch.setattr(clips_module, "_AT_ONCE", 3)
    read = source.read

    def interrupted(record: object) -> bytes:
        if len(decoded) >= 3:
            raise KeyboardInterrupt
        return read(record)  # type: ignore[arg-type]

    monkeypatch.setattr(source, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        decoded_clips(source, source.records, VIEW, tmp_path / "c.h5")
    done = set(decoded)
    decoded.clear()
    monkeypatch.setattr(source, "read", read)
    capsys.readouterr()
    assert right(decoded_clips(source, source.records, VIEW, tmp_path / "c.h5"))
    assert "decode: 8/8 clips" in capsys.readouterr().err
    assert len(done) == 3
    assert sorted(decoded) == sorted({record.name for record in source.records} - done)


def test_training_and_measured_clips_share_a_cache(folder: Path, tmp_path: Path) -> None:
    source = opened(folder)
    held_out = source.part(source.records[6:])
    path = tmp_path / "c.h5"
    for _ in range(2):
        training, measured = training_clips(
            source.part(source.records[:6]), held_out, config(), frames=VIEW.frames, held_out_limit=1, cache=path
        )
        assert (len(training), len(measured)) == (6, 1)
        assert right(training)
        assert right(measured)
    with pytest.raises(UserError, match=r"lacks 1 of 2 \(such as b/3.avi\)"):
        decoded_clips(held_out, held_out.records, VIEW, path)


def test_without_clips_to_measure_on_some_are_kept_back(folder: Path) -> None:
    source = opened(folder)
    training, measured = training_clips(source, None, config(), frames=VIEW.frames, limit=6)
    assert (len(training), len(measured)) == (5, 1)
    assert set(training.records).isdisjoint(measured.records)


def test_too_few_clips_are_refused_before_they_are_decoded(folder: Path, decoded: list[str]) -> None:
    source = opened(folder)
    with pytest.raises(UserError, match=r"training clips in .*, fewer than one batch of 16; give more clips"):
        training_clips(source, source, config(batch_size=16), frames=VIEW.frames)
    assert not decoded
    with pytest.raises(UserError, match="--limit is 0"):
        training_clips(source, source, config(), frames=VIEW.frames, limit=0)


@pytest.mark.slow
@pytest.mark.parametrize("loaders", [0, 2])
def test_batches_are_of_clips(folder: Path, way: Path | None, loaders: int) -> None:
    source = opened(folder)
    clips = decoded_clips(source, source.records, VIEW, way)
    with epoch_batches(clips, config(loaders=loaders), epoch=0, first_step=0, rank=0) as batches:
        found = list(batches)
    assert [clip.shape for clip, _ in found] == [(2, 3, 3, 8, 8)] * 4
    every = {clip.numpy().tobytes(): label for clip, label in (clips[0, index] for index in range(8))}
    assert {each.numpy().tobytes() for clip, _ in found for each in clip} == every.keys()
    for clip, label in found:
        assert [every[each.numpy().tobytes()] for each in clip] == label.tolist()
    assert [clip.shape[0] for clip, _ in batched(clips, 5)] == [5, 3]


def test_what_does_not_fit_into_memory_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clips_module, "CACHE_BYTES", 0)
    source = opened(folder)
    decoded_clips(source, source.records, VIEW)
    assert "too much to keep: each is decoded when used. --cache stores them." in capsys.readouterr().err
