"""The gap report as an object: its values, rows for a data frame, figures for a notebook, and the files."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from downstream.gallery import GallerySample, picture_side
from downstream.gap import GapInputs, GapRequest, gather
from downstream.scoring_run import named_models
from reports.gap import KIND, gap_report
from reports.gap_page import flat_rows, gap_charts, lead, write_gap_report
from reports.page import require_own_report


@dataclass(frozen=True)
class GapReport:
    """The reconstruction gap of some models (paper 1, Table 8 and Figure 7)."""

    request: GapRequest
    """What was asked for."""
    inputs: GapInputs
    """Recorded predictions of every sample, and metadata of the data sets."""
    samples: Sequence[GallerySample]
    """Samples with their pictures."""

    @classmethod
    def compute(cls, request: GapRequest) -> "GapReport":
        """Score what is not scored yet, and return the report; nothing but predictions is written.

        Raises:
            UserError: the data sets cannot be compared, a model cannot be used, or the folder holds something else.
            WorkError: an image is broken, or a model's outputs are not finite.
        """
        require_own_report(request.out, KIND)  # before hours of scoring
        return cls(request, *gather(request))

    @classmethod
    def of(
        cls,
        original: str | os.PathLike[str],
        reconstructed: str | os.PathLike[str],
        advbn: str | os.PathLike[str],
        models: Sequence[str] | Mapping[str, str],
        out: str | os.PathLike[str],
        **settings: Any,
    ) -> "GapReport":
        """Return the report on three data sets; see `compute`.

        Args:
            original: address of the originals, anything that `--source` takes.
            reconstructed: folder of the reconstructions.
            advbn: folder of the AdvBN data set.
            models: SPECs, or name in tables -> SPEC.
            out: folder of the predictions, and of the report if it is written.
            settings: other fields of `downstream.gap.GapRequest`, such as `labels`, `scaled` or `device`.
        """
        named = dict(models) if isinstance(models, Mapping) else named_models(models)
        request = GapRequest(
            original=os.fspath(original), reconstructed=os.fspath(reconstructed), advbn=os.fspath(advbn),
            models=named, out=Path(out), **settings,
        )  # fmt: skip
        return cls.compute(request)

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """All values of the report, as `report.json` has them."""
        return gap_report(self.inputs)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each model on each data set, without nested values: `pandas.DataFrame(report.rows)`.

        `model`, `data` (`original`, `reconstructed` or `advbn`), `n`, `top1` and `top5` (0..1) with 95% intervals
        (`top1_low`, `top1_high`), and more.
        """
        return flat_rows(self.values)

    @property
    def lead(self) -> str:
        """The report in one sentence."""
        return lead(self.values)

    def figures(self) -> dict[str, Figure]:
        """Return the report's charts by name: `accuracy`, `ascent`, `deltas`, `classes`, and `curve` with scales."""
        return {chart.name: chart.figure() for chart in gap_charts(self.values)}

    def write(self) -> Mapping[str, Any]:
        """Write report.html, report.md, report.csv and report.json into the request's folder; return the values.

        Raises:
            UserError: the folder cannot be written, or holds files of another kind of report.
        """
        side = picture_side(self.inputs.manifests["advbn"]["config"]["image_size"])
        return write_gap_report(self.request.out, self.inputs, self.samples, side)
