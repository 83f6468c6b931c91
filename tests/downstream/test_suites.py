"""The published layouts: what is found in them, and what is refused."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import timm

from basics.errors import UserError
from downstream.mce import CORRUPTIONS
from downstream.suites import Subset, TestSetPaths, find_subsets, is_published_choice
from downstream.testset import TestSet
from sources.decode import View
from tests.shifted import CLASSES, corrupted, filtered
from tests.support import image_folder
from tests.trio import Trio

PUBLISHED = View(crop=224, resize=256)


def found(**locations: object) -> list[Subset]:
    return find_subsets(TestSetPaths(**{name: str(path) for name, path in locations.items()}))[0]  # type: ignore[arg-type]


def opened(**locations: object) -> list[TestSet]:
    return [subset.open() for subset in found(**locations)]


def refusal(**locations: object) -> str:
    with pytest.raises(UserError) as caught:
        opened(**locations)
    return str(caught.value)


def test_all_75_subsets_in_the_papers_order(tmp_path: Path) -> None:
    subsets = found(imagenet_c=corrupted(tmp_path / "c", flat=("fog", "pixelate")))
    assert [each.name for each in subsets] == [
        f"imagenet-c/{name}/{level}" for name in CORRUPTIONS for level in range(1, 6)
    ]
    assert {each.suite for each in subsets} == {"imagenet-c"}


def test_flat_and_mixed_layouts_hold_the_same(tmp_path: Path) -> None:
    names = ("fog", "snow", "contrast")
    trees = [
        corrupted(tmp_path / str(number), flat=flat, corruptions=names, severities=(1, 3))
        for number, flat in enumerate([(), names, ("snow",)])
    ]
    first, *others = [opened(imagenet_c=tree) for tree in trees]
    for other in others:
        assert [each.name for each in other] == [each.name for each in first]
        for one, two in zip(first, other, strict=True):
            assert one.records == two.records
            assert [one.source.read(r) for r in one.records] == [two.source.read(r) for r in two.records]


def test_folders_that_belong_to_no_corruption_are_returned(tmp_path: Path) -> None:
    root = corrupted(tmp_path / "c", corruptions=("fog",))
    for extra in ("extra/speckle_noise/1", "weather/spatter/1", "weather/fog/6", ".git/x"):
        image_folder(root / extra, classes=CLASSES, per_class=1)
    subsets, ignored = find_subsets(TestSetPaths(imagenet_c=str(root)))
    assert [each.name for each in subsets] == [f"imagenet-c/fog/{level}" for level in range(1, 6)]
    assert sorted(Path(path).name for path in ignored) == ["6", "extra", "spatter"]


def test_a_corruption_in_both_layouts_is_refused(tmp_path: Path) -> None:
    root = corrupted(tmp_path / "c", corruptions=("fog",))
    corrupted(root, flat=("fog",), corruptions=("fog",))
    assert "holds fog twice" in refusal(imagenet_c=root)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("imagenet_c", "holds none of ImageNet-C's corruptions, but circle, ring, star"),
        ("imagenet_instagram", "holds images directly in the folder circle; give a folder of <filter>/<class>/"),
    ],
)
def test_class_folders_are_no_other_layout(tmp_path: Path, option: str, message: str) -> None:
    assert message in refusal(**{option: image_folder(tmp_path / "x", classes=CLASSES)})


@pytest.mark.parametrize("option", ["imagenet_sketch", "imagenet_style"])
def test_filters_are_no_class_folders(tmp_path: Path, option: str) -> None:
    assert "its images lie deeper" in refusal(**{option: filtered(tmp_path / "x", 3)})


def test_class_folders_without_severities_are_refused(tmp_path: Path) -> None:
    image_folder(tmp_path / "c/fog", classes=CLASSES)
    assert "holds no folder of a severity, 1 to 5, but circle" in refusal(imagenet_c=tmp_path / "c")


def test_an_empty_subset_is_refused(tmp_path: Path) -> None:
    root = corrupted(tmp_path / "c", corruptions=("fog",), severities=(1, 2))
    (root / "weather/fog/4").mkdir()
    assert "fog/4 holds no images" in refusal(imagenet_c=root)
    filtered(tmp_path / "i", 1)
    (tmp_path / "i/Zed").mkdir()
    assert "Zed holds no images" in refusal(imagenet_instagram=tmp_path / "i")


@pytest.mark.parametrize(
    "option", ["imagenet_c", "imagenet_instagram", "imagenet_sketch", "imagenet_style", "imagenet"]
)
def test_what_is_not_there_is_refused(tmp_path: Path, option: str) -> None:
    assert "nowhere" in refusal(**{option: tmp_path / "nowhere"})


def test_nothing_and_too_much_are_refused(tmp_path: Path) -> None:
    assert "No test set was given" in refusal()
    assert "--labels belongs to --imagenet" in refusal(labels=tmp_path)
    assert "holds 21 folders" in refusal(imagenet_instagram=filtered(tmp_path / "i", 21))
    (tmp_path / "none").mkdir()
    assert "holds no folder;" in refusal(imagenet_instagram=tmp_path / "none")


def test_style_with_and_without_val(tmp_path: Path) -> None:
    inner = image_folder(tmp_path / "style/val", classes=CLASSES)
    ours = [found(imagenet_style=path)[0].open() for path in (tmp_path / "style", inner)]
    assert ours[0].records == ours[1].records
    assert {each.name for each in ours} == {"imagenet-style"}


def timm_list(name: str) -> list[str]:
    """A published list, as timm ships it."""
    return (Path(timm.data.__file__).parent / "_info" / name).read_text().split()


def with_an_image_each(root: Path, folders: Sequence[str]) -> Path:
    for name in folders:
        (root / name).mkdir(parents=True)
        (root / name / "image.jpeg").touch()
    return root


@pytest.mark.slow
def test_the_folders_of_imagenet_v2_are_indices_and_not_sorted_as_text(tmp_path: Path) -> None:
    (data,) = opened(imagenet_v2=with_an_image_each(tmp_path / "v2", [str(index) for index in range(1000)]))
    assert {record.name: record.label for record in data.records} == {
        f"{index}/image.jpeg": index for index in range(1000)
    }
    assert list(data.source.classes.names) == timm_list("imagenet_synsets.txt")
    assert data.source.classes.imagenet


@pytest.mark.parametrize("name", ["imagenet_r", "imagenet_a"])
def test_the_200_classes_are_the_published_ones_of_the_1000(tmp_path: Path, name: str) -> None:
    wnids, indices = timm_list(f"{name}_synsets.txt"), [int(index) for index in timm_list(f"{name}_indices.txt")]
    (data,) = opened(**{name: with_an_image_each(tmp_path / name, wnids)})
    assert len(wnids) == 200
    assert [(record.name, record.label) for record in data.records] == [
        (f"{wnid}/image.jpeg", index) for wnid, index in sorted(zip(wnids, indices, strict=True))
    ]
    assert data.present == sorted(indices)


def test_our_shards_by_the_names_of_their_folders(trio: Trio, tmp_path: Path) -> None:
    subsets, _ = find_subsets(TestSetPaths(advbn=[str(trio.advbn), f"{trio.reconstructed}/"]))
    assert [(each.name, each.suite) for each in subsets] == [
        (trio.advbn.name, "advbn"), (trio.reconstructed.name, "reconstructed"),
    ]  # fmt: skip
    assert len(subsets[0].open().records) == 48
    folder = image_folder(tmp_path / "x")
    with pytest.raises(UserError, match="is no data set of this program"):
        find_subsets(TestSetPaths(advbn=[str(folder)]))
    (tmp_path / "imagenet-c").symlink_to(trio.advbn)
    assert find_subsets(TestSetPaths(advbn=[str(tmp_path / "imagenet-c")]))[0][0].name == trio.advbn.name


def test_only_sets_that_are_stored_cropped_are_not_resized(tmp_path: Path) -> None:
    c = corrupted(tmp_path / "c", corruptions=("fog",), side=224)
    style = image_folder(tmp_path / "style", classes=CLASSES, side=230)
    sketch = image_folder(tmp_path / "sketch", classes=CLASSES, side=230)
    instagram = tmp_path / "instagram"
    image_folder(instagram / "one", classes=CLASSES, side=230)
    subsets = found(
        imagenet=sketch, imagenet_c=c, imagenet_instagram=instagram, imagenet_sketch=sketch, imagenet_style=style
    )
    views = {each.suite: each.open().view(PUBLISHED).describe() for each in subsets}
    resized, cropped = "resize 256 bilinear, crop 224", "crop 224"
    assert views == {
        "imagenet": resized, "imagenet-c": cropped, "imagenet-instagram": resized, "imagenet-sketch": resized,
        "imagenet-style": cropped,
    }  # fmt: skip
    # A network that wants other sizes is shown images as it wants them.
    assert subsets[1].open().view(View(crop=380, resize=420)).resize == 420
    assert subsets[1].open().view(View(crop=48, resize=56)).resize == 56


def test_images_too_small_for_the_crop_are_resized(tmp_path: Path) -> None:
    (subset, *_) = found(imagenet_c=corrupted(tmp_path / "c", corruptions=("fog",), side=100))
    assert subset.open().view(PUBLISHED) == PUBLISHED


def test_a_broken_first_image_is_named(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "style", classes=CLASSES)
    first = sorted(root.rglob("*.JPEG"))[0]
    first.write_bytes(b"no image")
    assert first.name in refusal(imagenet_style=root)


def test_the_published_choice_of_batch_norm() -> None:
    chosen = {
        suite: [which for which in ("main", "auxiliary", None) if is_published_choice(suite, which)]
        for suite in ("imagenet", "imagenet-c", "imagenet-instagram", "imagenet-sketch", "imagenet-style", "advbn")
    }
    assert chosen == {
        "imagenet": ["main", None], "imagenet-c": ["main", None], "imagenet-instagram": ["main", None],
        "imagenet-sketch": ["auxiliary", None], "imagenet-style": ["auxiliary", None],
        "advbn": ["main", "auxiliary", None],
    }  # fmt: skip
