from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from basics.errors import UserError
from sources.base import ImageRecord
from sources.classes import imagenet_map
from sources.devkit import read_devkit
from sources.opening import open_source

WriteFiles = Callable[[Path, Mapping[str, bytes]], Path]
MakeDevkit = Callable[[Path, list[int]], Path]

FILES = [f"ILSVRC2012_val_0000000{number}.JPEG" for number in (1, 2, 3)]
STEMS = [file.removesuffix(".JPEG") for file in FILES]
LABELS = [65, 970, 65]
WNIDS = [imagenet_map().names[label] for label in LABELS]
EXPECTED = [
    ImageRecord(f"{WNIDS[0]}/{FILES[0]}", 65),
    ImageRecord(f"{WNIDS[2]}/{FILES[2]}", 65),
    ImageRecord(f"{WNIDS[1]}/{FILES[1]}", 970),
]


def lines(*texts: str) -> str:
    return "".join(text + "\n" for text in texts)


@pytest.fixture
def flat(tmp_path: Path, write_folder: WriteFiles) -> Path:
    return write_folder(tmp_path / "flat", {file: file.encode() for file in FILES})


@pytest.mark.parametrize(
    "text",
    [
        lines(*(f"{file} {wnid}" for file, wnid in zip(FILES, WNIDS, strict=True))),
        lines(*(f"{file}\t{label}" for file, label in zip(FILES, LABELS, strict=True))),
        lines(*(f"{file},{label}" for file, label in zip(FILES, LABELS, strict=True))),
        lines(*(f"val/{file}   {wnid}" for file, wnid in zip(FILES, WNIDS, strict=True))),
        lines("ILSVRC2012_val_00000009.JPEG 3", "", *(f"{stem} {w}" for stem, w in zip(STEMS, WNIDS, strict=True))),
        lines("ImageId,PredictionString", *(f"{s},{w} 85 1 499 272 " for s, w in zip(STEMS, WNIDS, strict=True))),
        lines('"file","label"', *(f'"{f}","{label}"' for f, label in zip(FILES, LABELS, strict=True))),
        lines(*WNIDS),
        lines(*WNIDS).replace("\n", "\r\n"),
        lines(*WNIDS, *["n01440764"] * 49_997),
    ],
    ids=["wnid", "tab", "comma", "folder", "stem", "kaggle", "quoted", "only wnids", "carriage returns", "all 50000"],
)
def test_every_form_of_label_list_gives_the_sorted_folders(tmp_path: Path, flat: Path, text: str) -> None:
    (tmp_path / "labels").write_bytes(text.encode())
    source = open_source(str(flat), labels=str(tmp_path / "labels"))
    assert list(source.records) == EXPECTED
    assert source.classes == imagenet_map()
    assert [source.read(record).decode() for record in source.records] == [FILES[0], FILES[2], FILES[1]]


def test_a_flat_folder_equals_the_same_images_in_class_folders(
    tmp_path: Path, flat: Path, write_folder: WriteFiles
) -> None:
    (tmp_path / "labels").write_text(lines(*WNIDS))
    nested = write_folder(tmp_path / "nested", {record.name: b"" for record in EXPECTED})
    assert open_source(str(flat), labels=str(tmp_path / "labels")).digest() == open_source(str(nested)).digest()


@pytest.mark.parametrize("prefix", ["", "./", "images/"])
def test_a_flat_tar_is_read_too(tmp_path: Path, write_tar: WriteFiles, prefix: str) -> None:
    path = write_tar(tmp_path / "ILSVRC2012_img_val.tar", {prefix + file: file.encode() for file in FILES})
    (tmp_path / "labels").write_text(lines(*WNIDS))
    source = open_source(str(path), labels=str(tmp_path / "labels"))
    assert list(source.records) == EXPECTED
    assert [source.read(record).decode() for record in source.records] == [FILES[0], FILES[2], FILES[1]]


@pytest.mark.slow
@pytest.mark.parametrize("position", ["flat", ".", "given"])
def test_the_devkit_gives_the_labels(tmp_path: Path, flat: Path, make_devkit: MakeDevkit, position: str) -> None:
    """In the folder or beside it, it is found; elsewhere it is given."""
    devkit = make_devkit(tmp_path / position, [5, 900, 17])
    source = open_source(str(flat), labels=str(devkit) if position == "given" else None)
    found = {record.name.partition("/")[2]: record.name.partition("/")[0] for record in source.records}
    assert [found[file] for file in FILES] == read_devkit(devkit)


@pytest.mark.slow
def test_the_devkit_is_found_beside_the_folder_of_a_split(
    tmp_path: Path, write_folder: WriteFiles, make_devkit: MakeDevkit
) -> None:
    write_folder(tmp_path / "val", dict.fromkeys(FILES, b""))
    make_devkit(tmp_path, [5, 900, 17])
    assert len(open_source(str(tmp_path)).records) == 3


@pytest.mark.slow
def test_the_archives_as_downloaded_are_a_source(
    tmp_path: Path, write_tar: WriteFiles, make_devkit: MakeDevkit
) -> None:
    write_tar(tmp_path / "ILSVRC2012_img_val.tar", dict.fromkeys(FILES, b""))
    write_tar(tmp_path / "ILSVRC2012_img_train.tar", {"n01440764/n01440764_1.JPEG": b""})
    make_devkit(tmp_path, [5, 900, 17])
    assert len(open_source(str(tmp_path)).records) == 3


@pytest.mark.slow
def test_the_bare_ground_truth_is_read_with_its_meta_file(tmp_path: Path, flat: Path, make_devkit: MakeDevkit) -> None:
    """Its numbers look like indices but are ILSVRC2012_IDs."""
    devkit = make_devkit(tmp_path / "elsewhere", [5, 900, 17])
    given = open_source(str(flat), labels=str(devkit / "data" / "ILSVRC2012_validation_ground_truth.txt"))
    assert given.records == open_source(str(flat), labels=str(devkit)).records


def test_lines_belong_to_other_file_names_in_sorted_order(tmp_path: Path, write_folder: WriteFiles) -> None:
    write_folder(tmp_path / "flat", {"b.png": b"", "a.png": b""})
    (tmp_path / "labels").write_text(lines("7", "0"))
    source = open_source(str(tmp_path / "flat"), labels=str(tmp_path / "labels"))
    assert [(record.name[-5:], record.label) for record in source.records] == [("b.png", 0), ("a.png", 7)]


def test_a_flat_folder_without_labels_is_refused(flat: Path) -> None:
    with pytest.raises(UserError, match=r"flat holds images but no class folders; give .* --labels .*devkit"):
        open_source(str(flat))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"labels is empty"),
        ("ImageId,PredictionString\n", r"labels is empty"),
        (lines("a.JPEG 3", "b.JPEG 1001"), r"Line 2 of the label list .* is wrong \(b\.JPEG 1001\)"),
        (lines("a.JPEG 3", "b.JPEG 1000"), r"Line 2 of the label list .* has the class 1000, .* ILSVRC's own ids"),
        (
            lines("490", "361", "1000"),
            r"Line 3 of the label list .* has the class 1000, .*; give the .* devkit, or wnids",
        ),
        (lines("a.JPEG 3", "", "b.JPEG"), r"Line 3 of the label list .* is wrong \(b\.JPEG\)"),
        (lines("a.JPEG n00000000"), r"Line 1 of the label list .* is wrong"),
        (lines("1", "-1"), r"Line 2 of the label list .* is wrong"),
        (lines("1", "a.JPEG 1"), r"Line 2 of the label list .* is wrong"),
        (lines("a.JPEG,", "b.JPEG,1"), r"Line 1 of the label list .* is wrong"),
        (lines("a.JPEG 3", "a.JPEG 4"), r"Line 2 of the label list .* names a\.JPEG again"),
        (lines(f"{FILES[1]} 3"), rf"lacks 2 of the 3 images in .*flat \(such as {FILES[0]}\)"),
        (lines("n01440764", "n01440764"), rf"lacks 1 of the 3 images in .*flat \(such as {FILES[2]}\)"),
    ],
)
def test_a_wrong_label_list_is_refused(tmp_path: Path, flat: Path, text: str, message: str) -> None:
    (tmp_path / "labels").write_text(text)
    with pytest.raises(UserError, match=message):
        open_source(str(flat), labels=str(tmp_path / "labels"))


@pytest.mark.parametrize("numbers", [[490, 361, 171], [489, 360, 170], [0, 1, 2], [490, 361, 171, 822, 297]])
def test_bare_numbers_are_no_labels_of_the_validation_images(tmp_path: Path, flat: Path, numbers: list[int]) -> None:
    """They may be ILSVRC's own ids, or these minus 1, and nothing in them shows it."""
    (tmp_path / "any name.csv").write_text(lines(*map(str, numbers)))
    with pytest.raises(UserError, match=r"any name\.csv has numbers without names for ILSVRC2012 .* own ids .*devkit"):
        open_source(str(flat), labels=str(tmp_path / "any name.csv"))


@pytest.mark.parametrize("form", [["a.png 7", "b.png 0"], ["7", "0"]])
def test_a_notice_says_how_numbers_are_taken(
    tmp_path: Path, write_folder: WriteFiles, capsys: pytest.CaptureFixture[str], form: list[str]
) -> None:
    write_folder(tmp_path / "flat", {"b.png": b"", "a.png": b""})
    (tmp_path / "labels").write_text(lines(*form))
    open_source(str(tmp_path / "flat"), labels=str(tmp_path / "labels"))
    assert "labels are taken for ImageNet-1k indices (0 to 999, by sorted wnid)" in capsys.readouterr().err


def test_wnids_are_taken_without_a_notice(tmp_path: Path, flat: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "labels").write_text(lines(*WNIDS))
    open_source(str(flat), labels=str(tmp_path / "labels"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("names", [[f"{n}.png" for n in range(1, 13)], ["x9-1.png", "x10-1.png"], ["9.png", "10.jpg"]])
@pytest.mark.parametrize("label", ["7", "n01440764"])
def test_files_whose_order_is_unclear_are_refused(
    tmp_path: Path, write_folder: WriteFiles, names: list[str], label: str
) -> None:
    write_folder(tmp_path / "flat", dict.fromkeys(names, b""))
    (tmp_path / "labels").write_text(lines(*[label] * len(names)))
    with pytest.raises(UserError, match=r"as text \S+ comes before \S+, as numbers after it; put the file name before"):
        open_source(str(tmp_path / "flat"), labels=str(tmp_path / "labels"))
    (tmp_path / "labels").write_text(lines(*(f"{name} {label}" for name in names)))
    assert len(open_source(str(tmp_path / "flat"), labels=str(tmp_path / "labels")).records) == len(names)


@pytest.mark.parametrize(
    "names", [["01.png", "02.png", "10.png"], ["cat10.png", "dog9.png"], ["a1b22.png", "a2b1.png"]]
)
def test_files_with_one_order_are_taken(tmp_path: Path, write_folder: WriteFiles, names: list[str]) -> None:
    write_folder(tmp_path / "flat", dict.fromkeys(names, b""))
    (tmp_path / "labels").write_text(lines(*map(str, range(len(names)))))
    source = open_source(str(tmp_path / "flat"), labels=str(tmp_path / "labels"))
    assert [record.name.partition("/")[2] for record in source.records] == names


def test_lines_that_are_not_as_many_as_the_files_are_refused(tmp_path: Path, write_folder: WriteFiles) -> None:
    write_folder(tmp_path / "flat", {"b.png": b"", "a.png": b""})
    (tmp_path / "labels").write_text(lines("7"))
    with pytest.raises(UserError, match=r"labels has 1 lines without names for 2 images"):
        open_source(str(tmp_path / "flat"), labels=str(tmp_path / "labels"))


def test_a_missing_label_list_is_refused(tmp_path: Path, flat: Path) -> None:
    with pytest.raises(UserError, match=r"The label list .*nowhere does not exist"):
        open_source(str(flat), labels=str(tmp_path / "nowhere"))


def test_tiny_imagenets_validation_images_are_read_as_the_refusal_says(
    tmp_path: Path, write_folder: WriteFiles
) -> None:
    listed = lines("val_0.JPEG\tn02124075\t0\t32\t44\t62", "val_1.JPEG\tn04067472\t52\t55\t57\t59")
    val = write_folder(
        tmp_path / "tiny/val",
        {"images/val_0.JPEG": b"", "images/val_1.JPEG": b"", "val_annotations.txt": listed.encode()},
    )
    images, annotations = val / "images", val / "val_annotations.txt"
    for address, labels in ((val, None), (val, annotations), (tmp_path / "tiny", None)):
        with pytest.raises(UserError) as refusal:
            open_source(address, labels=labels)
        assert str(refusal.value).endswith(f"which is no class; give {images}, with --labels {annotations}.")
    source = open_source(images, labels=annotations)
    assert [(record.name, record.label) for record in source.records] == [
        ("n02124075/val_0.JPEG", 285),
        ("n04067472/val_1.JPEG", 758),
    ]
