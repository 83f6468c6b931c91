"""The published numbers of Tables 4 to 7, compared with the paper's own text where that is at hand."""

import re
from pathlib import Path

import pytest

from downstream.mce import CORRUPTIONS
from reports.published_tables_4_to_7 import (
    published_row_names,
    set_scores,
    table_4_row,
    table_5_errors,
    table_5_methods,
    table_7_rows,
    tables_1_and_6_methods,
)

ABBREVIATED = {
    "Gauss.": "gaussian_noise", "Shot": "shot_noise", "Impulse": "impulse_noise", "Defocus": "defocus_blur",
    "Glass": "glass_blur", "Motion": "motion_blur", "Zoom": "zoom_blur", "Snow": "snow", "Frost": "frost", "Fog": "fog",
    "Bright": "brightness", "Contrast": "contrast", "Elastic": "elastic_transform", "Pixel": "pixelate",
    "JPEG": "jpeg_compression",
}  # fmt: skip


@pytest.fixture
def text(shared_data: Path) -> str:
    return (shared_data.parent / "papers/advbn-appendix.txt").read_text()


def test_table_4(text: str) -> None:
    section = text.split("\nTable 4: ")[1].split("\nTable 5: ", maxsplit=1)[0]
    lines = section.replace("<b>", "").replace("</b>", "").splitlines()
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in lines if "\t" in line}
    (names,) = (cells for cells in rows.values() if "Gauss." in cells)
    assert [ABBREVIATED[name] for name in names if name in ABBREVIATED] == list(CORRUPTIONS)
    for name, ours in (("Base model", "Standard Training"), ("AdvBN", "AdvBN")):
        row = table_4_row(ours)
        assert row is not None
        assert [row.clean_error, *row.ce.values(), row.mce] == [float(cell) for cell in rows[name] if cell]


def test_table_5(text: str) -> None:
    """Each named line has the AugMix errors, the one below it those of AugMix + AdvBN (reasons in the module)."""
    start = text.index("Model\tCorruption")
    lines = [line.split("\t") for line in text[start:].split("In Table 4", maxsplit=1)[0].splitlines() if "\t" in line]
    found: dict[str, dict[tuple[str, int], float]] = {name: {} for name in table_5_methods()}
    corruptions: list[str] = []
    for cells in lines:
        numbers = [float(cell) for cell in cells if cell.isdigit()]
        named = [cell.split("-")[1] for cell in cells if re.match(r"(Blur|Weather|Digital|Noise)-", cell)]
        if not numbers or numbers[:5] == [1, 2, 3, 4, 5]:
            continue
        corruptions = [ABBREVIATED[name] for name in named] or corruptions
        method = "AugMix" if named else "AugMix + AdvBN"
        for number, corruption in enumerate(corruptions):
            for level in range(5):
                found[method][corruption, level + 1] = numbers[5 * number + level]
    for method, errors in found.items():
        assert len(errors) == 75
        assert table_5_errors(method) == errors


def test_table_6(text: str) -> None:
    rows = [
        line.split("\t") for line in text.splitlines() if line.startswith(("DenseNet-121 + ", "EfficientNet-B0 + "))
    ]
    for name, *cells in rows:
        pairs = [[float(number) for number in re.findall(r"\d+\.\d", cell)] for cell in cells]
        for position, method in enumerate((name.split(" + ")[0], name)):
            scores = set_scores(method)
            assert scores is not None
            assert [scores.mce, scores.instagram, scores.sketch, scores.style] == [pair[position] for pair in pairs]
    assert len(rows) == 2


def test_table_7_and_a_row_of_table_1(text: str) -> None:
    start = text.index("Table 7: ")
    rows = {
        cells[0]: [float(cell) for cell in cells[1:]]
        for cells in (line.split("\t") for line in text[start:].splitlines()[3:6])
    }
    names = {"Standard Training": ("Standard Training", None), "AdvBN (w/ main BN)": ("AdvBN", "main"),
             "AdvBN (w/ aux. BN)": ("AdvBN", "auxiliary")}  # fmt: skip
    assert sorted(map(str, table_7_rows())) == sorted(map(str, names.values()))
    for label, (name, which) in names.items():
        scores = set_scores(name, which)
        assert scores is not None
        assert [scores.mce, scores.instagram, scores.sketch, scores.style] == rows[label]
    advbn = set_scores("AdvBN")
    assert advbn is not None
    assert [advbn.imagenet, advbn.mce, advbn.instagram, advbn.sketch, advbn.style] == [77.0, 72.7, 69.5, 27.9, 11.9]


def test_unknown_rows_are_none() -> None:
    assert (set_scores("Nobody's"), table_4_row("Nobody's"), table_5_errors("Nobody's")) == (None, None, None)
    assert set_scores("DenseNet-121", "main") is None
    assert set(tables_1_and_6_methods()) | set(table_5_methods()) == set(published_row_names())
