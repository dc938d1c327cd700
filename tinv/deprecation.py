"""Old names that keep working for one minor version."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_MOVED = {
    "policies": {
        "nn": "pooling",
        "graph": "analysis border contractions converted functions geometry operations positions rules signs state "
        "tracing values windows places=grid judge=invariance_analyzer verdict=exact_invariance",
        "surgery": "alignment background convert explicit_padding strides builder=rewriter graph_builder=rewriter",
        "policies": "settings=conversion",
    },
    "measure": {
        "evaluation": "attribution images location_probe networks",
        "cli": "command=measure probe_command=probe",
    },
    "models": {
        "models.backbones": "bagnet33 densenet121 hardnet moving_shapes_net pooling_cnn red_green_net resnet "
        "resnet18_max resnet3d rook_net"
    },
    "data": {
        "data": "file_data=from_files",
        "data.formats": "cache_folder image_cache image_preparation image_files=images patch_set=patches "
        "video_files=videos",
    },
    "runs": {"config": "options", "runs": "commands=engine"},
    "sweeps": {"sweeps": "cells=trials sweepfile=schema", "cli": "command=sweep"},
    "report": {"report": "page=html_report pictures=figures shapes=trend_checks", "cli": "command=report"},
    "": {
        "utils": "files=io progress memory",
        "config": "yaml_files nested=merge",
        "cli": "inspection=inspect listing=list",
        "": "measure=evaluation",
    },
}
"""Old rooms, the rooms that their modules are in now, and the modules, as OLD=NEW where the name is another one."""

MODULES = {
    ".".join(filter(None, ("tinv", old_room, old))): ".".join(filter(None, ("tinv", room, new or old)))
    for old_room, rooms in _MOVED.items()
    for room, modules in rooms.items()
    for old, _, new in (module.partition("=") for module in modules.split())
}
"""Old names of whole modules, and their new ones."""


def moved(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns a module's `__getattr__` for names that have moved.

    Args:
        module: Name of the old module.
        homes: Name of the new module for each name, followed by `:NAME` if the name is another there; `*` stands for
            all names that are not listed.
    """

    def get(name: str) -> Any:
        home = homes.get(name, homes.get("*"))
        if home is None or name.startswith("__"):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, new = home.partition(":")
        found = getattr(import_module(home), new or name)
        warnings.warn(f"{module}.{name} is now {home}.{new or name}", DeprecationWarning, stacklevel=2)
        return found

    return get


def renamed(**new: str) -> Callable[[F], F]:
    """Lets a function take arguments by their old names; configurations may use these names too.

    Args:
        new: The new name of each argument, by its old name; a call that gives both raises TypeError.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for old in new.keys() & kwargs.keys():
                if new[old] in kwargs:
                    raise TypeError(f"{function.__qualname__}: {old} is the old name of {new[old]}; keep one of them")
                warnings.warn(f"{function.__qualname__}: {old} is now {new[old]}", DeprecationWarning, stacklevel=2)
                kwargs[new[old]] = kwargs.pop(old)
            return function(*args, **kwargs)

        call.renamed = new  # type: ignore[attr-defined]
        return call  # type: ignore[return-value]

    return decorate


class RenamedWarning(DeprecationWarning):
    """A configuration or a command line uses an old name; commands print it as a note."""


class _Moved(ModuleType):
    """Stands for a module that has another name now."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # `tinv.measure` was a package and is a function
        return sys.modules["tinv"].__getattr__("measure")(*args, **kwargs)


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=name == "tinv.measure") if name in MODULES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Moved(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__getattr__"] = moved(module.__name__, {"*": MODULES[module.__name__]})


def keep_old_modules() -> None:
    """Lets old names of modules be imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
