"""A cache gives back what was written, goes on after a kill, and is never written over."""

import multiprocessing
import os
import pickle
import shutil
import zlib
from multiprocessing.synchronize import Event
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from basics.errors import UserError, WorkError
from sources.base import Source
from sources.clip_cache import ClipCache, lock_cache, open_cache
from sources.clips import ClipView
from sources.drawn.clips import CLIPS_VERSION, DrawnClips
from sources.opening import open_source
from sources.ucf101 import open_clips
from tests.sources.conftest import WriteFiles

VIEW = ClipView(frames=2, size=4)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    for name in ("a/0.avi", "a/1.avi", "b/2.avi"):
        path = tmp_path / "clips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return open_source(str(tmp_path / "clips"), media="clip")


def opened(path: Path, source: Source) -> ClipCache:
    (cache,) = open_cache(path, VIEW, [(source, source.records)])
    return cache


def clip(seed: int) -> Tensor:
    return torch.randint(256, (3, 2, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def filled(path: Path, source: Source) -> ClipCache:
    cache = opened(path, source)
    cache.write({record: clip(number) for number, record in enumerate(source.records)})
    return cache


def test_clips_come_back_in_any_process_and_from_a_copy(tmp_path: Path, source: Source) -> None:
    cache = opened(tmp_path / "new" / "c.h5", source)
    assert cache.stored(source.records) == set()
    cache.write({source.records[1]: clip(1)})
    assert cache.stored(source.records) == {source.records[1]}
    cache.write({source.records[0]: clip(0), source.records[2]: clip(2)})
    again = pickle.loads(pickle.dumps(opened(tmp_path / "new" / "c.h5", source)))
    for number, record in enumerate(source.records):
        assert torch.equal(again.read(record), clip(number))
    # As any reader of HDF5 sees it.
    with h5py.File(tmp_path / "new" / "c.h5") as file:
        assert file["clips"].shape == (3, 3, 2, 4, 4)
        assert np.array_equal(file["clips"][2], clip(2).numpy())
        assert file["names"].asstr()[:].tolist() == ["a/0.avi", "a/1.avi", "b/2.avi"]
        assert file["crc32"][2] == zlib.crc32(clip(2).numpy().tobytes())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["c.h5"], "no temporary file is left"


def test_a_file_that_is_being_filled_can_be_opened(tmp_path: Path, source: Source) -> None:
    cache = opened(tmp_path / "c.h5", source)
    with lock_cache(tmp_path / "c.h5"):
        other = opened(tmp_path / "c.h5", source)
        cache.write({source.records[1]: clip(1)})
        assert other.stored(source.records) == {source.records[1]}
        assert torch.equal(other.read(source.records[1]), clip(1))


def test_others_may_read_it_as_other_files(tmp_path: Path, source: Source) -> None:
    opened(tmp_path / "c.h5", source)
    (tmp_path / "plain").touch()
    assert (tmp_path / "c.h5").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_part_of_the_clips_is_found(tmp_path: Path, source: Source) -> None:
    filled(tmp_path / "c.h5", source)
    part = source.part(source.records[1:])
    cache, other = open_cache(tmp_path / "c.h5", VIEW, [(part, part.records), (source, source.records[:1])])
    assert torch.equal(cache.read(source.records[2]), clip(2))
    assert torch.equal(other.read(source.records[0]), clip(0))


@pytest.mark.parametrize("kind", ["tar", "folder"])
def test_clips_of_the_same_name_in_both_splits_have_rows_of_their_own(
    kind: str, tmp_path: Path, write_tar: WriteFiles
) -> None:
    files = {f"{split}/a/1.avi": f"{split:>5}".encode() for split in ("train", "test")}
    if kind == "tar":
        where = write_tar(tmp_path / "x.tar", files)
    else:
        where = tmp_path / "x"
        for name, content in files.items():
            (where / name).parent.mkdir(parents=True)
            (where / name).write_bytes(content)
            # As files have that were unpacked in the same second.
            os.utime(where / name, (10**9, 10**9))
    sets = [(source, source.records) for source in (open_clips(str(where), split=split) for split in ("train", "test"))]
    training, test = open_cache(tmp_path / "c.h5", VIEW, sets)
    assert {*training.rows} == {*test.rows} == {"a/1.avi"}
    assert sorted([*training.rows.values(), *test.rows.values()]) == [0, 1]
    # A run on one of both finds the same row.
    assert open_cache(tmp_path / "c.h5", VIEW, sets[1:])[0].rows == test.rows


def test_changed_or_further_clips_are_refused(tmp_path: Path, source: Source) -> None:
    filled(tmp_path / "c.h5", source)
    before = (tmp_path / "c.h5").read_bytes()
    os.utime(tmp_path / "clips/a/1.avi", (1e9, 1e9))
    with pytest.raises(UserError, match=r"is of other clips: it lacks 1 of 3 \(such as a/1.avi\)"):
        opened(tmp_path / "c.h5", source)
    assert (tmp_path / "c.h5").read_bytes() == before


def test_clips_that_were_drawn_otherwise_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = DrawnClips("test", 16)
    sets = [(source, source.records[:2])]
    open_cache(tmp_path / "cache.h5", VIEW, sets)
    open_cache(tmp_path / "cache.h5", VIEW, sets)
    monkeypatch.setattr("sources.drawn.clips.CLIPS_VERSION", CLIPS_VERSION + 1)
    with pytest.raises(UserError, match=r"is of other clips: it lacks 2 of 2"):
        open_cache(tmp_path / "cache.h5", VIEW, sets)


def test_other_frames_are_refused(tmp_path: Path, source: Source) -> None:
    filled(tmp_path / "c.h5", source)
    with pytest.raises(UserError, match="has clips of 2 frames of 4 px, not 2 of 8; give another --cache"):
        open_cache(tmp_path / "c.h5", ClipView(frames=2, size=8), [(source, source.records)])


@pytest.mark.parametrize("content", [b"", b"text" * 1000])
def test_a_file_of_another_program_is_refused_and_kept(content: bytes, tmp_path: Path, source: Source) -> None:
    path = tmp_path / "c.h5"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged or of another program .* --cache"):
        opened(path, source)
    assert path.read_bytes() == content


def test_an_hdf5_file_of_another_program_is_refused_and_kept(tmp_path: Path, source: Source) -> None:
    path = tmp_path / "c.h5"
    with h5py.File(path, "w") as file:
        file["x"] = 1
    content = path.read_bytes()
    with pytest.raises(UserError, match="is no cache of clips; give another --cache"):
        opened(path, source)
    assert path.read_bytes() == content


def test_a_file_that_is_cut_off_or_changed_is_refused(tmp_path: Path, source: Source) -> None:
    path = tmp_path / "c.h5"
    cache = filled(path, source)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(UserError, match="damaged"):
        opened(path, source)
    at = cache.layout.clips + 3
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(WorkError, match=r"The cache .* is damaged \(at a/0\.avi\); restore it, .* --cache"):
        opened(path, source).read(source.records[0])
    assert torch.equal(opened(path, source).read(source.records[1]), clip(1))


def test_a_file_that_lacks_a_column_is_refused(tmp_path: Path, source: Source) -> None:
    filled(tmp_path / "c.h5", source)
    with h5py.File(tmp_path / "c.h5", "r+") as file:
        del file["done"]
    with pytest.raises(UserError, match="is damaged"):
        opened(tmp_path / "c.h5", source)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, source: Source) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"The cache .* cannot be written \(.*\); give another --cache"):
        opened(tmp_path / "file" / "c.h5", source)
    with pytest.raises(UserError, match="cannot be read"):
        opened(tmp_path, source)


def test_a_full_disk_is_said(tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = opened(tmp_path / "c.h5", source)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(WorkError, match=r"cannot be written \(No space left on device\); make room"):
        cache.write({source.records[0]: clip(0)})
    assert not cache.stored(source.records)


def test_a_clip_is_marked_after_its_pixels_are_on_the_disk(
    tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of the file after each single write holds only whole clips, as a kill at that moment would leave it."""
    path = tmp_path / "c.h5"
    cache = opened(path, source)
    states: list[Path] = []
    write = os.pwrite

    def recorded(*words: object) -> int:
        done = write(*words)  # type: ignore[arg-type]
        states.append(Path(shutil.copy(path, tmp_path / f"state{len(states)}.h5")))
        return done

    monkeypatch.setattr(os, "pwrite", recorded)
    cache.write({record: clip(number) for number, record in enumerate(source.records)})
    assert len(states) == 9
    for state in states:
        left = opened(state, source)
        for number, record in enumerate(source.records):
            if record in left.stored(source.records):
                assert torch.equal(left.read(record), clip(number))
    assert len(opened(states[-1], source).stored(source.records)) == 3


def _hold(path: Path, ready: Event, go: Event) -> None:
    with lock_cache(path):
        ready.set()
        go.wait(60)


@pytest.mark.slow
def test_two_runs_add_one_after_the_other(tmp_path: Path, source: Source) -> None:
    path = tmp_path / "c.h5"
    filled(path, source)
    context = multiprocessing.get_context("fork")
    ready, go = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(path, ready, go))
    process.start()
    assert ready.wait(60)
    waiting = context.Process(target=_hold, args=(path, context.Event(), go))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    go.set()
    process.join(60)
    waiting.join(60)
    assert (process.exitcode, waiting.exitcode) == (0, 0)


def test_a_run_that_comes_second_takes_the_first_ones_file(
    tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.h5"
    link = os.link

    def beaten(temporary: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        filled(path, source)
        link(temporary, target)

    monkeypatch.setattr(os, "link", beaten)
    cache = opened(path, source)
    assert torch.equal(cache.read(source.records[0]), clip(0))
