"""Splits of clips: published lists, groups, folders and tars; what does not fit is refused in one sentence."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from upath import UPath

from basics.errors import UserError
from sources.drawn.clips import MOTIONS
from sources.ucf101 import LISTS_FOLDER, open_clips, training_digests
from tests.sources.conftest import WriteFiles

CLASSES = ("Archery", "Hammering", "HammerThrow", "HandstandPushups")
TRAIN = [f"{name}/v_{name}_g{group:02}_c01.avi" for name in CLASSES for group in (8, 25)]
TEST = [f"{name}/v_{name}_g{group:02}_c02.avi" for name in CLASSES for group in (1, 7)]
ODD = {name: name.replace("v_HandstandPushups", "v_HandStandPushups") for name in TRAIN + TEST}
FILES = {ODD[name]: b"x" for name in TRAIN + TEST}


def lists(number: int = 1) -> dict[str, bytes]:
    """The published lists, as they are: numbers from 1, and no newline after the last line of the test list."""
    label = {name: number for number, name in enumerate(CLASSES, 1)}
    return {
        "classInd.txt": "".join(f"{label[name]} {name}\r\n" for name in CLASSES).encode(),
        f"trainlist{number:02}.txt": "".join(f"{ODD[n]} {label[n.split('/')[0]]}\n" for n in TRAIN).encode(),
        f"testlist{number:02}.txt": "\n".join(ODD[name] for name in TEST).encode(),
    }


def write(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def labelled(address: Path | str, split: str, **options: object) -> dict[str, int]:
    source = open_clips(str(address), split=split, **options)  # type: ignore[arg-type]
    assert source.address == str(address)
    assert all(source.read(record) for record in source.records)
    assert [record.label for record in source.records] == sorted(record.label for record in source.records)
    names = source.classes.names
    return {record.name: names.index(record.name.split("/")[0]) - record.label for record in source.records}


def of(names: list[str]) -> dict[str, int]:
    return dict.fromkeys((ODD[name] for name in names), 0)


def test_the_groups_1_to_7_are_for_testing(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    assert labelled(tmp_path, "train") == of(TRAIN)
    assert labelled(tmp_path, "test") == of(TEST)
    # The published numbers of the classes, which take capitals for small letters.
    assert open_clips(str(tmp_path), split="test").classes.names == CLASSES


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_a_tar_is_read_as_a_folder_is(suffix: str, tmp_path: Path, write_tar: WriteFiles) -> None:
    path = write_tar(tmp_path / f"clips.{suffix}", {f"UCF-101/{name}": content for name, content in FILES.items()})
    assert labelled(path, "train") == of(TRAIN)
    assert labelled(path, "test") == of(TEST)


def test_a_server_is_read_as_a_disk_is(tmp_path: Path, write_tar: WriteFiles) -> None:
    root = UPath("memory://ucf101")
    files = {f"data/UCF-101/{name}": b"x" for name in FILES}
    files |= {f"data/{LISTS_FOLDER}/{name}": content for name, content in lists().items()}
    files["tars/clips.tar"] = write_tar(tmp_path / "clips.tar", FILES).read_bytes()
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    for address in (root / "data", root / "data" / "UCF-101", root / "tars" / "clips.tar"):
        assert labelled(str(address), "train") == of(TRAIN)
        assert labelled(str(address), "test") == of(TEST)


@pytest.mark.parametrize("where", ["beside", "inside", "above", "given", "among"])
def test_published_lists_are_found(where: str, tmp_path: Path) -> None:
    clips = tmp_path / "data" / "UCF-101"
    folder = {
        "beside": tmp_path / "data" / LISTS_FOLDER,
        "inside": clips / LISTS_FOLDER,
        "above": tmp_path / "data" / LISTS_FOLDER,
        "given": tmp_path / "elsewhere",
        "among": clips,
    }[where]
    write(clips, FILES)
    write(folder, lists())
    address = tmp_path / "data" if where == "above" else clips
    options = {"lists": str(folder)} if where == "given" else {}
    assert labelled(address, "train", **options) == of(TRAIN)
    assert labelled(address, "test", **options) == of(TEST)
    assert open_clips(str(address), split="test", **options).classes.names == CLASSES  # type: ignore[arg-type]


def test_lists_go_with_a_tar_and_have_numbers(tmp_path: Path, write_tar: WriteFiles) -> None:
    path = write_tar(tmp_path / "clips.tar", FILES)
    folder = write(tmp_path / LISTS_FOLDER, lists(3))
    assert labelled(path, "test", number=3) == of(TEST)
    with pytest.raises(UserError, match=rf"The split list {folder}/trainlist01\.txt does not exist"):
        open_clips(str(path), split="test")


def test_clips_in_no_list_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, FILES | {"Archery/v_Archery_g01_c09.avi": b"x"})
    write(tmp_path / LISTS_FOLDER, lists())
    assert labelled(tmp_path, "test") == of(TEST)
    assert "1 clip in no split list (such as Archery/v_Archery_g01_c09.avi)." in capsys.readouterr().err


def test_clips_that_lists_name_and_the_data_lacks_are_refused(tmp_path: Path) -> None:
    missing = ODD[TEST[-1]]
    write(tmp_path, {name: content for name, content in FILES.items() if name != missing})
    write(tmp_path / LISTS_FOLDER, lists())
    assert labelled(tmp_path, "train") == of(TRAIN)
    with pytest.raises(UserError, match=rf"lacks 1 of the 8 clips of .*testlist01\.txt \(such as {missing}\); add"):
        open_clips(str(tmp_path), split="test")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("testlist01.txt", b"Archery/v_Arch", b"Arch/v_Arch", "Line 1 of the split list .* names the class Arch, "),
        ("trainlist01.txt", b".avi 2\n", b".avi 3\n", "Line 3 of .* has the number 3, but classInd.txt says 2"),
        ("trainlist01.txt", b" 1\n", b" 1 7\n", "Line 1 of .* is not a path such as"),
        ("testlist01.txt", b"Archery/", b"", "Line 1 of .* is not a path such as"),
        ("testlist01.txt", b"_g07_", b"_g01_", "Line 2 of .* names .* a second time"),
        ("testlist01.txt", b"Archery_g01_c02", b"Archery_g08_c01", "for training and for testing"),
        ("classInd.txt", b"2 Hammering", b"3 Hammering", "Line 2 of the class list .* is not the number 2"),
        ("classInd.txt", b"2 Hammering", b"2 Archery", "Line 2 of the class list .* a new class"),
    ],
)
def test_damaged_lists_are_refused(file: str, old: bytes, new: bytes, message: str, tmp_path: Path) -> None:
    write(tmp_path, FILES)
    found = lists()
    assert old in found[file]
    write(tmp_path / LISTS_FOLDER, found | {file: found[file].replace(old, new, 1)})
    with pytest.raises(UserError, match=message):
        open_clips(str(tmp_path), split="test")


@pytest.mark.parametrize("file", sorted(lists()))
@pytest.mark.parametrize("content", [None, b"\n"])
def test_lists_that_are_missing_or_empty_are_refused(file: str, content: bytes | None, tmp_path: Path) -> None:
    write(tmp_path, FILES)
    write(tmp_path / "lists", {name: text for name, text in lists().items() if name != file})
    if content is not None:
        write(tmp_path / "lists", {file: content})
    with pytest.raises(UserError, match=rf"{file} (does not exist|is empty)"):
        open_clips(str(tmp_path), split="test", lists=str(tmp_path / "lists"))


def test_splits_in_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    write(tmp_path, {f"train/{name}": b"x" for name in FILES} | {f"test/{ODD[name]}": b"x" for name in TEST[:2]})
    assert labelled(tmp_path, "train") == of(TRAIN + TEST)
    assert labelled(tmp_path, "test") == of(TEST[:2])
    with pytest.raises(UserError, match="is stored in splits; leave out the split lists"):
        open_clips(str(tmp_path), split="test", number=2)


def test_validation_clips_are_for_testing_where_there_are_no_others(tmp_path: Path) -> None:
    write(tmp_path, {f"train/{name}": b"x" for name in FILES} | {f"val/{ODD[name]}": b"x" for name in TEST[:2]})
    assert labelled(tmp_path, "train") == of(TRAIN + TEST)
    assert labelled(tmp_path, "test") == of(TEST[:2])
    write(tmp_path, {f"test/{ODD[name]}": b"x" for name in TEST})
    assert labelled(tmp_path, "test") == of(TEST)


def test_splits_in_tars_are_taken_as_they_are(tmp_path: Path, write_tar: WriteFiles) -> None:
    write_tar(tmp_path / "x-train.tar", {ODD[name]: b"x" for name in TEST})
    write_tar(tmp_path / "x-test.tar.gz", {ODD[name]: b"x" for name in TRAIN})
    assert labelled(tmp_path, "train") == of(TEST)
    assert labelled(tmp_path, "test") == of(TRAIN)
    inside = write_tar(
        tmp_path / "one" / "x.tar", {f"a/train/{n}": b"x" for n in FILES} | {f"a/test/{ODD[n]}": b"x" for n in TRAIN}
    )
    assert labelled(inside, "test") == of(TRAIN)
    assert labelled(inside, "train") == of(TRAIN + TEST)


def test_clips_of_one_split_only_are_refused_for_the_other(tmp_path: Path) -> None:
    write(tmp_path, {ODD[name]: b"x" for name in TEST})
    assert labelled(tmp_path, "test") == of(TEST)
    with pytest.raises(UserError, match="has no clips to train on"):
        open_clips(str(tmp_path), split="train")


def test_clips_without_any_split_are_refused_unless_all_are_wanted(tmp_path: Path) -> None:
    write(tmp_path, {f"{name}/{index}.mp4": b"x" for name in ("run", "Walk") for index in range(2)})
    with pytest.raises(UserError, match=r"Nothing says which clips of .* are for testing \(such as .*\); put its "):
        open_clips(str(tmp_path), split="train")
    source = open_clips(str(tmp_path), split="train", undivided=True)
    assert (len(source.records), source.classes.names) == (4, ("Walk", "run"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.avi": b"x"}, "holds clips and no class folders; put the clips of each class into a folder"),
        ({"a/0.png": b"x"}, r"holds no clips of a known kind, but such as a/0\.png; give a folder of class folders or"),
        ({"a/x.avi": b"x", "b/x.flv": b"x"}, r"The folder b of .* has files, but no clip of a known kind"),
        ({"a/b/x.avi": b"x", "a/c/x.avi": b"x"}, r"All clips of .* lie in its one folder a"),
    ],
)
def test_folders_of_other_things_are_refused(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    write(tmp_path, files)
    with pytest.raises(UserError, match=message):
        open_clips(str(tmp_path), split="train")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.avi": b"x"}, "holds clips and no class folders; pack the clips of each class in a folder"),
        ({"a/0.png": b"x"}, r"holds no clip of a known kind, but such as a/0\.png; give a tar of class folders\."),
        ({"0.mp4": b"x", "0.cls": b"0"}, "holds shards; clips are read from class folders and tars"),
    ],
)
def test_tars_of_other_things_are_refused(
    files: dict[str, bytes], message: str, tmp_path: Path, write_tar: WriteFiles
) -> None:
    path = write_tar(tmp_path / "x.tar", files)
    with pytest.raises(UserError, match=message):
        open_clips(str(path), split="train")


def test_what_lies_beside_the_clips_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, FILES | {"stray.avi": b"x", "Archery/.x.avi": b"x", "empty/readme.txt": b"x"})
    assert labelled(tmp_path, "test") == of(TEST)
    assert (
        "1 folder without clips (empty), 1 clip beside the class folders (stray.avi), 1 hidden clip or label"
    ) in capsys.readouterr().err


def test_without_data_clips_are_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    source = open_clips(None, split="train")
    assert source.classes.names == tuple(MOTIONS["target"])
    assert "drawn ones are used" in capsys.readouterr().err
    with pytest.raises(UserError, match="Split lists are given without clips"):
        open_clips(None, split="train", number=2)


def test_an_unknown_split_or_number_is_refused(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    with pytest.raises(UserError, match="no 'dev'; give one of them"):
        open_clips(str(tmp_path), split="dev")
    with pytest.raises(UserError, match="Split 2 is one of the published lists"):
        open_clips(str(tmp_path), split="test", number=2)
    with pytest.raises(UserError, match="does not exist"):
        open_clips(str(tmp_path / "none"), split="test")


def test_real_clips_are_listed(shared_data: Path) -> None:
    for split, count in (("train", 48), ("test", 24)):
        path = shared_data / f"ucf101-6class-{split}-sub.tar"
        if not path.exists():
            pytest.skip(f"no real clips: {path} is absent")
        source = open_clips(str(path), split=split)
        assert (len(source.records), source.classes.count) == (count, 6)


def test_each_split_has_a_checksum_of_its_training_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = write(tmp_path / "UCF-101", FILES | {"Archery/v_Archery_g09_c09.avi": b"x"})
    write(tmp_path / LISTS_FOLDER, {**lists(), **swapped(2)})
    expected = {number: open_clips(str(clips), split="train", number=number).digest() for number in (1, 2)}
    assert expected[1] != expected[2]
    capsys.readouterr()
    assert training_digests(str(clips)) == expected
    assert training_digests(str(clips), str(tmp_path / LISTS_FOLDER)) == expected
    assert not capsys.readouterr().err


def test_without_lists_there_is_no_checksum(tmp_path: Path) -> None:
    assert training_digests(str(write(tmp_path / "a", FILES))) == {}
    divided = {f"{split}/{name}": b"x" for split, names in (("train", TRAIN), ("test", TEST)) for name in names}
    write(tmp_path / LISTS_FOLDER, lists())
    assert training_digests(str(write(tmp_path / "divided", divided))) == {}


def swapped(number: int) -> dict[str, bytes]:
    """Lists of a split that trains on the test clips of the first."""
    label = {name: number for number, name in enumerate(CLASSES, 1)}
    return {
        f"trainlist{number:02}.txt": "".join(f"{ODD[n]} {label[n.split('/')[0]]}\n" for n in TEST).encode(),
        f"testlist{number:02}.txt": "\n".join(ODD[name] for name in TRAIN).encode(),
    }
