import io
import json
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from basics.errors import UserError
from basics.files import write_bytes
from sources.base import Source
from sources.drawn import clips, shifts, world
from sources.drawn import source as drawn
from sources.drawn.clips import DrawnClips
from sources.drawn.shifts import SHIFT_SETS, ShiftSource
from sources.drawn.source import PER_CLASS, SHAPES, DrawnSource
from sources.drawn.world import CLIP_SETS, WORLD_FILE, WORLD_SETS, world_counts, write_world
from sources.opening import open_source
from sources.ucf101 import open_clips

FEW = {
    "imagenet-c": ("imagenet-c/noise/shot_noise/1", "imagenet-c/digital/contrast/5"),
    "imagenet-instagram": ("imagenet-instagram/1977",),
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """Shrink the world to a few images; returns how many."""
    for split, count in (("train", 2), ("val", 1)):
        monkeypatch.setitem(drawn.PER_CLASS, split, count)
    for name in SHIFT_SETS:
        monkeypatch.setitem(shifts.MOST_PER_CLASS, name, 1)
    for name, subsets in FEW.items():
        monkeypatch.setitem(shifts.SHIFT_SETS, name, subsets)
    return (2 + 1 + 2 + 1 + 1 + 1 + 1) * len(SHAPES)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def drawn_in_memory(size: int, seed: int) -> dict[str, bytes]:
    sources: dict[str, Source] = {split: DrawnSource(split, size, seed) for split in PER_CLASS}
    sources |= {name: ShiftSource(name, size, seed) for subsets in SHIFT_SETS.values() for name in subsets}
    return {f"{folder}/{r.name}": source.read(r) for folder, source in sources.items() for r in source.records}


def facts(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / WORLD_FILE).read_text())
    return found


def old_world(folder: Path, size: int = 24, seed: int = 0) -> dict[str, bytes]:
    """Write what versions without test sets wrote."""
    for split in PER_CLASS:
        source = DrawnSource(split, size, seed)
        for record in source.records:
            path = folder / split / record.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read(record))
    counts = {split: PER_CLASS[split] * len(SHAPES) for split in PER_CLASS}
    text = {"images": counts, "seed": seed, "size": size, "version": 1, "world": "drawn"}
    (folder / WORLD_FILE).write_text(json.dumps(text, indent=2, sort_keys=True) + "\n")
    return tree(folder)


def test_the_default_world_has_the_counts_that_the_documentation_names() -> None:
    assert world_counts() == {
        "train": 2400,
        "val": 504,
        "imagenet-c": 15 * 5 * 120,
        "imagenet-instagram": 20 * 120,
        "imagenet-sketch": 504,
        "imagenet-style": 504,
        "cue-conflict": 144,
    }


@pytest.mark.slow
def test_a_written_world_holds_the_bytes_that_are_read(tmp_path: Path, small: int) -> None:
    seen: list[tuple[int, int]] = []
    counts = write_world(tmp_path / "w", size=24, seed=5, progress=lambda done, total: seen.append((done, total)))
    assert counts == {
        name: images * len(SHAPES) for name, images in zip(WORLD_SETS, (2, 1, 2, 1, 1, 1, 1), strict=True)
    }
    assert tree(tmp_path / "w") == drawn_in_memory(24, 5)
    assert seen == [(done, small) for done in range(1, small + 1)]
    assert facts(tmp_path / "w")["seed"] == 5
    assert facts(tmp_path / "w")["images"] == counts


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_every_set_opens_as_the_real_one_does(tmp_path: Path) -> None:
    write_world(tmp_path, size=24)
    subsets = ["imagenet-c/noise/shot_noise/1", "imagenet-c/digital/contrast/5", "imagenet-instagram/1977"]
    for folder in (*subsets, "imagenet-sketch", "imagenet-style", "imagenet-style/val", "val", "train"):
        source = open_source(tmp_path / folder, split=folder if folder == "train" else "val")
        assert source.classes.names == SHAPES, folder
        assert len(source.records) == (24 if folder == "train" else 12), folder
        with Image.open(io.BytesIO(source.read(source.records[-1]))) as image:
            assert (image.mode, image.size) == ("RGB", (24, 24))
    # The world's own folder still opens as a data set with two splits.
    assert {record.name for record in open_source(tmp_path).records} == {r.name for r in DrawnSource().records}


def note_written(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    written: list[Path] = []

    def write_and_note(path: Path, content: bytes) -> None:
        written.append(path)
        write_bytes(path, content)

    monkeypatch.setattr(world, "write_bytes", write_and_note)
    return written


@pytest.mark.slow
def test_an_empty_picture_is_drawn_again(tmp_path: Path) -> None:
    write_world(tmp_path, size=24, sets=("val",))
    picture = next((tmp_path / "val").rglob("*.png"))
    content = picture.read_bytes()
    picture.write_bytes(b"")
    write_world(tmp_path, size=24, sets=("val",))
    assert picture.read_bytes() == content


@pytest.mark.slow
def test_a_second_run_draws_only_what_is_missing(tmp_path: Path, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    write_world(tmp_path, size=24)
    complete = tree(tmp_path)
    assert len(complete) == small
    lost = sorted(tmp_path.rglob("*.png"))[::20]
    for path in lost:
        path.unlink()
    lost[0].with_name(lost[0].name + ".tmp").write_bytes(b"half")
    written = note_written(monkeypatch)
    write_world(tmp_path, size=24)
    assert sorted(written) == lost
    assert tree(tmp_path) == complete
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.slow
def test_an_interrupted_run_ends_soon_and_is_gone_on_with(
    tmp_path: Path, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = note_written(monkeypatch)

    def interrupt(done: int, _: int) -> None:
        if done == 30:
            raise KeyboardInterrupt

    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        write_world(tmp_path, size=24, progress=interrupt)
    assert threading.active_count() == threads
    first = tree(tmp_path)
    assert 30 <= len(first) < small
    assert not list(tmp_path.rglob("*.tmp"))
    write_world(tmp_path, size=24)
    assert len(written) == len(set(written)) == small
    assert tree(tmp_path) == drawn_in_memory(24, 0)


@pytest.mark.usefixtures("small")
def test_a_fault_in_drawing_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, _: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(world, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_world(tmp_path, size=24)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_a_world_from_before_there_were_test_sets_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = old_world(tmp_path)
    written = note_written(monkeypatch)
    write_world(tmp_path, size=24)
    assert not {path.relative_to(tmp_path).as_posix() for path in written} & old.keys()
    assert tree(tmp_path) == drawn_in_memory(24, 0)
    assert old.items() <= tree(tmp_path).items()
    assert set(facts(tmp_path)["images"]) == set(WORLD_SETS)  # type: ignore[call-overload]


@pytest.mark.usefixtures("small")
def test_a_world_of_the_splits_alone_is_noted_as_it_always_was(tmp_path: Path) -> None:
    old_world(tmp_path / "old")
    write_world(tmp_path / "new", size=24, sets=PER_CLASS)
    assert (tmp_path / "new" / WORLD_FILE).read_bytes() == (tmp_path / "old" / WORLD_FILE).read_bytes()
    assert tree(tmp_path / "new") == tree(tmp_path / "old")


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_writing_fewer_sets_does_not_forget_the_others(tmp_path: Path) -> None:
    write_world(tmp_path, size=24)
    before, noted = tree(tmp_path), facts(tmp_path)
    write_world(tmp_path, size=24, sets=["val"])
    assert (tree(tmp_path), facts(tmp_path)) == (before, noted)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_sets_written_one_after_the_other_are_recorded_together(tmp_path: Path) -> None:
    for name in WORLD_SETS:
        write_world(tmp_path / "parts", size=24, sets=[name])
    write_world(tmp_path / "whole", size=24)
    assert facts(tmp_path / "parts") == facts(tmp_path / "whole")
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("field", ["version", "shifts_version", "size", "seed", "world", "news"])
def test_a_world_that_another_version_drew_is_refused(tmp_path: Path, field: str) -> None:
    write_world(tmp_path, size=24)
    (tmp_path / WORLD_FILE).write_text(json.dumps({**facts(tmp_path), field: 9}))
    with pytest.raises(UserError, match="another seed or size, or of another version"):
        write_world(tmp_path, size=24)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("images", [None, {}, [], {"train": 3, "val": 12}, {"train": 24, "photos": 1}])
def test_a_world_with_other_counts_is_refused(tmp_path: Path, images: object) -> None:
    write_world(tmp_path, size=24)
    (tmp_path / WORLD_FILE).write_text(json.dumps({**facts(tmp_path), "images": images}))
    with pytest.raises(UserError, match="another version"):
        write_world(tmp_path, size=24)


def test_an_unknown_set_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="imagenet-x"):
        write_world(tmp_path / "w", sets=["val", "imagenet-x"])
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("size", "seed"), [(24, 1), (32, 0)])
def test_another_world_is_refused(tmp_path: Path, size: int, seed: int) -> None:
    write_world(tmp_path, size=24)
    before = tree(tmp_path)
    with pytest.raises(UserError, match="another seed or size"):
        write_world(tmp_path, size=size, seed=seed)
    assert tree(tmp_path) == before


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "val/photos/cat.png",
        "train/circle/circle-train-0001.png",
        "imagenet-c/noise/shot_noise/6/circle/circle-val-0001.png",
        "imagenet-style/circle/circle-val-0001.png",
    ],
)
def test_a_folder_with_other_files_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=Path(name).name):
        write_world(tmp_path, size=24)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("folder", ["val", "imagenet-sketch/circle", "imagenet-instagram/1977"])
def test_a_foreign_file_in_a_finished_world_is_refused(tmp_path: Path, folder: str) -> None:
    write_world(tmp_path, size=24)
    (tmp_path / folder / "mine.png").touch()
    with pytest.raises(UserError, match=r"mine\.png"):
        write_world(tmp_path, size=24)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("text", ["{", "{}", "[]", "7"])
def test_a_broken_world_file_is_refused(tmp_path: Path, text: str) -> None:
    write_world(tmp_path, size=24)
    (tmp_path / WORLD_FILE).write_text(text)
    with pytest.raises(UserError):
        write_world(tmp_path, size=24)


@pytest.fixture
def few_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    for split, count in (("train", 2), ("test", 1)):
        monkeypatch.setitem(clips.CLIPS_PER_CLASS, split, count)
    monkeypatch.setattr(clips, "CLIP_FRAMES", 2)


@pytest.mark.slow
@pytest.mark.usefixtures("small", "few_clips")
def test_clips_are_written_beside_images_or_alone(tmp_path: Path) -> None:
    counts = write_world(tmp_path / "alone", size=24, seed=5, sets=CLIP_SETS)
    assert counts == world_counts(CLIP_SETS) == {"clips": 3 * 8, "clips-pretraining": 3 * 8}
    assert facts(tmp_path / "alone") == {
        "world": "drawn", "version": 1, "size": 24, "seed": 5, "images": counts, "clips_version": 1,
    }  # fmt: skip
    for name, motions in (("clips", "target"), ("clips-pretraining", "pretraining")):
        for split in ("train", "test"):
            written, drawn_ones = (
                open_clips(str(tmp_path / "alone" / name), split=split),
                DrawnClips(split, 24, 5, motions=motions),
            )
            assert (written.records, written.classes) == (drawn_ones.records, drawn_ones.classes)
            assert all(written.read(record) == drawn_ones.read(record) for record in written.records[::5])
    write_world(tmp_path / "images", size=24, seed=5, sets=["val"])
    before = facts(tmp_path / "images")
    write_world(tmp_path / "images", size=24, seed=5, sets=CLIP_SETS)
    both = facts(tmp_path / "images")
    assert both == {**before, "images": {**before["images"], **counts}, "clips_version": 1}  # type: ignore[dict-item]
    write_world(tmp_path / "images", size=24, seed=5, sets=["val"])
    assert facts(tmp_path / "images") == both


@pytest.mark.usefixtures("few_clips")
def test_without_pyav_no_clip_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match="Clips need PyAV"):
        write_world(tmp_path / "w", sets=CLIP_SETS)
    assert not (tmp_path / "w").exists()
