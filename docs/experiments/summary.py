"""The numbers of gap reports without addresses, as JSON: `python -m docs.experiments.summary REPORT_FOLDER...`."""

import json
import sys
from pathlib import Path
from typing import Any

import click

_ROW = ("model", "data", "attacked", "n", "top1", "top1_low", "top1_high", "top5", "top5_low", "top5_high", "transform")


def main(folders: list[str]) -> None:
    """Print a JSON object with an entry for each report, called by the folder that it is in."""
    click.echo(json.dumps({Path(folder).parent.name: numbers(Path(folder)) for folder in folders}, indent=1))


def numbers(folder: Path) -> dict[str, Any]:
    """Return accuracies with their intervals, paired gaps, the curve, and the quality of the reconstructions."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return {
        "n": report["n"],
        "encoder": report["encoder"],
        "rows": [{name: row[name] for name in _ROW} for row in report["rows"]],
        "curve": report["curve"],
        "gaps": report["gaps"],
        "quality": report["quality"],
    }


if __name__ == "__main__":
    main(sys.argv[1:])
