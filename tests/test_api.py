"""The Python API: its names are pinned, its examples run."""

import doctest
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import advbn_gen
from tests.support import advbn_gen as command

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/api.md"
NAMES = {
    "ABNN", "AdaptiveBatchNorm", "AdvBNConfig", "AscentResult", "Classifier", "EncoderKind", "GapReport",
    "GenerationConfig", "LabelledImages", "LayerConfig", "ObjectiveValue", "PerturbedFeatures", "PerturbedImages",
    "RunResult", "ThreatModel", "UserError", "WorkError", "ascend", "generate", "imagenet_advbn", "load_model",
    "perturb_features", "perturb_images", "put_beside", "register_encoder", "sample_advbn", "score_models",
}  # fmt: skip
WITH_EXAMPLES = ("attacks.perturbing", "sources.labelled", "abnn.beside")


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_public_names_are_these_and_each_is_on_the_page() -> None:
    """A name that is taken away breaks programs of others: only with a new main version."""
    assert set(advbn_gen.__all__) == NAMES
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in NAMES if f"`{name}`" not in page] == []


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_public_name_is_typed_and_described(name: str) -> None:
    found: Any = getattr(advbn_gen, name)
    assert (inspect.getdoc(found) or "").strip()
    if inspect.isfunction(found):
        signature = inspect.signature(found)
        assert signature.return_annotation is not inspect.Signature.empty
        assert all(each.annotation is not inspect.Parameter.empty for each in signature.parameters.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings_hold(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.slow
def test_the_page_runs_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("sample-data", tmp_path / "drawn", "--size", 48).code == 0
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks():
        exec(compile(block, str(PAGE), "exec"), names)
    printed = capsys.readouterr().out
    assert "96 {'clean':" in printed
    assert "attacked original 96" in printed
    assert (tmp_path / "accuracy.png").stat().st_size > 1000
    assert (tmp_path / "gap/report.html").is_file()
    assert (tmp_path / "reconstructed/manifest.json").is_file()
