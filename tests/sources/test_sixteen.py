"""The 16 classes of cue conflict, against the table of facts."""

import re
from pathlib import Path

import pytest

from sources.classes import imagenet_names
from sources.sixteen import SIXTEEN, is_sixteen


def test_the_table_is_that_of_the_facts(shared_data: Path) -> None:
    facts = shared_data.parent / "spec/more-test-sets.md"
    if not facts.is_file():
        pytest.skip(f"no table of facts: {facts} is absent")
    found = {}
    for line in facts.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 2 and re.fullmatch(r"\d[\d, -]*", cells[1]):
            parts = [part.split("-") for part in cells[1].replace(" ", "").split(",")]
            found[cells[0]] = tuple(index for part in parts for index in range(int(part[0]), int(part[-1]) + 1))
    assert found == dict(SIXTEEN)


@pytest.mark.parametrize(
    ("name", "some", "none"),
    [
        ("airplane", {"airliner"}, {"warplane"}),
        ("bear", {"brown bear", "American black bear"}, {"koala"}),
        ("car", {"convertible", "sports car", "beach wagon"}, {"minivan", "cab"}),
        ("cat", {"tabby", "Egyptian cat", "cougar"}, {"lion"}),
        ("elephant", {"Indian elephant", "African elephant"}, {"tusker"}),
        ("knife", {"cleaver"}, {"letter opener"}),
        ("dog", {"Siberian husky", "toy poodle"}, {"Chihuahua", "timber wolf", "dalmatian"}),
    ],
)
def test_classes_hold_what_they_are_called(name: str, some: set[str], none: set[str]) -> None:
    found = {imagenet_names()[index].split(",")[0] for index in SIXTEEN[name]}
    assert some <= found
    assert not none & found


def test_no_class_of_imagenet_is_in_two() -> None:
    indices = [index for group in SIXTEEN.values() for index in group]
    assert len(indices) == len(set(indices))
    assert max(indices) < 1000


def test_only_all_sixteen_folders_are_these_classes() -> None:
    names = sorted(SIXTEEN)
    assert is_sixteen(names)
    assert not is_sixteen(names[1:])
    assert not is_sixteen([*names, "zebra"])
