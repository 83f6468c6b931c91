"""The published numbers, compared with the paper's own text where that is at hand."""

import re
from pathlib import Path

from reports.published_table_8 import table_8_methods, table_8_row


def test_every_row_of_table_8_is_the_papers(shared_data: Path) -> None:
    text = (shared_data.parent / "papers/advbn-appendix.txt").read_text()
    table = text[text.index("Table 8: **") :]
    lines = [line.split("\t") for line in table.splitlines() if re.match(r"[^\t]+\t\d+\.\d\t", line)][:14]
    assert len(lines) == 14
    assert [line[0].rstrip("*") for line in lines] == table_8_methods()
    for name, *cells in lines:
        values = [float(number) for cell in cells for number in re.findall(r"\d+\.\d", cell)]
        for encoder, first in (("vgg", 1), ("resnet", 5)):
            row = table_8_row(name.rstrip("*"), encoder)
            assert row is not None
            assert [row.original, *row.advbn, *row.reconstructed] == [values[0], *values[first : first + 4]]


def test_some_values_of_table_8() -> None:
    vgg, resnet = (table_8_row("Standard Training", encoder) for encoder in ("vgg", "resnet"))
    assert vgg is not None
    assert resnet is not None
    assert (vgg.original, vgg.reconstructed, vgg.advbn) == (76.1, (45.8, 70.6), (1.6, 4.7))
    assert (resnet.reconstructed, resnet.advbn) == ((65.7, 86.9), (0.4, 1.3))


def test_unknown_rows_are_none() -> None:
    assert table_8_row("Nobody's", "vgg") is None
    assert table_8_row("AdvBN", "third") is None
