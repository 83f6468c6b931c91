"""Published numbers of the AdvBN paper's Table 8: accuracy on ImageNet, its reconstructions and ImageNet-AdvBN.

`reports.gap` puts them beside ours. Tables 1 and 4 to 7 are in `reports.published_tables_4_to_7`.
"""

from dataclasses import dataclass

TABLE_8_SAMPLES = 50_000
"""Images of ImageNet's validation set, on which Table 8 was measured."""


@dataclass(frozen=True, kw_only=True)
class GapRow:
    """A row of Table 8 for one encoder, in per cent; top-5 on the originals is not printed there."""

    method: str
    """Name of the row."""
    original: float
    """Top-1."""
    reconstructed: tuple[float, float]
    """Top-1, top-5."""
    advbn: tuple[float, float]
    """Top-1, top-5."""


# Method: top-1 on ImageNet; then top-1 and top-5 on AdvBN-VGG, VGG reconstructed, AdvBN-ResNet, ResNet reconstructed.
TABLE_8: dict[str, tuple[float, ...]] = {
    "Standard Training": (76.1, 1.6, 4.7, 45.8, 70.6, 0.4, 1.3, 65.7, 86.9),
    "MoEx (w/ Cutmix)": (79.1, 1.0, 2.9, 40.2, 63.8, 0.3, 1.1, 65.7, 86.8),
    "Adv. Training": (76.6, 2.0, 5.5, 48.1, 72.5, 0.5, 1.5, 68.0, 88.3),
    "AdvBN": (77.0, 4.7, 11.9, 46.8, 71.4, 1.7, 4.0, 67.2, 87.9),
    "AdvProp": (77.4, 1.6, 4.5, 53.1, 76.6, 0.3, 0.9, 71.1, 90.0),
    "AdvProp + AdvBN": (77.3, 7.4, 17.2, 51.4, 75.3, 1.8, 4.2, 70.5, 89.7),
    "Cutmix": (78.6, 1.1, 3.2, 39.0, 62.2, 0.3, 1.0, 64.6, 85.8),
    "Cutmix + AdvBN": (78.4, 4.1, 10.3, 42.3, 66.3, 1.4, 3.4, 66.7, 87.4),
    "AA": (76.4, 1.9, 5.3, 45.8, 70.2, 0.8, 2.3, 65.5, 86.9),
    "AA + AdvBN": (76.5, 6.3, 15.6, 54.6, 78.3, 2.9, 6.4, 66.4, 87.3),
    "Fast AA": (77.8, 1.9, 5.0, 43.4, 67.0, 0.8, 2.5, 66.8, 87.3),
    "Fast AA + AdvBN": (77.6, 5.1, 12.8, 44.4, 68.5, 1.8, 4.4, 67.4, 87.8),
    "AugMix": (77.6, 3.9, 9.9, 53.5, 77.0, 1.0, 2.7, 71.9, 90.7),
    "AugMix + AdvBN": (77.8, 8.6, 19.5, 50.9, 74.7, 2.4, 5.3, 70.2, 89.7),
}
_FIRST_COLUMN = {"vgg": 1, "resnet": 5}

STANDARD_TRAINING = "Standard Training"
"""Row of torchvision's ResNet-50, the model that needs no fine-tuning."""


def table_8_methods() -> list[str]:
    """Return the names of Table 8's rows."""
    return list(TABLE_8)


def table_8_row(method: str, encoder: str) -> GapRow | None:
    """Return a method's row for an encoder; None if the paper has none."""
    if method not in TABLE_8 or encoder not in _FIRST_COLUMN:
        return None
    row, first = TABLE_8[method], _FIRST_COLUMN[encoder]
    advbn, reconstructed = row[first : first + 2], row[first + 2 : first + 4]
    return GapRow(
        method=method,
        original=row[0],
        reconstructed=(reconstructed[0], reconstructed[1]),
        advbn=(advbn[0], advbn[1]),
    )
