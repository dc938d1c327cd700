"""Commands whose options are the arguments of the library functions that they call."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter

from tinv.config.merge import read_value
from tinv.config.messages import short_message
from tinv.deprecation import RenamedWarning
from tinv.errors import TinvError, unknown
from tinv.utils.arguments import RANGES, misfit

R = TypeVar("R")


class _Help(DefaultHelpFormatter):
    """Says default, choices and range of an option, and leaves out what only a programmer reads."""

    def _get_help_string(self, action: Any) -> str:
        doc, text = action.help or "", super()._get_help_string(action)
        notes = re.sub(r"(, )?(type: %\(type\)s|known subclasses:.*(?=\)$))", "", text[len(doc) :])
        if action.default is None:
            notes = notes.replace("default: %(default)s", "")
        hint = getattr(action, "_typehint", None) or action.type
        ranges = [RANGES[part][1] for part in (hint, *get_args(hint)) if isinstance(part, type) and part in RANGES]
        notes = notes.replace("(, ", "(").replace(" ()", "")
        if not ranges:
            return doc + notes
        return f"{doc} ({ranges[0]}, {notes.strip()[1:]}" if notes.strip() else f"{doc} ({ranges[0]})"


class CommandParser:
    """Reads the options of a command; types, defaults and help are those of the functions that it calls.

    Options are written `--max-images 5`, `--max-images=5` or `--max_images 5`, lists `--metrics map layers`, sizes
    `--input-size 224x320`; an option of a bool needs no value; a first word without dashes is that of `positional`.

    Args:
        command: Name of the command.
        description: What it does.
        positional: Name of the option that the first word is the value of.
        old: New names of renamed options, by the old ones.

    Attributes:
        given: Present names of the options that the words parsed last hold.
    """

    def __init__(
        self, command: str, description: str, positional: str | None = None, old: Mapping[str, str] | None = None
    ) -> None:
        self.parser = ArgumentParser(
            f"tinv {command}", description=description, exit_on_error=False, formatter_class=_Help
        )
        self.command, self.positional = command, positional
        self.old = dict(old or {})
        self.hints: dict[str, Any] = {}
        self.given: set[str] = set()

    def add(self, title: str, made: Callable[..., Any], skip: set[str] | None = None) -> None:
        """Adds the arguments of a function or class, but for those named and those that are there already.

        Args:
            title: What stands over them in the help.
            made: The function or class.
            skip: Names of arguments that are no options.
        """
        function = made.__init__ if isinstance(made, type) else made  # type: ignore[misc]
        hints = get_type_hints(function)
        left_out: set[str | int] = {
            name for name in inspect.signature(function).parameters if name in self.hints or name in (skip or ())
        }
        group = self.parser.add_argument_group(title)
        add = group.add_class_arguments if isinstance(made, type) else group.add_function_arguments
        add(made, as_group=False, skip=left_out)
        self.hints |= {name: hint for name, hint in hints.items() if name not in left_out and name != "return"}
        self.old |= getattr(function, "renamed", {})

    def option(self, name: str, hint: Any, help: str, default: Any = inspect.Parameter.empty) -> None:
        """Adds an option that is no argument of a function; without default it is required."""
        required = default is inspect.Parameter.empty
        self.parser.add_argument(
            f"--{name}", type=hint, help=help, required=required, default=None if required else default
        )
        self.hints[name] = hint

    def parse(self, words: Sequence[str]) -> dict[str, Any]:
        """Returns the values of all options by name.

        Raises:
            TinvError: For a word that is no option, and a value that does not fit.
            SystemExit: After `--help` has been printed.
        """
        if "-h" in words or "--help" in words:
            # as options are written everywhere else
            print(re.sub(r"(?<=--)[a-z]\w*", lambda name: _dashed(name[0]), self.parser.format_help()), end="")
            raise SystemExit(0)
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # the parser prints its usage before it raises
                found = self.parser.instantiate(self.parser.parse_args(self._normalized(list(words))))
        except (ArgumentError, ValueError, TypeError) as error:
            if missing := re.search(r"the following arguments are required: (\w+)", str(error)):
                raise TinvError(f"--{_dashed(missing[1])} is missing; see tinv {self.command} --help") from error
            key, colon, reason = short_message(str(error)).partition(": ")
            is_option = key.partition(".")[0] in self.hints
            raise TinvError(f"--{_dashed(key)}: {reason}" if is_option else f"{key}{colon}{reason}") from error
        return dict(found.items())

    def _normalized(self, words: list[str]) -> list[str]:
        """Returns the words as the parser takes them: `--key=value` each, lists in brackets."""
        if self.positional and words and not words[0].startswith("-"):
            words = [f"--{self.positional}={words[0]}", *words[1:]]
        normalized = []
        self.given = set()
        while words:
            word = words.pop(0)
            name, equals, value = word.partition("=")
            if not name.startswith("--"):
                raise TinvError(f"{word!r} is not an option; options look like --key value")
            values = [value] if equals else []
            while words and not equals and not words[0].startswith("--"):
                values.append(words.pop(0))
            key = self._key(name)
            self.given.add(key.partition(".")[0])
            if key.endswith(".help"):
                normalized += [f"--{key}", *values]
                continue
            text = self._value(key, values)
            # a part of an object, such as padding.class_path, is checked when the object is made
            hint = self.hints.get(key, Any)
            if misfit("", text, hint) is not None:  # a text where that fits, else what it says as YAML
                reason = misfit(f"--{_dashed(key)}", read_value(text), hint)
                if reason is not None:
                    raise TinvError(reason)
            normalized.append(f"--{key}={text}")
        return normalized

    def _key(self, name: str) -> str:
        head, dot, rest = name[2:].partition(".")
        key = head.replace("-", "_")
        if key in self.old:
            warnings.warn(f"--{head} is now --{_dashed(self.old[key])}", RenamedWarning, stacklevel=2)
            key = self.old[key]
        if key not in self.hints:
            raise unknown("option", f"--{head}", [f"--{_dashed(known)}" for known in self.hints])
        return f"{key}{dot}{rest}"

    def _value(self, key: str, values: list[str]) -> str:
        hint = self.hints.get(key)
        kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if not values:
            if bool in kinds:
                return "true"
            raise TinvError(f"--{_dashed(key)} needs a value")
        if any(get_origin(kind) is dict for kind in kinds) and not values[0].startswith("{"):
            pairs = [value.partition("=") for value in values]
            if wrong := [value for (_, equals, _), value in zip(pairs, values, strict=True) if not equals]:
                raise TinvError(f"--{_dashed(key)} {wrong[0]!r}: write KEY=VALUE")
            return f"{{{', '.join(f'{name}: {value}' for name, _, value in pairs)}}}"
        is_list = any(get_origin(kind) in (list, tuple, Sequence) for kind in kinds)
        if is_list and int in kinds:
            return self._size(key, "".join(values).lower().strip("[]").replace(" ", ""))
        if is_list and not values[0].startswith("["):
            return f"[{','.join(values)}]"
        if len(values) > 1:
            raise TinvError(f"--{_dashed(key)} takes one value, not {' '.join(values)}")
        return values[0]

    def _size(self, key: str, text: str) -> str:
        if not re.fullmatch(r"[1-9]\d*([x,][1-9]\d*)*", text):
            raise TinvError(f"--{_dashed(key)} {text} is not a size in pixels such as 224, 224x320 or 16x112x112")
        return f"[{text.replace('x', ',')}]" if not text.isdigit() else text


class PlainParser(argparse.ArgumentParser):
    """Reads the options of a command that calls no single function; what is wrong is one line."""

    def error(self, message: str) -> NoReturn:
        """Raises TinvError with what is wrong."""
        raise TinvError(f"{message.removeprefix('argument ')}; see {self.prog} --help")


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def call(function: Callable[..., R], args: Mapping[str, Any], **more: Any) -> R:
    """Calls a function with those of some arguments that it takes, and with others."""
    taken = {name: args[name] for name in inspect.signature(function).parameters if name in args}
    return function(**{**taken, **more})


def recorded(args: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options as JSON can hold them; objects as they are written on a command line."""
    plain = (bool, int, float, str, list, tuple, dict, type(None))
    return {name: value if isinstance(value, plain) else str(value) for name, value in args.items()}
