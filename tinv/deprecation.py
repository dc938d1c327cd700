"""Old names that keep working for one minor version."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def moved(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns a module's `__getattr__` for names that have moved.

    Args:
        module: Name of the old module.
        homes: Name of the new module for each name; `*` for all names that are not listed.
    """

    def get(name: str) -> Any:
        home = homes.get(name, homes.get("*"))
        if home is None or name.startswith("__"):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        found = getattr(import_module(home), name)
        warnings.warn(f"{module}.{name} is now {home}.{name}", DeprecationWarning, stacklevel=2)
        return found

    return get
