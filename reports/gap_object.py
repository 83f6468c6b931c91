"""The gap report as an object: its values, rows for a data frame, figures for a notebook, and the files."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from matplotlib.figure import Figure

from basics.paths import Address, address_text, as_local_path
from downstream.gallery import GallerySample, picture_side
from downstream.gap import GapInputs, GapRequest, gather
from downstream.scoring import ScoringConfig
from downstream.scoring_run import Models, models_by_name
from reports.gap import KIND, gap_report
from reports.gap_page import flat_rows, gap_charts, lead, write_gap_report
from reports.page import require_own_report


@dataclass(frozen=True)
class GapReport:
    """The reconstruction gap of some models (paper 1, Table 8 and Figure 7); `GapReport.of` makes one.

    Attributes:
        request: what was asked for.
        inputs: recorded predictions of every sample, and metadata of the data sets.
        samples: samples with their pictures.
        values: all values of the report, as `report.json` has them.
        rows: a row for each model on each data set, for a data frame.
        lead: the report in one sentence.

    Example, beside the pictures that `advbn-gen sample-data drawn --size 48` writes:
        >>> from dataclasses import replace
        >>> from advbn_gen import GapReport, generate, sample_advbn
        >>> config = replace(sample_advbn("vgg"), source="drawn", limit=8, batch_size=8, reconstructed=True)
        >>> advbn, reconstructed = generate(config, "drawn-advbn").folders.values()
        >>> report = GapReport.of("drawn", reconstructed, advbn, config.classifier_weights, "gap", common=True)
        >>> [(row["data"], row["n"]) for row in report.rows]
        [('original', 8), ('reconstructed', 8), ('advbn', 8)]
        >>> sorted(report.figures())
        ['accuracy', 'ascent', 'classes', 'deltas']
    """

    request: GapRequest
    inputs: GapInputs
    samples: Sequence[GallerySample]

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
    def of(  # noqa: PLR0913 (three data sets, what is scored, where to, and how)
        cls,
        original: Address,
        reconstructed: Address,
        advbn: Address,
        models: Models,
        out: str | os.PathLike[str],
        *,
        labels: Address | None = None,
        scaled: Sequence[Address] = (),
        common: bool = False,
        lpips: bool = False,
        gallery: int = 48,
        published: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
        device: str = "auto",
        precision: str = "auto",
        batch_size: int = 64,
        overwrite: bool = False,
    ) -> "GapReport":
        """Score what is not scored yet, and return the report on three data sets; only predictions are written.

        Args:
            original: address of the originals, anything that `--source` takes.
            reconstructed: folder of the reconstructions.
            advbn: folder of the AdvBN data set.
            models: a SPEC, several, or name in tables -> SPEC or `OwnModel` (see `score_models`).
            out: folder of the predictions, and of the report if it is written, on this machine.
            labels: label list or devkit of originals in a flat ILSVRC2012 folder.
            scaled: folders of the same data set, rendered at other scales.
            common: compare the samples that all three have, instead of refusing when some are missing.
            lpips: also measure LPIPS.
            gallery: samples to show, 1 or more.
            published: model -> row of Table 8.
            notes: what a reader has to know of the images, in sentences.
            device: auto, cpu, cuda, cuda:N or mps.
            precision: auto, fp32, tf32, bf16 or fp64.
            batch_size: images a step of scoring, 1 or more.
            overwrite: score and measure anew, in place of results of the same names.

        Raises:
            UserError: the data sets cannot be compared, a model cannot be used, or the folder holds something else.
            WorkError: an image is broken, or a model's outputs are not finite.
        """
        request = GapRequest(
            original=address_text(original),
            reconstructed=address_text(reconstructed),
            advbn=address_text(advbn),
            scaled=[address_text(folder) for folder in scaled],
            models=models_by_name(models),
            out=as_local_path(out, "The folder of the report"),
            labels=labels,
            common=common,
            lpips=lpips,
            gallery=gallery,
            published=published or {},
            notes=notes,
            device=device,
            precision=precision,
            config=ScoringConfig(batch_size=batch_size),
            overwrite=overwrite,
        )
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
