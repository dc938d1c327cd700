"""Names of a package that load when they are first used, so that the command line answers without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def exports(
    package: str, homes: Mapping[str, Sequence[str]], modules: Sequence[str] = ()
) -> tuple[Callable[[str], Any], list[str]]:
    """Returns `__getattr__` and `__all__` of a package.

    Args:
        package: Its name.
        homes: Names by the module that holds them.
        modules: Names of modules of the package that need no import of their own.
    """
    home = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name in modules:
            return import_module(f"{package}.{name}")
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {', '.join(sorted(home))}")
        return getattr(import_module(home[name]), name)

    return get, sorted(home)
