"""Write docs/reference.md from the signatures and docstrings of the public names. Run by `make docs`."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import advbn_gen

PAGE = Path(__file__).with_name("reference.md")

_HEAD = """# Python reference

Generated from the docstrings by `make docs`; edit those, not this page. [Python API](api.md) introduces the names, with
examples that follow each other.
"""


def page() -> str:
    """Return the text of the page."""
    return "\n".join([_HEAD, *(_section(name) for name in sorted(advbn_gen.__all__, key=str.casefold))])


def _section(name: str) -> str:
    found = getattr(advbn_gen, name)
    parts = [_entry(name, found)]
    if inspect.isclass(found):
        parts += [_entry(f"{name}.{method}", function) for method, function in _methods(found)]
    return f"## {name}\n\n```text\n" + "\n\n\n".join(parts) + "\n```\n"


def _entry(name: str, found: Any) -> str:
    doc = inspect.getdoc(found) or ""
    indented = "\n".join(f"    {line}" if line else "" for line in doc.splitlines())
    return f"{_signature(name, found)}\n\n{indented}".rstrip()


def _methods(found: type) -> Iterator[tuple[str, Any]]:
    """Yield public methods and properties that a class defines itself, with a docstring."""
    for name, value in vars(found).items():
        function = getattr(value, "__func__", value)
        if not name.startswith("_") and (inspect.isfunction(function) or isinstance(function, property)):
            yield name, function


def _signature(name: str, found: Any) -> str:
    bare = inspect.isclass(found) and (issubclass(found, Exception) or getattr(found, "_is_protocol", False))
    if bare or isinstance(found, property):
        return name
    signature = inspect.signature(found)
    parameters = [each for each in signature.parameters.values() if each.name not in {"self", "cls"}]
    result = "" if inspect.isclass(found) else f" -> {_type(signature.return_annotation)}"
    texts = [_parameter(each) for each in parameters]
    if len(flat := f"{name}({', '.join(texts)}){result}") <= 100:
        return flat
    return f"{name}(\n" + "".join(f"    {text},\n" for text in texts) + f"){result}"


def _parameter(each: inspect.Parameter) -> str:
    annotation = "" if each.annotation is each.empty else f": {_type(each.annotation)}"
    return f"{each.name}{annotation}{_default(each)}"


def _default(each: inspect.Parameter) -> str:
    if each.default is each.empty:
        return ""
    # A default that a dataclass makes anew for each object has no text of its own.
    text = "..." if type(each.default).__name__ == "_HAS_DEFAULT_FACTORY_CLASS" else repr(each.default)
    return f" = {text}"


def _type(annotation: Any) -> str:
    """Return a type's name without its modules, and without the marks of type variables and of names in quotes."""
    return re.sub(r"\b[a-z_]\w*\.|[~']", "", inspect.formatannotation(annotation))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
