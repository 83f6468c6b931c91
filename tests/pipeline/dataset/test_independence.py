"""Reading data sets needs no part of the program that makes them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline.dataset
from tests.processes import environment

MAKERS = ("pipeline", "attacks", "decoders", "encoders", "networks", "training", "commands", "cli")
"""Packages whose modules make data sets or networks."""
DATASET = "pipeline.dataset"
FORMAT = [f"{DATASET}.{path.stem}" for path in sorted(Path(pipeline.dataset.__file__).parent.glob("[a-z]*.py"))]


def loaded_by(*modules: str) -> set[str]:
    """Names of the modules that a new process has loaded after importing some."""
    code = f"import json, sys, {', '.join(modules)}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True, timeout=120
    )
    return set(json.loads(done.stdout))


@pytest.mark.slow
@pytest.mark.parametrize("modules", [FORMAT, ["downstream.testset"]], ids=["the format", "test sets"])
def test_data_sets_are_read_without_what_makes_them(modules: list[str]) -> None:
    assert len(FORMAT) >= 6
    loaded = loaded_by(*modules)
    assert set(modules) <= loaded
    own = {"pipeline", DATASET}
    makers = {name for name in loaded - own if name.split(".")[0] in MAKERS and not name.startswith(f"{DATASET}.")}
    assert not makers
