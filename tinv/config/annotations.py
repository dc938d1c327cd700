"""Types of arguments, read from the annotations in source code, since imports take seconds."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union

from tinv.config.files import PACKAGE
from tinv.utils import arguments

BUILTIN = {"int": int, "float": float, "bool": bool, "str": str, "list": list, "tuple": tuple, "dict": dict}


@cache
def parse(path: Path) -> ast.Module:
    """Returns the syntax tree of a file of source code."""
    return ast.parse(path.read_text(encoding="utf-8"))


def argument_types(args: ast.arguments, path: Path) -> dict[str, Any]:
    """Returns the types of a function's arguments by name; Any for what takes an import to know.

    Args:
        args: Arguments, as they stand in the source code.
        path: File that the function is in.
    """
    return {each.arg: _type(each.annotation, path) for each in [*args.posonlyargs, *args.args, *args.kwonlyargs]}


def _type(node: ast.AST | None, path: Path) -> Any:
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Name(id=name):
            ranged = getattr(arguments, name, None)
            return BUILTIN.get(name) or (ranged if ranged in arguments.RANGES else _alias(name, path))
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _union([left, right], path)
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return _union([inner, ast.Constant(None)], path)
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=parts)):
            return _union(parts, path)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            return Literal[tuple(_choices(choices, path))]
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=[item, ast.Constant(value=end)])):
            return Sequence[_type(item, path)] if end is ... else tuple  # type: ignore[misc]
        case ast.Subscript(value=ast.Name(id="list" | "Sequence"), slice=item):
            return Sequence[_type(item, path)]  # type: ignore[misc]
        case ast.Subscript(value=ast.Name(id="tuple" | "dict" as name)):
            return BUILTIN[name]
    return Any


def _union(parts: Sequence[ast.AST], path: Path) -> Any:
    return Union[tuple(_type(part, path) for part in parts)]  # noqa: UP007, the parts are known at run time alone


def _choices(node: ast.AST, path: Path) -> Iterator[Any]:
    """Yields the values that a Literal lists, and those of the Literals that it names."""
    for each in node.elts if isinstance(node, ast.Tuple) else [node]:
        if isinstance(each, ast.Constant):
            yield each.value
        elif isinstance(each, ast.Name):
            yield from _alias(each.id, path).__args__


@cache
def _alias(name: str, path: Path) -> Any:
    """Returns the type that a name stands for in a file of tinv, which may import it from another one."""
    for node in parse(path).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                return _type(value, path)
            case ast.ImportFrom(module=str(module), names=names) if module.startswith("tinv.") and any(
                each.name == name and each.asname is None for each in names
            ):
                home = PACKAGE.joinpath(*module.split(".")[1:])
                return _alias(name, home / "__init__.py" if home.is_dir() else home.with_suffix(".py"))
    return Any
