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

_POLICIES = {
    "nn": ("pooling",),
    "graph": (
        *("analysis", "border", "contractions", "converted", "functions", "geometry", "operations", "positions"),
        *("rules", "signs", "state", "tracing", "values", "windows"),
    ),
    "surgery": ("alignment", "background", "convert", "explicit_padding", "strides"),
}
_DATA = {
    "cache_folder": "formats.cache_folder",
    "file_data": "from_files",
    "image_cache": "formats.image_cache",
    "image_files": "formats.images",
    "image_preparation": "formats.image_preparation",
    "patch_set": "formats.patches",
    "video_files": "formats.videos",
}
_MEASURE = ("attribution", "images", "location_probe", "networks")

_RENAMED = {
    "places": "tinv.graph.grid",
    "judge": "tinv.graph.invariance_analyzer",
    "verdict": "tinv.graph.exact_invariance",
    "settings": "tinv.policies.conversion",
    "builder": "tinv.surgery.rewriter",
    "graph_builder": "tinv.surgery.rewriter",
}

MODULES = {f"tinv.policies.{name}": f"tinv.{room}.{name}" for room, names in _POLICIES.items() for name in names} | {
    **{f"tinv.policies.{name}": new for name, new in _RENAMED.items()},
    "tinv.graph.judge": "tinv.graph.invariance_analyzer",
    "tinv.graph.verdict": "tinv.graph.exact_invariance",
    "tinv.measure": "tinv.evaluation",
    **{f"tinv.measure.{name}": f"tinv.evaluation.{name}" for name in _MEASURE},
    "tinv.measure.command": "tinv.cli.measure",
    "tinv.measure.probe_command": "tinv.cli.probe",
    "tinv.files": "tinv.utils.io",
    "tinv.progress": "tinv.utils.progress",
    "tinv.memory": "tinv.utils.memory",
    "tinv.yaml_files": "tinv.config.yaml_files",
    "tinv.nested": "tinv.config.merge",
    "tinv.inspection": "tinv.cli.inspect",
    "tinv.listing": "tinv.cli.list",
    "tinv.runs.options": "tinv.config.options",
    "tinv.runs.commands": "tinv.runs.engine",
    "tinv.sweeps.cells": "tinv.sweeps.trials",
    "tinv.sweeps.sweepfile": "tinv.sweeps.schema",
    "tinv.sweeps.command": "tinv.cli.sweep",
    "tinv.report.command": "tinv.cli.report",
    "tinv.report.page": "tinv.report.html_report",
    "tinv.report.pictures": "tinv.report.figures",
    "tinv.report.shapes": "tinv.report.trend_checks",
    **{f"tinv.data.{old}": f"tinv.data.{new}" for old, new in _DATA.items()},
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
        new: The new name of each argument, by its old name.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for old in new.keys() & kwargs.keys():
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
        return import_module("tinv.evaluation.invariance").measure(*args, **kwargs)


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
