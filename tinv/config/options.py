"""Finds a mistyped option or key, or a value that does not fit, at once: before torch is imported, which takes seconds.

What cannot be known from the source code (classes outside tinv and Lightning) is left to the full parser.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tinv.config import catalog
from tinv.config.merge import CommandLine, flatten, lookup, merge_configs, read_command_line, read_value
from tinv.config.yaml_files import line_of
from tinv.errors import TinvError, nearest
from tinv.utils.arguments import Seed, misfit

TOP_LEVEL = {
    "config": "configuration file; give it again to merge another over it",
    "experiment": "name of the experiment, and of the folder of its runs",
    "published": "entry of the published numbers to set beside the results",
    "seed_everything": "seed of weights, order and training shifts",
    "runs": "folder of all runs",
    "run_dir": "folder of this run",
    "ckpt_path": "checkpoint: a file, or `last` to resume a stopped run",
    "wandb": "send the run to Weights & Biases: auto (only under its agents), off, online, offline",
    "untrained": "validate, test or predict with random weights",
    "debug": "show tracebacks",
    "trainer": "options of lightning.Trainer",
    "checkpoint": "which checkpoint is the best",
    "model": "the task: a LightningModule",
    "data": "the data: a LightningDataModule",
}
CHECKPOINT = {"monitor": str, "mode": Literal["min", "max"]}
TYPES = {
    **{"seed_everything": bool | Seed, "wandb": Literal["auto", "off", "online", "offline"]},
    **{"trainer": dict, "checkpoint": dict, "model": dict | str, "data": dict | str},
}
"""Types of top-level keys that are more than a text."""

NOT_EMPTY = ("ckpt_path", "run_dir", "runs", "experiment", "published", "data.init_args.root")
"""Keys of paths and names."""


def check(args: Sequence[str]) -> None:
    """Checks the options, configuration files, keys and values of a run.

    Raises:
        TinvError: For a key that no run has, naming the nearest ones, and for a value that does not fit, naming the key
            and the file and line that it comes from.
    """
    given = read_command_line(args)
    merged: dict[str, Any] = {}
    for path, content in given.files:
        # the keys of a file belong to the classes named so far: a later file may name others
        merged = merge_configs(merged, content)
        settings = dict(flatten(merged))
        for key, value in flatten(content):
            _Key(key, settings, path).check(value)
    settings = {**dict(flatten(merged)), **given.options}
    for key, option in given.options.items():
        _Key(key, settings).check(option)


def check_values(values: Mapping[str, Any]) -> None:
    """Checks the values of a whole configuration, with interpolations resolved and defaults filled in.

    Raises:
        TinvError: For one that does not fit, naming its key.
    """
    settings = dict(flatten(values))
    for key, value in settings.items():
        _Key(key, settings, dashes="").check_value(value)


def located(message: str, given: CommandLine) -> str:
    """Returns a message that begins with a key, after the configuration file and the line that the key stands in.

    Args:
        message: The message.
        given: What the command line said.
    """
    key = message.lstrip("-").partition(":")[0].partition("=")[0].partition(" ")[0]
    options = [f"{own}." for own in given.options]
    if key.partition(".")[0] not in TOP_LEVEL or any(f"{key}.".startswith(own) for own in options):
        return message
    if any(own.startswith(f"{key}.") for own in options):
        return message  # a part of it, which may be what is wrong
    for path, content in reversed(given.files):
        while key:
            if lookup(content, key) is not None and (line := line_of(path, key)):
                return f"{path}, line {line}: {message}"
            key = key.rpartition(".")[0]
    return message


class _Key:
    """One dotted key.

    Args:
        key: The dotted key.
        settings: Dotted keys and values that say which classes are meant.
        path: Configuration file that gives it; None for an option.
        dashes: What a message puts before the key of an option.
    """

    def __init__(self, key: str, settings: Mapping[str, Any], path: Path | None = None, dashes: str = "--") -> None:
        self.key, self.settings, self.path = key, settings, path
        self.dashes = dashes if path is None else ""

    def check(self, value: Any) -> None:
        """Raises TinvError if no run has the key, or it is given a value that does not fit."""
        names = self.key.split(".")
        for end, known in self._known_names(names):
            prefix = ".".join(names[:end])
            self._check_name(names[end], f"{prefix}." if prefix else "", known)
        self.check_value(value)

    def check_value(self, value: Any) -> None:
        """Raises TinvError if a value does not fit the key."""
        if value == "" and self.key in NOT_EMPTY:
            raise self._error(f"{self.dashes}{self.key}: is empty; give it a value or leave it out")
        *_, (end, known) = self._known_names(self.key.split("."))
        found = known if known is not None and end == self.key.count(".") else {}
        hint = found.get(self.key.rpartition(".")[2], Any)
        if not self.dashes:
            self._check_fit(self.key, value, hint)
        elif value is not None and (hint is Any or misfit("", value, hint) is not None):
            # the text of an option is a text where that fits, else it is read as YAML
            self._check_fit(self.key, read_value(value), hint)

    def _check_fit(self, key: str, value: Any, hint: Any) -> None:
        if isinstance(value, str) and "${" in value:
            return
        if (reason := misfit(f"{self.dashes}{key}", value, hint)) is not None:
            raise self._error(reason)
        if isinstance(value, list):
            for number, item in enumerate(value):
                self._check_fit(f"{key}[{number}]", item, Any)
        elif isinstance(value, dict) and isinstance(options := value.get("init_args"), dict):
            known = catalog.class_arguments(value.get("class_path")) or {}
            for name, item in options.items():
                self._check_fit(f"{key}.init_args.{name}", item, known.get(name, Any))

    def _known_names(self, names: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any] | None]]:
        """Yields the places of the names that can be looked up, and what is known there; None where nothing is."""
        yield 0, {**dict.fromkeys((*TOP_LEVEL, "help", "print_config", "print_shtab"), Any), **TYPES}
        if len(names) < 2 or (names[0] in ("model", "data") and names[1] in ("class_path", "dict_kwargs", "help")):
            return
        if names[0] in ("trainer", "checkpoint"):
            yield 1, catalog.trainer_arguments() if names[0] == "trainer" else CHECKPOINT
        if names[0] not in ("model", "data"):
            return
        place = 2 if names[1] == "init_args" else 1
        if len(names) > place:
            named = self.settings.get(names[0]) or self.settings.get(f"{names[0]}.class_path")
            yield place, catalog.class_arguments(named) if isinstance(named, str) else None
        backbone = self.settings.get("model.init_args.backbone")
        own = self.settings.get("model.init_args.source", "tinv") == "tinv"
        if len(names) > place + 1 and names[place] == "backbone_args" and backbone and own:
            yield place + 1, catalog.backbone_arguments(backbone)

    def _check_name(self, name: str, prefix: str, known: Iterable[str] | None) -> None:
        if known is None or name in known:
            return
        options = [f"{self.dashes}{prefix}{choice}" for choice in sorted(known)]
        close = nearest(f"{self.dashes}{prefix}{name}", options)
        more = f" and {len(options) - 10} more" if len(options) > 10 else ""
        choices = f"; choose from {', '.join(options[:10])}{more}" if options else "; there is nothing to choose here"
        word = "option" if self.path is None else "key"
        raise self._error(f"unknown {word} {self.dashes}{self.key}{close or choices}")

    def _error(self, message: str) -> TinvError:
        line = None if self.path is None else line_of(self.path, self.key)
        where = "" if self.path is None else f"{self.path}{f', line {line}' if line else ''}: "
        return TinvError(f"{where}{message}")
