"""Which data sets, networks, classes and arguments there are, read from the source code, since imports take seconds.

There is no list to keep up to date; classes outside tinv and Lightning are not known here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, NamedTuple

from tinv.config.annotations import argument_types, parse
from tinv.config.files import PACKAGE

ROOMS = ("data", "tasks", "metrics")
"""Rooms whose classes a configuration names."""

COMMON = {"num_classes", "in_channels", "policy", "pretrained"}
"""Arguments of a network of ours that are not its own options."""


class _Class(NamedTuple):
    """A class and the file that it is in."""

    node: ast.ClassDef
    path: Path


@cache
def _classes(room: str) -> dict[str, _Class]:
    return {name: found for path in sorted((PACKAGE / room).rglob("*.py")) for name, found in _classes_in(path).items()}


def _classes_in(path: Path) -> dict[str, _Class]:
    return {node.name: _Class(node, path) for node in parse(path).body if isinstance(node, ast.ClassDef)}


def _known_classes() -> dict[str, _Class]:
    return {name: found for room in ROOMS for name, found in _classes(room).items()}


def _find(class_path: object) -> _Class | None:
    """Returns the class of a path such as `tinv.data.CIFAR10` or `CIFAR10`; None if it is not one of tinv."""
    package, _, name = str(class_path).rpartition(".")
    return None if package and package.split(".")[0] != "tinv" else _known_classes().get(name)


def class_arguments(class_path: object) -> dict[str, Any] | None:
    """Returns the arguments of a class and their types, with those its **kwargs hand on; None if it is not known."""
    found = _find(class_path)
    return None if found is None else _arguments(found, _known_classes())


def _bases(found: _Class, classes: dict[str, _Class]) -> list[_Class]:
    return [classes[base.id] for base in found.node.bases if isinstance(base, ast.Name) and base.id in classes]


def _init(found: _Class) -> ast.FunctionDef | None:
    return next((i for i in found.node.body if isinstance(i, ast.FunctionDef) and i.name == "__init__"), None)


def _arguments(found: _Class, classes: dict[str, _Class]) -> dict[str, Any] | None:
    init, bases = _init(found), _bases(found, classes)
    if init is None:
        return next((own for base in bases if (own := _arguments(base, classes)) is not None), None)
    of_bases = [_arguments(base, classes) or {} for base in bases] if init.args.kwarg else []
    own = argument_types(init.args, found.path)
    return {name: hint for known in (*of_bases, own) for name, hint in known.items() if name != "self"}


@cache
def trainer_arguments() -> dict[str, Any] | None:
    """Returns the arguments of Lightning's Trainer and their types, None if they cannot be found."""
    spec = PathFinder.find_spec("lightning")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / "pytorch" / "trainer" / "trainer.py"
    return _arguments(_classes_in(path)["Trainer"], {}) if path.is_file() else None


def backbone_arguments(name: str) -> dict[str, Any] | None:
    """Returns the options of a network of source `tinv` that are its own, and their types; None if there is none."""
    path = PACKAGE / "models" / "backbones" / f"{name}.py"
    for node in parse(path).body if path.is_file() else ():
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return {key: hint for key, hint in argument_types(node.args, path).items() if key not in COMMON}
    return None


def old_arguments(class_path: object) -> dict[str, str]:
    """Returns the new names of the renamed arguments of a class, by their old names; see `tinv.deprecation.renamed`."""
    found = _find(class_path)
    return {} if found is None else _old_arguments(found, _known_classes())


def _old_arguments(found: _Class, classes: dict[str, _Class]) -> dict[str, str]:
    old: dict[str, str] = {}
    init = _init(found)
    if init is None or init.args.kwarg:
        for base in _bases(found, classes):
            old |= _old_arguments(base, classes)
    for mark in init.decorator_list if init else ():
        if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == "renamed":
            old |= {word.arg: ast.literal_eval(word.value) for word in mark.keywords if word.arg}
    return old


@cache
def old_classes() -> dict[str, str]:
    """Returns the new class paths of renamed classes, by the old ones; see `tinv.deprecation.moved`."""
    found: dict[str, str] = {}
    for room in ROOMS:
        for node in ast.walk(parse(PACKAGE / room / "__init__.py")):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "moved":
                homes: dict[str, str] = ast.literal_eval(node.args[1])
                for old, home in homes.items():
                    found[f"tinv.{room}.{old}"] = f"tinv.{room}.{home.partition(':')[2] or old}"
    return {old: new for old, new in found.items() if old != new}


def _first_line(node: ast.ClassDef | ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0]


def data_sets() -> dict[str, str]:
    """Returns the data modules of tinv and the first line of what they say of themselves."""
    classes = _classes("data")

    def ancestors(found: _Class) -> Iterator[str]:
        yield from (base.id for base in found.node.bases if isinstance(base, ast.Name))
        for base in _bases(found, classes):
            yield from ancestors(base)

    def is_abstract(found: _Class) -> bool:
        marks = [mark for item in found.node.body if isinstance(item, ast.FunctionDef) for mark in item.decorator_list]
        return any(isinstance(mark, ast.Name) and mark.id == "abstractmethod" for mark in marks)

    return {
        name: _first_line(found.node)
        for name, found in classes.items()
        if "InvarianceDataModule" in ancestors(found) and not is_abstract(found) and not name.startswith("_")
    }


def own_backbones() -> dict[str, str]:
    """Returns the networks of source `tinv` and the first line of what they say of themselves."""
    return {
        path.stem: line
        for path in sorted((PACKAGE / "models" / "backbones").glob("*.py"))
        for node in parse(path).body
        if isinstance(node, ast.FunctionDef) and node.name == path.stem and (line := _first_line(node))
    }
