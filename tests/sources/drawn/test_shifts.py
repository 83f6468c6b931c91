import hashlib
import io
import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from basics.errors import UserError
from downstream.cue_conflict import texture_labels
from sources.drawn import shifts
from sources.drawn.shifts import FILTERS, SHIFT_SETS, ShiftSource
from sources.drawn.source import SHAPES, DrawnSource
from sources.opening import open_source
from tests.processes import environment

ALL = [subset for subsets in SHIFT_SETS.values() for subset in subsets]
SOME = [
    "imagenet-c/noise/gaussian_noise/2",
    "imagenet-c/blur/glass_blur/5",
    "imagenet-c/weather/frost/3",
    "imagenet-c/digital/elastic_transform/1",
    "imagenet-instagram/toaster",
    "imagenet-sketch",
    "imagenet-style/val",
    "cue-conflict",
]


def pixels(content: bytes) -> npt.NDArray[np.float64]:
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image, np.float64)


def test_the_folders_are_those_of_the_real_sets() -> None:
    assert len(SHIFT_SETS["imagenet-c"]) == 75
    assert "imagenet-c/noise/impulse_noise/1" in SHIFT_SETS["imagenet-c"]
    assert "imagenet-c/blur/zoom_blur/5" in SHIFT_SETS["imagenet-c"]
    assert "imagenet-c/weather/brightness/3" in SHIFT_SETS["imagenet-c"]
    assert "imagenet-c/digital/jpeg_compression/4" in SHIFT_SETS["imagenet-c"]
    assert len(SHIFT_SETS["imagenet-instagram"]) == 20
    assert SHIFT_SETS["imagenet-sketch"] == ("imagenet-sketch",)
    assert SHIFT_SETS["imagenet-style"] == ("imagenet-style/val",)
    assert SHIFT_SETS["cue-conflict"] == ("cue-conflict",)
    assert len(set(ALL)) == 98


@pytest.mark.parametrize("subset", SOME)
def test_images_are_named_after_the_validation_images_they_are_made_of(subset: str) -> None:
    source = ShiftSource(subset)
    names = [record.name for record in source.records]
    val = [record.name for record in DrawnSource("val").records]
    assert names == sorted(names)
    assert source.classes.names == SHAPES
    assert source.order == "ImageFolder"
    assert [SHAPES[record.label] for record in source.records] == [name.partition("/")[0] for name in names]
    if subset == "imagenet-sketch":
        assert names[43] == "bolt/bolt-sketch-0002.png"
        assert len(names) == 504
    elif subset == "imagenet-style/val":
        assert names == val
    elif subset == "cue-conflict":
        assert names[:2] == ["arrow/arrow01-bolt01.png", "arrow/arrow02-circle02.png"]
        assert len(names) == 144
    else:
        assert names == [name for name in val if int(name[-8:-4]) <= 10]


@pytest.mark.parametrize("subset", SOME)
def test_a_folder_of_it_opens_as_the_same_source(subset: str, tmp_path: Path) -> None:
    source = ShiftSource(subset, size=24)
    for record in source.records:
        path = tmp_path / "w" / subset / record.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read(record) if record.label in (0, 5) else b"x")
    opened = open_source(tmp_path / "w" / subset)
    assert list(opened.records) == list(source.records)
    assert opened.classes == source.classes
    assert opened.digest() == source.digest()
    for record in source.records[:: len(source.records) // 2 - 1]:
        if record.label in (0, 5):
            assert opened.read(record) == source.read(record)


def test_the_parent_of_the_stylized_split_opens_as_that_split(tmp_path: Path) -> None:
    source = ShiftSource("imagenet-style/val", size=16)
    for record in source.records[::10]:
        path = tmp_path / "imagenet-style" / "val" / record.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read(record))
    assert len(open_source(tmp_path / "imagenet-style").records) == len(source.records[::10])


def digests(subsets: list[str], indices: list[int]) -> dict[str, list[str]]:
    found = {}
    for subset in subsets:
        source = ShiftSource(subset, size=32, seed=3)
        found[subset] = [hashlib.sha256(source.read(source.records[index])).hexdigest() for index in indices]
    return found


@pytest.mark.slow
def test_another_process_draws_the_same_bytes_in_any_order() -> None:
    expected = digests(SOME, [0, 57, 119])
    code = (
        "import json\nfrom tests.sources.drawn.test_shifts import SOME, digests\n"
        "print(json.dumps(digests(SOME[::-1], [119, 57, 0])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(PYTHONHASHSEED="7"), check=True
    )
    there = json.loads(done.stdout)
    assert {subset: found[::-1] for subset, found in there.items()} == expected


@pytest.mark.slow
def test_pickles_and_threads_draw_the_same_bytes() -> None:
    for subset in SOME:
        source = ShiftSource(subset, size=32)
        records = source.records[::31]
        first = [source.read(record) for record in records]
        copy: ShiftSource = pickle.loads(pickle.dumps(source))
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(copy.read, records)) == first


def noise(subset: str, index: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """What a corrupted image differs in from its original."""
    source, val = ShiftSource(subset, 48, seed), DrawnSource("val", 48, seed)
    record = source.records[index]
    return pixels(source.read(record)) - pixels(val.read(record))


def test_every_image_has_chance_of_its_own() -> None:
    # Impulses hit the same pixels only where seeds are the same, whatever the picture.
    base = "imagenet-c/noise/impulse_noise"
    hits = [
        noise(f"{base}/5", 0) != 0,
        noise(f"{base}/5", 1) != 0,  # the next image of the class
        noise(f"{base}/5", 10) != 0,  # the same number in the next class
        noise(f"{base}/4", 0) != 0,  # another severity
        noise(f"{base}/5", 0, seed=1) != 0,  # another world
        np.abs(noise("imagenet-c/noise/gaussian_noise/5", 0)) > 100,  # another corruption
    ]
    for number, hit in enumerate(hits):
        assert hit.mean() > 0.1
        for other in hits[number + 1 :]:
            assert np.corrcoef(hit.ravel(), other.ravel())[0, 1] == pytest.approx(0, abs=0.06)


def test_every_corruption_and_severity_has_chance_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    first = []

    def note(picture: npt.NDArray[np.uint8], _: str, __: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        first.append(rng.random())
        return picture

    monkeypatch.setattr(shifts, "corrupt", note)
    for subset in SHIFT_SETS["imagenet-c"]:
        source = ShiftSource(subset, 16)
        source.read(source.records[0])
    assert len(set(first)) == 75


@pytest.mark.slow
def test_a_corrupted_image_is_made_of_the_one_whose_name_it_has() -> None:
    val = DrawnSource("val", 48)
    others = np.stack([pixels(val.read(record)).ravel() for record in val.records[::5]])
    for subset in (
        "imagenet-c/weather/brightness/1",
        "imagenet-c/digital/jpeg_compression/1",
        "imagenet-instagram/lark",
    ):
        source = ShiftSource(subset, 48)
        for record in source.records[3::17]:
            shifted = pixels(source.read(record)).ravel()
            alike = np.corrcoef(shifted, pixels(val.read(record)).ravel())[0, 1]
            assert alike > 0.85
            assert alike >= max(np.corrcoef(shifted, other)[0, 1] for other in others) - 1e-9


@pytest.mark.slow
def test_every_filter_changes_colours_in_its_own_way_and_nothing_else() -> None:
    val = DrawnSource("val", 48)
    seen = set()
    for name in FILTERS:
        source = ShiftSource(f"imagenet-instagram/{name}", 48)
        content = [source.read(record) for record in source.records[::30]]
        seen.add(content[0])
        for record, shifted in zip(source.records[::30], content, strict=True):
            old, new = pixels(val.read(record)), pixels(shifted)
            assert new.shape == old.shape
            assert np.abs(new - old).mean() > 4, name
    assert len(seen) == 20


def test_filters_without_colour_leave_grey() -> None:
    source = ShiftSource("imagenet-instagram/inkwell", 48)
    image = pixels(source.read(source.records[40]))
    assert (np.ptp(image, axis=2) <= 1).all()


@pytest.mark.slow
def test_sketches_are_new_drawings() -> None:
    sketch, val = ShiftSource("imagenet-sketch", 48), DrawnSource("val", 48)
    stems = {Path(record.name).stem for record in val.records}
    assert not stems & {Path(record.name).stem for record in sketch.records}

    def middle(image: npt.NDArray[np.float64]) -> float:
        rows, columns = np.nonzero(image.mean(axis=2) < 150)
        return float(np.hypot(rows.mean() - 24, columns.mean() - 24))

    middles = {round(middle(pixels(sketch.read(record))), 1) for record in sketch.records[:40]}
    assert len(middles) > 20


@pytest.mark.parametrize(
    ("subset", "size", "seed"),
    [
        ("imagenet-c", 64, 0),
        ("imagenet-c/noise/gaussian_noise", 64, 0),
        ("imagenet-c/noise/gaussian_noise/6", 64, 0),
        ("imagenet-c/blur/gaussian_noise/1", 64, 0),
        ("imagenet-instagram/perpetua", 64, 0),
        ("imagenet-style", 64, 0),
        ("val", 64, 0),
        ("", 64, 0),
        ("imagenet-sketch", 8, 0),
        ("imagenet-sketch", 64, -1),
    ],
)
def test_what_cannot_be_drawn_is_refused(subset: str, size: int, seed: int) -> None:
    with pytest.raises(UserError):
        ShiftSource(subset, size, seed)


def test_an_unknown_record_is_not_drawn() -> None:
    with pytest.raises(FileNotFoundError, match="val-0011"):
        ShiftSource("imagenet-instagram/aden").read(DrawnSource("val").records[10])


@pytest.mark.parametrize("subset", ALL)
def test_every_subset_draws_images_of_the_asked_size(subset: str) -> None:
    source = ShiftSource(subset, size=17)
    assert pixels(source.read(source.records[-1])).shape == (17, 17, 3)


def test_cue_conflict_has_each_texture_once_in_each_shape() -> None:
    source = ShiftSource("cue-conflict", size=48)
    texture_N = texture_labels(source.records, source.classes.names)
    assert texture_N is not None
    pairs = {(record.label, int(texture)) for record, texture in zip(source.records, texture_N, strict=True)}
    assert pairs == {(shape, texture) for shape in range(12) for texture in range(12)}
    # The ground is plain, and the shape has two colours, one of them the texture's.
    image = pixels(source.read(source.records[5]))
    colours, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
    assert len(colours[counts > 0.01 * counts.sum()]) >= 3
