"""Describes how two runs differ."""

from collections.abc import Mapping
from typing import Any


def _flatten(value: Any, path: str) -> dict[str, Any]:
    if isinstance(value, Mapping):
        flat: dict[str, Any] = {}
        for key, inner in value.items():
            flat |= _flatten(inner, f"{path}.{key}" if path else str(key))
        return flat
    return {path: value}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return one `name: before -> now` line for every leaf in which two nested mappings differ."""
    old, new = _flatten(before, ""), _flatten(now, "")
    absent = "(absent)"
    return [
        f"{name}: {old.get(name, absent)} -> {new.get(name, absent)}"
        for name in sorted(old.keys() | new.keys())
        if name not in old or name not in new or old[name] != new[name]
    ]
