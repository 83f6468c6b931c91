import random
import re

import pytest

from sources.base import ImageRecord
from sources.keys import sample_keys


def keys_of(*names: str) -> list[str]:
    return sample_keys([ImageRecord(name, 0) for name in names])


def test_the_key_is_the_stem() -> None:
    assert keys_of("n01440764/ILSVRC2012_val_00000293.JPEG") == ["ILSVRC2012_val_00000293"]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("c/a.b.c.jpg", "a_b_c"),
        ("c/a b,é.jpg", "a_b__"),
        ("c/x-1_Y.png", "x-1_Y"),
        ("plain.png", "plain"),
        ("c/noextension", "noextension"),
    ],
)
def test_the_key_is_safe(name: str, key: str) -> None:
    assert keys_of(name) == [key]


def test_only_those_that_collide_get_the_class_in_front() -> None:
    assert keys_of("a/1.png", "b/1.png", "b/2.png") == ["a_1", "b_1", "2"]


def test_then_the_whole_folder_path() -> None:
    assert keys_of("a/x/1.png", "a/y/1.png") == ["a_x_1", "a_y_1"]


def test_then_the_extension() -> None:
    assert keys_of("a/1.png", "a/1.jpg") == ["a_1_png", "a_1_jpg"]


def test_then_a_hash_of_the_name() -> None:
    first, second = keys_of("a/é.png", "a/è.png")
    assert re.fullmatch(r"__[0-9a-f]{12}", first)
    assert first != second


def test_a_stem_that_meets_a_longer_key_of_others_moves_on_too() -> None:
    assert keys_of("a/1.png", "b/1.png", "c/a_1.png") == ["a_1", "b_1", "c_a_1"]


def test_a_key_too_long_for_a_file_name_is_cut_off_and_stays_unique() -> None:
    assert keys_of("a/" + "x" * 250 + ".png") == ["x" * 250]
    (cut,) = keys_of("a/" + "x" * 251 + ".png")
    assert re.fullmatch(r"x{237}_[0-9a-f]{12}", cut)
    stem = "x" * 240
    keys = keys_of(f"one class/{stem}.png", f"one class/{stem}.jpg", f"another one/{stem}.png", "b/2.png")
    assert len(set(keys)) == 4
    assert keys[3] == "2"
    assert all(len(key) <= 250 for key in keys)


def test_keys_do_not_depend_on_the_order_of_the_records() -> None:
    generator = random.Random(0)
    names = [f"{a}/{b}{c}.{d}" for a in "ab" for b in ("", "x/", "b_") for c in "1é-" for d in ("png", "jpg")]
    expected = dict(zip(names, keys_of(*names), strict=True))
    assert len(set(expected.values())) == len(names)
    for _ in range(5):
        generator.shuffle(names)
        assert dict(zip(names, keys_of(*names), strict=True)) == expected


def test_two_records_of_one_name_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"two records have the name 'a/1\.png'"):
        keys_of("a/1.png", "a/1.png")
