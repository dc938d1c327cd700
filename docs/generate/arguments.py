"""Arguments of classes and commands as rows of a table: name, type with its range, default, description.

They are read from the parsers that read configurations and command lines, so that a page says what a run accepts.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from jsonargparse import ArgumentParser

from generate.text import code, table
from tinv.policies.cards import ACTIVATIONS, PADDINGS, SUBSAMPLINGS, TOKENS
from tinv.utils.arguments import RANGES


class Switch:
    """Type of an option that takes no value."""


NAMES: dict[Any, str] = {
    **{int: "integer", float: "number", bool: "true or false", str: "text", dict: "mapping", NoneType: "null"},
    **{Path: "path", Switch: "no value"},
}
POLICIES: dict[tuple[str, ...], str] = {
    PADDINGS: "name of a [padding policy](policies.md#padding)",
    SUBSAMPLINGS: "name of a [subsampling policy](policies.md#subsampling)",
    ACTIVATIONS: "name of an [activation policy](policies.md#activations)",
    TOKENS: "name of a [token policy](policies.md#tokens)",
}


class Argument(NamedTuple):
    """One argument.

    Attributes:
        name: Its name or dotted key.
        hint: Its type.
        default: Its default.
        required: Whether it has none.
        help: What its docstring says.
        written: How it is written on a command line.
    """

    name: str
    hint: Any
    default: Any
    required: bool
    help: str
    written: str = ""

    @property
    def row(self) -> tuple[str, str, str, str]:
        """Its row of a table with the columns of `COLUMNS`."""
        default = "required" if self.required else "off" if self.hint is Switch else value_text(self.default)
        return code(self.name), type_text(self.hint), default, self.help


COLUMNS = ("key", "type and range", "default", "what it is")


def of_class(made: Callable[..., Any]) -> list[Argument]:
    """Returns the arguments of a class or function, with those that its **kwargs hand on."""
    parser = ArgumentParser(exit_on_error=False)
    add = parser.add_class_arguments if isinstance(made, type) else parser.add_function_arguments
    add(made, as_group=False, fail_untyped=False)
    return list(of_parser(parser))


def of_parser(parser: argparse.ArgumentParser, under: str = "") -> Iterator[Argument]:
    """Yields the arguments of a parser, those whose keys begin with `under` if it is given."""
    required: set[str] = getattr(parser, "required_args", set())
    for action in parser._actions:
        is_hidden = argparse.SUPPRESS in (action.help, action.default) or action.dest.rpartition(".")[2] == "help"
        if is_hidden or action.dest == "print_config" or not action.dest.startswith(under):
            continue
        hint = getattr(action, "_typehint", None) or action.type
        if hint is None and action.choices is not None:
            hint = Literal[tuple(action.choices)]
        if action.nargs == 0:
            hint = Switch
        is_required = action.required or action.dest in required
        written = next((each for each in action.option_strings if each.startswith("--")), action.metavar or action.dest)
        text = sentence(action.help or "")
        yield Argument(action.dest, hint or str, action.default, is_required, text, str(written))


def argument_table(arguments: Sequence[Argument], columns: Sequence[str] = COLUMNS) -> str:
    """Returns the table of some arguments."""
    return table(columns, (argument.row for argument in arguments)) if arguments else "No options of its own.\n\n"


def sentence(text: str) -> str:
    """Returns a help text on one line, with what reStructuredText marks as code marked as Markdown does."""
    line = re.sub(r"``(.+?)``", r"`\1`", " ".join(text.split())).replace("<", "&lt;")
    return re.sub(r":\w+:`~?([^`]*)`", r"`\1`", line)


def type_text(hint: Any) -> str:
    """Returns a type in words: `integer, 1 or more`, or the choices it leaves."""
    if hint in RANGES:
        base, text, _ = RANGES[hint]
        return f"{NAMES[base]}, {text.removeprefix('a seed from ')}"
    if hint in NAMES:
        return NAMES[hint]
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        for names, text in POLICIES.items():
            if set(names) <= set(parts):  # old names among them
                return text
        return ", ".join(code(choice) for choice in parts)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(type_text, parts)))
    if origin is dict:
        return NAMES[dict]
    if isinstance(origin, type) and issubclass(origin, Sequence):
        items = dict.fromkeys(type_text(part) for part in parts if part is not Ellipsis)
        return f"list of: {'; '.join(items)}" if items else "list"
    if isinstance(hint, type) and issubclass(hint, list | tuple):
        return "list"
    made = parts[-1] if parts and not isinstance(hint, type) else hint  # a Callable returns what is made
    if get_origin(made) in (Union, UnionType):
        return " or ".join(map(type_text, get_args(made)))
    name = getattr(made, "__name__", "")
    return f"{name} (`class_path`)" if name and name != "Any" else "any"


def value_text(value: Any) -> str:
    """Returns a default as YAML writes it."""
    if value is None:
        return code("null")
    if isinstance(value, bool | int | float | list | tuple | dict):
        return code(json.dumps(value, default=str).replace('"', ""))
    return code(value)
