"""What models answered to many data sets: a folder with one predictions file for each.

Adding to a predictions file rewrites it as a whole. That is nothing for three data sets, and too much for the 75 of
ImageNet-C with 50,000 samples each; so there, each has a file of its own: `imagenet-c/fog/3.h5`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from downstream.predictions import DataColumns, Pairs, PredictionFile, Scored

FOLDER = "predictions"
_SUFFIX = ".h5"


class PredictionFolder:
    """Reads and adds to such a folder; each file is replaced as a whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, data: str) -> PredictionFile:
        """Return the predictions file of a data set; it need not exist."""
        return PredictionFile(self.path / f"{data}{_SUFFIX}")

    def pairs(self) -> Pairs:
        """Return the facts of every (data, model) that was scored.

        Raises:
            UserError: a file is damaged or none of ours.
        """
        return {pair: facts for file in self._files() for pair, facts in file.pairs().items()}

    def data_facts(self) -> dict[str, dict[str, Any]]:
        """Return what is known of each data set, by its name.

        Raises:
            UserError: a file is damaged or none of ours.
        """
        return {name: facts for file in self._files() for name, facts in file.data_facts().items()}

    def add(self, data: DataColumns, scored: Sequence[Scored]) -> None:
        """Add a data set with models' answers to it; what had the same names is replaced."""
        file = self.file(data.facts["data"])
        file.path.parent.mkdir(parents=True, exist_ok=True)
        file.add(data, scored)

    def _files(self) -> Iterator[PredictionFile]:
        yield from (PredictionFile(path) for path in sorted(self.path.rglob(f"*{_SUFFIX}")))
