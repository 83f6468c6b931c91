"""Architecture: who may import whom, what the on-disk format may not know, and which words are not used."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (
    "basics", "sources", "training", "networks", "encoders", "decoders", "attacks", "pipeline.dataset", "pipeline",
    "downstream", "abnn", "experiments", "reports", "commands", "advbn_gen", "cli",
)  # fmt: skip
"""The order of docs/architecture.md: a package, a sub-package that stands above the rest of its package, or a single
module. Each may import only itself and what stands before it."""
SINGLE_MODULES = ("cli",)
FORMAT = "pipeline.dataset"
RUNNERS = "pipeline.runners"
OF_IMAGES = {
    f"pipeline.{name}" for name in ("shard", "batch_arithmetic", "perturbation", "replay", "dataset.shard_file")
}
"""Modules that deal with images, or with how they are perturbed."""

BANNED = ("bout", "fight", "roster", "newcomer", "newcomers", "hopeless", "twin", "twins", "told", "NOT_ASKED")
"""Words that docs/glossary.md replaces and that have no second, honest use in the code."""
STORED = re.compile(r"""["'`](?:(?:--)?twin(?:_sha256)?|told)["'`]""")
"""Spellings of such words that stay: keys of stored and printed results, and an option's former name."""


def name_of(path: Path) -> str:
    """Return the dotted name of a module of the project."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def packages() -> list[str]:
    return [package for package in LAYERS if package not in SINGLE_MODULES]


def modules() -> dict[str, Path]:
    """Return the path of every module of the project by its dotted name."""
    found = [path for package in packages() for path in sorted((ROOT / package.replace(".", "/")).glob("**/*.py"))]
    found += [ROOT / f"{name}.py" for name in SINGLE_MODULES]
    return {name_of(path): path for path in found}


MODULES = modules()


@cache
def imports_of(name: str) -> tuple[str, ...]:
    """Return the modules of the project that a module imports, wherever in it the import stands."""
    return tuple(_imports_of(name))


def _imports_of(name: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative imports hide the package"
            package = node.module or ""
            # `from package import module` imports the module as well.
            wanted = [package, *(f"{package}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (module for module in wanted if module in MODULES and module != name)


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def package_of(module: str) -> str:
    """Return the innermost package that a module belongs to."""
    return max((package for package in LAYERS if is_within(module, package)), key=len)


@pytest.mark.parametrize("name", MODULES)
def test_a_package_imports_only_what_stands_above_it(name: str) -> None:
    below = set(LAYERS[LAYERS.index(package_of(name)) + 1 :])
    # A package's __init__ is loaded with each of its sub-packages, so it is no import of what stands below.
    packages_imported = {package_of(module) for module in imports_of(name) if not is_within(package_of(name), module)}
    assert not packages_imported & below


def test_no_module_imports_itself_through_others() -> None:
    graph = {
        name: {module for module in imports_of(name) if not is_within(name, module)}
        for name in MODULES
    }  # fmt: skip
    tuple(TopologicalSorter(graph).static_order())  # Raises CycleError and names the circle.


def test_the_format_imports_no_run() -> None:
    for name in MODULES:
        if is_within(name, FORMAT):
            outside = {module for module in imports_of(name) if not is_within(module, FORMAT) and module != "pipeline"}
            assert {module.split(".")[0] for module in outside} <= {"basics", "sources"}, name


@pytest.mark.slow
def test_readers_of_data_sets_load_no_generator() -> None:
    names = [name for name in MODULES if is_within(name, FORMAT)]
    code = (
        f"import sys, importlib\nfor name in {[*names, 'downstream.testset']!r}: importlib.import_module(name)\n"
        f"print(*(name for name in sys.modules if name.startswith('pipeline.')))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert {name for name in loaded if not is_within(name, FORMAT)} == set()


def test_runners_know_shards_and_no_images() -> None:
    for name in MODULES:
        if is_within(name, RUNNERS):
            outside = {module for module in imports_of(name) if not is_within(module, RUNNERS)}
            assert {module.split(".")[0] for module in outside} <= {"basics", "pipeline"}, name
            assert not outside & OF_IMAGES, name


def test_every_package_is_installed_and_on_the_architecture_page() -> None:
    installed = (ROOT / "pyproject.toml").read_text()
    page = (ROOT / "docs/architecture.md").read_text()
    for name, path in MODULES.items():
        if path.name == "__init__.py" or name in SINGLE_MODULES:
            assert f'"{name}"' in installed, name
            assert name.replace(".", "/") + ("/" if path.name == "__init__.py" else ".py") in page, name


@pytest.mark.slow
def test_public_names_are_documented() -> None:
    bare = []
    for name, path in MODULES.items():
        for node in ast.parse(path.read_text()).body:
            named = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if named and not ast.get_docstring(node):  # type: ignore[arg-type]
                bare.append(f"{name}:{node.name}")  # type: ignore[attr-defined]
    assert not bare


@pytest.mark.slow
def test_no_banned_word_stands_in_the_code() -> None:
    # Words are looked for inside of names as well: `told_apart`, `NotTold`.
    words = re.compile(rf"(?<![a-z])({'|'.join(BANNED)})(?![a-z])", re.IGNORECASE)
    files = {*MODULES.values(), *(ROOT / "reports/templates").glob("*"), *(ROOT / "docs").glob("**/*.py")}
    files |= {path for folder in ("tests", "benchmarks") for path in (ROOT / folder).glob("**/*.py")}
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted(files)
        if path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if words.search(STORED.sub("", line))
    ]
    assert not found, "\n".join(found)


def test_text_is_read_and_written_as_utf8_whatever_the_locale() -> None:
    """In another encoding our own files would be called damaged."""
    found = [f"{name}:{call.lineno}" for name in MODULES for call in _calls_of(name) if _in_the_locales_encoding(call)]
    assert not found


def _calls_of(name: str) -> Iterator[ast.Call]:
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _in_the_locales_encoding(call: ast.Call) -> bool:
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return False
    if name == "open":
        modes = {arg.value for arg in call.args if isinstance(arg, ast.Constant)}
        return bool(modes & {"r", "w", "a", "x", "r+", "w+", "a+"})
    # Functions of these names (`basics.files`, `sources.storage`) are of UTF-8; methods of paths are of the locale.
    return isinstance(function, ast.Attribute) and name in {"read_text", "write_text"}
