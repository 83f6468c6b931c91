"""Picture of the loss around attacked images."""

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from PIL import Image

from abnn.sanity import Surface
from basics.files import require_writable_folder, write_bytes
from basics.ownership import occupied_folder_error

SURFACE = "surface.png"
_TITLE = "advbn-gen loss surface"
_SIDE = 2.6
_LEVELS = 24
_LEAST = 1e-4
"""Smaller losses are drawn as this value."""
_ABOVE = 1.01


def require_own_picture(folder: Path) -> None:
    """Refuse a folder where the picture cannot be written, or would replace another program's.

    Raises:
        UserError: it cannot, or something else has its name.
    """
    require_writable_folder(folder)
    path = folder / SURFACE
    if not path.exists():
        return
    try:
        with Image.open(path) as image:
            ours = image.info.get("Title") == _TITLE
    except OSError:
        ours = False
    if not ours:
        raise occupied_folder_error(folder, f"a {SURFACE} of something else")


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
        # Between a confident correct prediction and a confident wrong one the loss grows a thousandfold and more.
        loss_KPP = surface.loss_KPP.clip(min=_LEAST)
        levels = np.geomspace(loss_KPP.min(), loss_KPP.max() * _ABOVE, _LEVELS)
        for axes, loss_PP in zip(panels, loss_KPP, strict=True):
            drawn = axes.contourf(
                surface.along_P, surface.along_P, loss_PP, levels, cmap="viridis", norm=LogNorm(levels[0], levels[-1])
            )
            axes.plot([0, 1], [0, 0], color="white", marker="o", markersize=3, linewidth=1)
            axes.set(xlabel="along the attack", aspect="equal")
        panels[0].set_ylabel("across")
        ticks = [10.0**power for power in range(-6, 7) if levels[0] <= 10.0**power <= levels[-1]]
        figure.colorbar(drawn, ax=panels, label="cross-entropy", ticks=ticks, format="%g")
        figure.savefig(buffer, dpi=120, metadata={"Software": None, "Title": _TITLE})
    write_bytes(out, buffer.getvalue())
    return out
