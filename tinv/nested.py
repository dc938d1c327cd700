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


def lay_over(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """Returns `base` with the values of `overlay`; nested keys that only one of them has are kept.

    Where the overlay names another `class_path`, the options of the old class go with it.
    """
    if "class_path" in overlay and overlay["class_path"] != base.get("class_path"):
        return overlay
    both = dict(base)
    for key, value in overlay.items():
        old = both.get(key)
        both[key] = lay_over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both
