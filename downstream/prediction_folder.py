"""Models' predictions for every sample of many data sets: a folder with one predictions file for each.

Adding to a predictions file rewrites all of it. That is cheap for three data sets, and too slow for the 75 of
ImageNet-C with 50,000 samples each; so each of those has its own file: `imagenet-c/fog/3.h5`.
"""

from pathlib import Path

from downstream.predictions import PredictionFile, ScoredData
from downstream.result_store import Row

_SUFFIX = ".h5"


class PredictionFolder:
    """Reads and adds to such a folder, a layout of `downstream.result_store`."""

    sort_keys = True

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, data: str) -> PredictionFile:
        """Return the predictions file of a data set; it need not exist."""
        return PredictionFile(self.path / f"{data}{_SUFFIX}")

    def rows(self) -> list[Row]:
        """Return the row of every model on every data set.

        Raises:
            UserError: a file is damaged, or not of this program.
        """
        return [row for path in sorted(self.path.rglob(f"*{_SUFFIX}")) for row in PredictionFile(path).rows()]

    def write(self, results: ScoredData) -> None:
        """Add a data set with models' predictions to it; what had the same names is replaced."""
        file = self.file(results.data.metadata["data"])
        file.path.parent.mkdir(parents=True, exist_ok=True)
        file.write(results)
