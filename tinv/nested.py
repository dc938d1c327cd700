"""Nested configurations and their dotted keys: `{"model": {"padding": "valid"}}` and `model.padding`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def flatten(mapping: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, value) of every value that is not itself a mapping with keys."""
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def lookup(mapping: Mapping[str, Any], key: str) -> Any:
    """Returns the value of a dotted key, None if it is not there."""
    value: Any = mapping
    for part in key.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value
