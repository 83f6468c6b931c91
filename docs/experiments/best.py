"""The learning rate of the best run: `python -m docs.experiments.best RUN_FOLDER...`.

The best is the one with the highest top-1 on held-out images after its last epoch; of equals, the first.
"""

import json
import sys
from pathlib import Path
from typing import Any

import click


def main(folders: list[str]) -> None:
    """Print the learning rate."""
    best = max(map(Path, folders), key=held_out)
    click.echo(json.loads((best / "settings.json").read_text())["training"]["lr"])


def held_out(folder: Path) -> float:
    """Return the last top-1 through main batch norm."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return float([line["held_out_top1_main"] for line in lines if "held_out_top1_main" in line][-1])


if __name__ == "__main__":
    main(sys.argv[1:])
