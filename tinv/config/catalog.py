"""Which data sets, networks, classes and arguments there are, read from the source code, since imports take seconds.

There is no list to keep up to date; classes outside tinv and Lightning are not known here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

from tinv.config.files import PACKAGE

ROOMS = ("data", "tasks", "metrics")
"""Rooms whose classes a configuration names."""

COMMON = {"num_classes", "in_channels", "policy", "pretrained"}
"""Arguments of a network of ours that are not its own options."""


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def _classes(room: str) -> dict[str, ast.ClassDef]:
    return {name: node for path in sorted((PACKAGE / room).rglob("*.py")) for name, node in _classes_in(path).items()}


def _classes_in(path: Path) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in _parse(path).body if isinstance(node, ast.ClassDef)}


def _known_classes() -> dict[str, ast.ClassDef]:
    return {name: node for room in ROOMS for name, node in _classes(room).items()}


def _find(class_path: object) -> ast.ClassDef | None:
    """Returns the class of a path such as `tinv.data.CIFAR10` or `CIFAR10`; None if it is not one of tinv."""
    package, _, name = str(class_path).rpartition(".")
    return None if package and package.split(".")[0] != "tinv" else _known_classes().get(name)


def class_options(class_path: object) -> set[str] | None:
    """Returns the arguments of a class, with those its **kwargs hand on to its bases; None if it is not known."""
    node = _find(class_path)
    return None if node is None else _options(node, _known_classes())


def _bases(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> list[ast.ClassDef]:
    return [classes[base.id] for base in node.bases if isinstance(base, ast.Name) and base.id in classes]


def _init(node: ast.ClassDef) -> ast.FunctionDef | None:
    return next((i for i in node.body if isinstance(i, ast.FunctionDef) and i.name == "__init__"), None)


def _options(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> set[str] | None:
    init, bases = _init(node), _bases(node, classes)
    if init is None:
        return next((found for base in bases if (found := _options(base, classes)) is not None), None)
    names = _argument_names(init.args) - {"self"}
    if init.args.kwarg:
        names = names.union(*(_options(base, classes) or set() for base in bases))
    return names


def _argument_names(arguments: ast.arguments) -> set[str]:
    return {argument.arg for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]}


@cache
def trainer_options() -> set[str] | None:
    """Returns the arguments of Lightning's Trainer, None if they cannot be found."""
    spec = PathFinder.find_spec("lightning")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / "pytorch" / "trainer" / "trainer.py"
    return _options(_classes_in(path)["Trainer"], {}) if path.is_file() else None


def backbone_options(name: str) -> set[str] | None:
    """Returns the options of a network of source `tinv` that are its own, None if there is no such network."""
    path = PACKAGE / "models" / "backbones" / f"{name}.py"
    for node in _parse(path).body if path.is_file() else ():
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _argument_names(node.args) - COMMON
    return None


def old_arguments(class_path: object) -> dict[str, str]:
    """Returns the new names of the renamed arguments of a class, by their old names; see `tinv.deprecation.renamed`."""
    node = _find(class_path)
    return {} if node is None else _old_arguments(node, _known_classes())


def _old_arguments(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> dict[str, str]:
    found: dict[str, str] = {}
    init = _init(node)
    if init is None or init.args.kwarg:
        for base in _bases(node, classes):
            found |= _old_arguments(base, classes)
    for mark in init.decorator_list if init else ():
        if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == "renamed":
            found |= {word.arg: ast.literal_eval(word.value) for word in mark.keywords if word.arg}
    return found


@cache
def old_classes() -> dict[str, str]:
    """Returns the new class paths of renamed classes, by the old ones; see `tinv.deprecation.moved`."""
    found: dict[str, str] = {}
    for room in ROOMS:
        for node in ast.walk(_parse(PACKAGE / room / "__init__.py")):
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

    def ancestors(node: ast.ClassDef) -> Iterator[str]:
        yield from (base.id for base in node.bases if isinstance(base, ast.Name))
        for base in _bases(node, classes):
            yield from ancestors(base)

    def is_abstract(node: ast.ClassDef) -> bool:
        marks = [mark for item in node.body if isinstance(item, ast.FunctionDef) for mark in item.decorator_list]
        return any(isinstance(mark, ast.Name) and mark.id == "abstractmethod" for mark in marks)

    return {
        name: _first_line(node)
        for name, node in classes.items()
        if "InvarianceDataModule" in ancestors(node) and not is_abstract(node) and not name.startswith("_")
    }


def own_backbones() -> dict[str, str]:
    """Returns the networks of source `tinv` and the first line of what they say of themselves."""
    return {
        path.stem: line
        for path in sorted((PACKAGE / "models" / "backbones").glob("*.py"))
        for node in _parse(path).body
        if isinstance(node, ast.FunctionDef) and node.name == path.stem and (line := _first_line(node))
    }
