"""Packages as pip installs them, for what looks at the metadata of those that are there."""

from collections.abc import Mapping
from pathlib import Path


def install(site: Path, name: str, entry_points: Mapping[str, Mapping[str, str]], modules: Mapping[str, str]) -> None:
    """Write a package's modules, and its metadata beside them.

    Args:
        site: a folder of `sys.path`.
        name: of the package.
        entry_points: group -> name -> object, as in a `pyproject.toml`.
        modules: name -> code.
    """
    for module, code in modules.items():
        (site / f"{module}.py").write_text(code, encoding="utf-8")
    metadata = site / f"{name.replace('-', '_')}-0.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n", encoding="utf-8")
    lines = [
        line
        for group, points in entry_points.items()
        for line in (f"[{group}]", *(f"{point} = {target}" for point, target in points.items()))
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
