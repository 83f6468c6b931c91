"""The rooms may import only what stands above them in the house's list (docs/architecture.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOUSE = (
    "basics", "sources", "training", "networks", "encoders", "decoders", "attacks", "pipeline", "downstream", "abnn",
    "experiments", "reports", "commands", "cli",
)  # fmt: skip
SINGLE_MODULES = ("experiments", "cli")


def modules() -> list[Path]:
    found = [path for room in HOUSE for path in sorted((ROOT / room).glob("**/*.py"))]
    return [*found, *(ROOT / f"{name}.py" for name in SINGLE_MODULES)]


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            rooms |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the room"
            rooms.add((node.module or "").split(".")[0])
    return rooms & set(HOUSE)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_what_stands_above_it(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    below = set(HOUSE[HOUSE.index(room) + 1 :])
    assert not imported_rooms(path) & below


def test_every_room_is_packaged_and_in_the_house_picture() -> None:
    packaged = (ROOT / "pyproject.toml").read_text()
    picture = (ROOT / "docs/architecture.md").read_text()
    for room in HOUSE[:-1]:
        assert f'"{room}"' in packaged
        assert (f"{room}.py" if room in SINGLE_MODULES else f"{room}/") in picture


def test_modules_can_be_read_at_one_sitting() -> None:
    long = {str(path): len(path.read_text().splitlines()) for path in modules()}
    assert not {path: lines for path, lines in long.items() if lines > 450}


def test_public_names_are_documented() -> None:
    bare = []
    for path in modules():
        for node in ast.parse(path.read_text()).body:
            named = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if named and not ast.get_docstring(node):  # type: ignore[arg-type]
                bare.append(f"{path.relative_to(ROOT)}:{node.name}")  # type: ignore[attr-defined]
    assert not bare
