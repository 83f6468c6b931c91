"""Pictures and generators that tests of corruptions share."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def dice(*seed: int) -> np.random.Generator:
    return np.random.default_rng(list(seed))


def smooth(side: int) -> Array:
    """A picture whose channels give the position of each pixel: row, column, their sum."""
    rows, columns = np.indices((side, side)) / (2 * side)
    return np.stack([rows, columns, rows + columns], axis=-1)
