"""The notebook runs from its first cell to its last."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs/notebook.ipynb"


def cells(kind: str) -> list[str]:
    values = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in values["cells"] if cell["cell_type"] == kind]


@pytest.mark.slow
def test_the_cells_run_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with mpl.rc_context({"backend": "agg"}):
        for cell in cells("code"):
            # Fewer images than a reader has.
            exec(compile(cell.replace("IMAGES = 96", "IMAGES = 40"), str(NOTEBOOK), "exec"), names)
        plt.close("all")
    printed = capsys.readouterr().out
    assert printed.startswith("40 images; accuracy of the attacked network: clean ")
    assert printed.count("is right about") == 10
    assert (tmp_path / "notebook-work/severity.png").stat().st_size > 1000
    assert names["curve"]["attacked"][1.1] < names["curve"]["attacked"][0.0]


def test_no_output_is_kept() -> None:
    """Outputs would be of another version, and pictures make the file large."""
    values = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert all(not cell.get("outputs") for cell in values["cells"])
    assert cells("markdown")
