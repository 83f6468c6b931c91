"""All measurements that need a GPU, in one run of at most ten minutes.

    bash benchmarks/gpu.sh --out gpu-results
    bash benchmarks/gpu.sh --dry --out gpu-dry      # all of it in small, on the CPU

What is most important is measured first. After each stage, gpu.json and gpu.md are written anew, so that an interrupted
run leaves what it had measured. A stage that fails is recorded with its error, and the next ones still run.
"""

import json
import platform
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import torch

from basics.compute import available_cores, choose_compute
from basics.files import write_text
from basics.progress import say
from benchmarks.gpu_goals import Goal, goals_of
from benchmarks.gpu_stages import Stage, stages_of
from benchmarks.gpu_workload import Settings, Values
from benchmarks.modes import modes_of
from pipeline.worker import load_networks

JSON, TABLE = "gpu.json", "gpu.md"
ROWS = "rows"
"""Key of a stage's values that are several rows."""
OUT_OF_TIME = "not run: out of time"
CARD_MODES = "bf16,bf16-compiled,tf32,fp32,bf16-micro8"
DRY_MODES = "fp32,fp32-compiled,fp32-micro2"
DRY_SIZES: dict[str, Any] = {
    "image_size": 32,
    "batch_size": 4,
    "pictures": 6,
    "matrix_size": 512,
    "ascent_seconds": 0.0,
    "run_seconds": 0.0,
    "reference_batches": 1,
    "coding_seconds": 0.0,
    "drawn": False,
    "fidelity_batches": 1,
}
DRY_WIDTH = 1 / 16


@dataclass
class Report:
    """The results so far, as files."""

    folder: Path
    head: dict[str, Any]
    goals: Sequence[Goal]
    judge: bool
    """Whether goals are judged; not in a dry run."""
    results: dict[str, Values] = field(default_factory=dict)

    def add(self, name: str, values: Values) -> None:
        """Add the values of a stage, and write both files anew."""
        self.results[name] = values
        judged = [goal.judged(self.results, judge=self.judge) for goal in self.goals]
        whole = {**self.head, "goals": judged, "stages": self.results}
        write_text(self.folder / JSON, json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
        write_text(self.folder / TABLE, self._table(judged))

    def _table(self, judged: list[dict[str, Any]]) -> str:
        goals = [
            {"goal": goal["name"], "aim": goal["goal"], "measured": goal["measured"], "holds": self._verdict(goal)}
            for goal in judged
        ]
        groups: dict[str, list[dict[str, Any]]] = {}
        for name, values in self.results.items():
            group, _, one = name.partition(": ")
            # Rows within the values, such as those of several precisions, are a table of their own.
            rows = values.get(ROWS, [])
            groups.setdefault(group, []).append({"": one, **{key: values[key] for key in values if key != ROWS}})
            groups.setdefault(f"{group}, rows", []).extend({"": one, **row} for row in rows)
        head = ", ".join(f"{name} {_text(value)}" for name, value in self.head.items())
        tables = [f"## {group}\n\n{_markdown(rows)}" for group, rows in groups.items() if rows]
        return "\n\n".join([head, f"## Goals\n\n{_markdown(goals)}", *tables]) + "\n"

    def _verdict(self, goal: dict[str, Any]) -> str:
        if not self.judge:
            return "not judged"
        return "not measured" if goal["holds"] is None else _text(goal["holds"])


def _markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return a table whose columns are all names that any row has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [[_text(row.get(name, "")).replace("|", "/") for name in columns] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [columns, ["---"] * len(columns), *lines])


def _described(values: Values) -> str:
    return "; ".join(f"{name} {_text(value)}" for name, value in values.items())


def _text(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case dict():
            return f"({_described(value)})"
        case _:
            return " ".join(str(value).split())


@click.command()
@click.option("--dry", is_flag=True, help="Everything in small, on the CPU; goals are not judged.")
@click.option("--out", type=click.Path(path_type=Path), default="gpu-results", show_default=True)
@click.option("--minutes", default=9.0, show_default=True, help="After this time no further stage starts.")
@click.option("--modes", help=f"Modes of the ascent. [default: {CARD_MODES}; dry: {DRY_MODES}]")
@click.option("--encoders", default="vgg,resnet", show_default=True)
@click.option("--workers", default=2, show_default=True, help="Processes of one end-to-end run; 0 leaves it out.")
@click.option("--width", type=float, help=f"Width of the networks. [default: 1; dry: {DRY_WIDTH:g}]")
def main(
    dry: bool, out: Path, minutes: float, modes: str | None, encoders: str, workers: int, width: float | None
) -> None:
    """Measure all stages, and write gpu.json and gpu.md."""
    deadline = time.monotonic() + 60 * minutes
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="advbn-gpu-") as folder:
        settings = Settings(
            folder=Path(folder),
            device="cpu" if dry else "auto",
            modes=modes_of(modes or (DRY_MODES if dry else CARD_MODES)),
            encoders=tuple(encoders.split(",")),
            workers=workers,
            width=width or (DRY_WIDTH if dry else 1.0),
            **(DRY_SIZES if dry else {}),
        )
        report = Report(folder=out, head=_head(settings.device, dry), goals=goals_of(settings.encoders), judge=not dry)
        for stage in stages_of(settings):
            report.add(stage.name, _measured(stage, settings, report.results, deadline))
    click.echo((out / TABLE).read_text(encoding="utf-8"))


def _head(device: str, dry: bool) -> dict[str, Any]:
    """Return what was measured on."""
    compute = choose_compute(device, "auto")
    return {
        "device": compute.kind,
        "torch": torch.__version__,
        "cuda": torch.version.cuda if compute.device.type == "cuda" else None,
        "python": platform.python_version(),
        "cpus": available_cores(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "dry": dry,
    }


def _measured(stage: Stage, settings: Settings, results: dict[str, Values], deadline: float) -> Values:
    """Return the values of a stage, or why it has none."""
    if time.monotonic() > deadline:
        return {"error": OUT_OF_TIME}
    start = time.monotonic()
    try:
        values = stage.measure(settings, results)
    except Exception as error:
        traceback.print_exc()
        # The networks of a failed stage may fill the memory of the device.
        load_networks.cache_clear()
        values = {"error": f"{type(error).__name__}: {error}"}
    values = {**values, "stage_seconds": round(time.monotonic() - start, 2)}
    say(f"{stage.name}: {_described(values)}")
    return values


if __name__ == "__main__":
    main()
