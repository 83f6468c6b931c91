import pytest
from torchvision.datasets import folder

from basics.errors import UserError
from sources.names import (
    IMG_EXTENSIONS,
    check_printable,
    choose_split,
    is_document,
    is_hidden,
    is_image,
    is_label,
    is_media,
    mentioned_splits,
    of_split,
    same_split,
    splits_among,
)


def test_the_extensions_are_torchvisions() -> None:
    assert folder.IMG_EXTENSIONS == IMG_EXTENSIONS


@pytest.mark.parametrize(
    ("name", "expected"), [("a.JPEG", True), ("b.Png", True), ("c.txt", False), ("png", False), ("d.jpg.md", False)]
)
def test_images_are_recognised_by_extension_in_any_case(name: str, expected: bool) -> None:
    assert is_image(name) is expected
    assert folder.is_image_file(name) is expected


def test_clips_are_recognised_by_the_extensions_of_their_containers() -> None:
    clips = ["a.avi", "b/c.MP4", "d.mkv", "e.webm", "f.MoV", "g.mpg"]
    assert all(is_media(name, "clip") and not is_media(name, "image") for name in clips)
    assert not any(is_media(name, "clip") for name in ("a.jpg", "avi", "a.avi.txt", "a.gif"))
    assert is_media("a.jpg", "image")


def test_words_for_splits_are_found_in_names() -> None:
    assert mentioned_splits(["ucf-Train-0.tar", "x_validation.tgz", "trainer.tar"]) == {"train", "val"}
    assert mentioned_splits([]) == set()


@pytest.mark.parametrize(
    ("path", "expected"), [("a/._x.jpg", True), (".DS_Store", True), (".git/x.jpg", True), ("a.b/x.y.jpg", False)]
)
def test_hidden_is_any_part_that_starts_with_a_dot(path: str, expected: bool) -> None:
    assert is_hidden(path) is expected


@pytest.mark.parametrize(
    ("word", "split", "expected"),
    [
        ("val", "val", True),
        ("validation", "val", True),
        ("Valid", "validation", True),
        ("train", "val", False),
        ("fold3", "fold3", True),
        ("cat", "dog", False),
    ],
)
def test_a_split_has_synonyms(word: str, split: str, expected: bool) -> None:
    assert same_split(word, split) is expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["README.md", "a/labels.TXT", "LICENSE", "SHA256SUMS", "boxes.xml", "net.pth", "a.cls"], True),
        (["a.gif", "a.heic", "a.npy", "a.mp4", "a.zip", "a.tar", "a.png.part", "0a1b", "pixels"], False),
    ],
)
def test_documents_are_known_by_their_names(names: list[str], expected: bool) -> None:
    assert [is_document(name) for name in names] == [expected] * len(names)


def test_labels_are_known_in_any_case() -> None:
    assert [is_label(name) for name in ("a.cls", "d/a.CLS", "a.5x.cls", "cls", "a.class")] == [True] * 3 + [False] * 2


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ("Training Testing", "Training Testing"),
        ("train2014 val2014", "train2014 val2014"),
        ("training_set test_set", "training_set test_set"),
        ("seg_train seg_test seg_val", "seg_train seg_test seg_val"),
        ("seg_train seg_test seg_pred", "seg_train seg_test seg_pred"),
        ("bounding_box_train bounding_box_test query", "bounding_box_train bounding_box_test query"),
        ("query gallery", "query gallery"),
        ("train val cat", "train val"),
        ("train", ""),
        ("test1 test2", ""),
        ("train_interior train_station", ""),
        ("train_station test_tube train", ""),
        ("trainer tester", ""),
        ("cat dog", ""),
    ],
)
def test_folders_that_differ_in_a_word_for_a_split_are_splits(folders: str, expected: str) -> None:
    assert splits_among(folders.split()) == set(expected.split())


def test_files_of_a_split_are_chosen_by_whole_words() -> None:
    names = ["x-train-0.tar", "x-validation-0.tar", "x-val-1.tar", "evaluated.tar"]
    assert choose_split(names, "val", "here") == ["x-validation-0.tar", "x-val-1.tar"]


@pytest.mark.parametrize(
    ("words", "split", "expected"),
    [
        (["train", "test"], "val", ["test"]),
        (["train", "test", "valid"], "val", ["valid"]),
        (["train", "val"], "test", []),
        (["val", "test"], "train", []),
    ],
)
def test_a_test_part_stands_for_a_val_that_is_not_there(words: list[str], split: str, expected: list[str]) -> None:
    assert of_split(words, split) == expected


def test_files_without_a_split_are_all_taken() -> None:
    assert choose_split(["0.tar", "trainer.tar"], "val", "here") == ["0.tar", "trainer.tar"]


def test_a_split_that_no_file_has_is_refused() -> None:
    with pytest.raises(UserError, match=r"here holds files of the split train and none of val"):
        choose_split(["x-train-0.tar"], "val", "here")


def test_a_name_that_is_not_utf8_is_refused() -> None:
    check_printable(["ä/写.png"], "here")
    with pytest.raises(UserError, match="here holds a file whose name is not UTF-8"):
        check_printable(["a.png", b"a\xff.png".decode("utf-8", "surrogateescape")], "here")
