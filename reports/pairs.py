"""Originals beside their AdvBN versions, as in the paper's Figure 7."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from basics.files import atomic_path

_GAP = 4
_PAIR_GAP = 14
_SHOWN_SIDE = 96
_PAPER = "white"


def write_pairs(path: Path, pairs: Sequence[tuple[Image.Image, Image.Image]], columns: int = 4) -> None:
    """Write a sheet of image pairs, each original on the left of its perturbed version.

    Args:
        path: PNG to write.
        pairs: (original, perturbed), square and of equal size; small ones are enlarged without smoothing.
        columns: pairs in a row.

    Raises:
        ValueError: there are no pairs.
    """
    if not pairs:
        raise ValueError("no pairs to show")
    side = max(1, round(_SHOWN_SIDE / pairs[0][0].width)) * pairs[0][0].width
    pair_width, row_height = 2 * side + _GAP, side + _GAP
    rows = -(-len(pairs) // columns)
    sheet = Image.new(
        "RGB", (columns * (pair_width + _PAIR_GAP) + _PAIR_GAP, rows * row_height + 2 * _PAIR_GAP), _PAPER
    )
    for index, pair in enumerate(pairs):
        left = _PAIR_GAP + (index % columns) * (pair_width + _PAIR_GAP)
        top = _PAIR_GAP + (index // columns) * row_height
        for place, image in enumerate(pair):
            enlarged = image.resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (left + place * (side + _GAP), top))
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="png")


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns."""
    widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]
    rule = ["-" * width for width in widths]
    lines = (head, rule, *rows)
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
