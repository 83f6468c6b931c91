"""Training curves: the metric lines of a run as one picture."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from basics.files import write_bytes

_PANELS = {"loss": ("loss", 1), "top1": ("top-1 (%)", 100)}
"""Part of a metric's name -> label of its panel, and what its values are multiplied by."""
_STYLE: Any = {
    # Okabe and Ito's palette, which the colour-blind can distinguish.
    "axes.prop_cycle": cycler(color=["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"]),
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def draw_curves(metrics: Path, out: Path) -> Path:
    """Draw a run's losses and accuracies over its epochs, held-out ones dashed; return the picture.

    Args:
        metrics: `metrics.jsonl` of a run folder.
        out: PNG file to write.
    """
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    # The lines of held-out values come at the end of their epochs.
    steps = max((line["step"] / line["epoch"] for line in lines if not _is_step(line)), default=1.0)
    buffer = io.BytesIO()
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.5, 5.2), layout="constrained")
        for axes, (part, (label, scale)) in zip(figure.subplots(2, 1, sharex=True), _PANELS.items(), strict=True):
            _draw(axes, lines, part, steps, scale)
            axes.set_ylabel(label)
        axes.set_xlabel("epochs")
        figure.savefig(buffer, dpi=130, metadata={"Software": None})
    write_bytes(out, buffer.getvalue())
    return out


def _is_step(line: Mapping[str, Any]) -> bool:
    return "loss" in line


def _draw(axes: Axes, lines: Sequence[Mapping[str, Any]], part: str, steps: float, scale: int) -> None:
    for name in dict.fromkeys(name for line in lines for name in line if part in name.split("_")):
        positions = [line["step"] / steps for line in lines if name in line]
        values = [scale * line[name] for line in lines if name in line]
        label = name.replace(f"_{part}", "").replace("_", " ")
        dashed: Any = {"linestyle": "--", "marker": "o"} if name.startswith("held_out") else {}
        axes.plot(positions, values, label=label if label != part else "sum", **dashed)
    axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
