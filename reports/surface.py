"""The loss around attacked images as a picture."""

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from abnn.sanity import Surface
from basics.files import write_bytes

SURFACE = "surface.png"
_SIDE = 2.6
_LEVELS = 20


def draw_surface(surface: Surface, out: Path) -> Path:
    """Draw a panel for each image, all on one scale; return the picture.

    A surface that is smooth and rises along the attack is what gradients can climb. One that is flat around the image,
    or torn, hides the loss from them.

    Args:
        surface: see `abnn.sanity.loss_surface`.
        out: PNG file to write.
    """
    count = len(surface.loss_KPP)
    style: Any = {"axes.spines.top": False, "axes.spines.right": False}
    buffer = io.BytesIO()
    with mpl.rc_context(style):
        figure = Figure(figsize=(_SIDE * count + 1.2, _SIDE + 0.6), layout="constrained")
        panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
        low, high = float(surface.loss_KPP.min()), float(surface.loss_KPP.max())
        levels = [low + (high - low or 1) * place / _LEVELS for place in range(_LEVELS + 1)]
        for axes, loss_PP in zip(panels, surface.loss_KPP, strict=True):
            drawn = axes.contourf(surface.along_P, surface.along_P, loss_PP, levels, cmap="viridis")
            axes.plot([0, 1], [0, 0], color="white", marker="o", markersize=3, linewidth=1)
            axes.set(xlabel="along the attack", aspect="equal")
        panels[0].set_ylabel("across")
        figure.colorbar(drawn, ax=panels, label="cross-entropy")
        figure.savefig(buffer, dpi=120, metadata={"Software": None})
    write_bytes(out, buffer.getvalue())
    return out
