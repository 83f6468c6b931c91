"""An ILSVRC2012 devkit."""

from pathlib import Path

import numpy as np
from scipy.io import savemat

from sources.classes import imagenet_map


def write_devkit(parent: Path, truth: list[int]) -> Path:
    """Write the unpacked devkit with the given ground truth; its IDs follow no order that a wnid has."""
    fields = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children"]
    synsets = np.zeros((1001, 1), dtype=[(field, object) for field in fields])
    for row in range(1000):
        synsets[row, 0] = (float(row + 1), wnid_of_id(row + 1), f"word {row}, other", "gloss", 0.0, [])
    synsets[1000, 0] = (1001.0, "n00001740", "entity", "gloss", 2.0, [1.0, 2.0])
    data = parent / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    savemat(data / "meta.mat", {"synsets": synsets})
    lines = "".join(f"{number}\n" for number in truth)
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text(lines)
    return data.parent


def wnid_of_id(number: int) -> str:
    """Return the class that has an ID of ILSVRC2012 (1 to 1000) in this devkit."""
    return imagenet_map().names[((number - 1) * 7 + 3) % 1000]
