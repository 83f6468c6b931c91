"""The sheet of pairs, and tables."""

from pathlib import Path

import pytest
from PIL import Image

from reports.pairs import markdown_table, write_pairs


def test_originals_stand_left_of_their_versions(tmp_path: Path) -> None:
    colours = [((255, 0, 0), (0, 255, 0)), ((0, 0, 255), (255, 255, 0)), ((0, 255, 255), (255, 0, 255))]
    pairs = [(Image.new("RGB", (48, 48), left), Image.new("RGB", (48, 48), right)) for left, right in colours]
    write_pairs(tmp_path / "pairs.png", pairs, columns=2)
    sheet = Image.open(tmp_path / "pairs.png").convert("RGB")
    side = 96
    for index, expected in enumerate(colours):
        left = 14 + (index % 2) * (2 * side + 4 + 14)
        top = 14 + (index // 2) * (side + 4)
        shown = [sheet.getpixel((left + place * (side + 4) + side // 2, top + side // 2)) for place in (0, 1)]
        assert tuple(shown) == expected


def test_no_pairs_make_no_sheet(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pairs"):
        write_pairs(tmp_path / "pairs.png", [])
    assert not list(tmp_path.iterdir())


def test_tables_are_aligned() -> None:
    assert markdown_table(["a", "long head"], [["first", "1"]]).splitlines() == [
        "| a     | long head |",
        "| ----- | --------- |",
        "| first | 1         |",
    ]
