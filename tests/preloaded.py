"""What the server of `tests.processes` imports, so that processes forked from it need not: every module of the project.

Nothing here may start a thread: a process that is forked has only the one that forked it.
"""

import importlib
import pkgutil
import tomllib
from pathlib import Path

import distributed.cli.dask_worker  # noqa: F401 (and what the `dask` program needs)

_SETTINGS = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["tool"]["setuptools"]

for _package in _SETTINGS["packages"]:
    for _module in pkgutil.iter_modules(importlib.import_module(_package).__path__, f"{_package}."):
        importlib.import_module(_module.name)
