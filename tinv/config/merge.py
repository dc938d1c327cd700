"""Configuration files and options become one configuration: the one merge, used by runs, sweeps and the quick check."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tinv.config import catalog, yaml_files
from tinv.config.files import find_file
from tinv.deprecation import RenamedWarning
from tinv.errors import TinvError

FLAGS = {"untrained", "debug", "help"}
"""Options that take no value."""


def flatten(mapping: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, value) of every value that is not itself a mapping with keys.

    Examples:
        >>> dict(flatten({"model": {"padding": "valid"}, "seed": 1}))
        {'model.padding': 'valid', 'seed': 1}
    """
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the nested configuration of dotted keys: the inverse of `flatten`."""
    config: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, last = key.split(".")
        inner = config
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return config


def lookup(mapping: Mapping[str, Any], key: str) -> Any:
    """Returns the value of a dotted key, None if it is not there."""
    value: Any = mapping
    for part in key.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def merge_configs(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """Returns `base` with the values of `overlay`; nested keys that only one of them has are kept.

    Where the overlay names another `class_path`, the options of the old class go with it. (OmegaConf's own merge would
    keep them, which is why it is not used here; it resolves the interpolations of the merged configuration.)
    """
    if "class_path" in overlay and overlay["class_path"] != base.get("class_path"):
        return overlay
    both = dict(base)
    for key, value in overlay.items():
        old = both.get(key)
        both[key] = merge_configs(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both


def option_pairs(args: Sequence[str]) -> Iterator[tuple[str, str | None, int]]:
    """Yields (name without dashes, value, position of the option) for every option of a command line.

    Raises:
        TinvError: For a word that is no option.
    """
    position = 0
    while position < len(args):
        word, start = args[position], position
        position += 1
        if word == "-c":
            word = "--config"
        if not word.startswith("--"):
            if word == "-h":
                continue
            raise TinvError(f"{word!r} is not an option; options look like --key=value")
        name, equals, value = word[2:].partition("=")
        if equals:
            yield name, value, start
        elif name in FLAGS or position == len(args) or args[position].startswith("--"):
            yield name, None, start
        else:
            yield name, args[position], start
            position += 1


@dataclass(frozen=True)
class CommandLine:
    """What the words of a command line say, under the present names of keys and classes.

    Attributes:
        files: Every configuration file and its content, in order.
        merged: The files merged.
        options: The other options: value by dotted key, None for one without.
        words: The words of these options.
    """

    files: tuple[tuple[Path, dict[str, Any]], ...]
    merged: dict[str, Any]
    options: dict[str, str | None]
    words: tuple[str, ...]

    @property
    def flat(self) -> dict[str, Any]:
        """Value of every dotted key; options are read as YAML."""
        found = dict(flatten(self.merged))
        for key, value in self.options.items():
            override(found, key, True if value is None else value)
        return found


def read_command_line(words: Sequence[str]) -> CommandLine:
    """Reads the options of a command line and the configuration files that they name.

    Raises:
        TinvError: For a word that is no option, and a file that is not there or not YAML.
    """
    files: list[tuple[Path, dict[str, Any]]] = []
    merged: dict[str, Any] = {}
    others: list[tuple[str, str | None, list[str]]] = []
    taken = set()
    for name, value, position in option_pairs(words):
        own = [words[position]] if value is None or "=" in words[position] else list(words[position : position + 2])
        taken |= set(range(position, position + len(own)))
        if name == "config":
            if not value:
                raise TinvError("--config needs the name of a file")
            path = find_file(value, "configs")
            content = with_new_names(_undotted(yaml_files.read_mapping(path), path), merged)
            merged = merge_configs(merged, content)
            files.append((path, content))
        elif name in FLAGS and value is not None:
            if value.lower() not in ("true", "false"):
                raise TinvError(f"--{name}: {value[:100]!r} is not true or false")
            others += [(name, None, [f"--{name}"])] if value.lower() == "true" else []
        else:
            others.append((name, value, own))
    known = {**dict(flatten(merged)), **{name: value for name, value, _ in others}}
    options: dict[str, str | None] = {}
    rest = [word for position, word in enumerate(words) if position not in taken]
    for name, value, own in others:
        new = new_option(name, value, known)
        options[new[0].removesuffix("+")] = new[1]
        rest += own if new == (name, value) else [f"--{new[0]}={new[1]}"]
    return CommandLine(tuple(files), merged, options, tuple(rest))


def with_run_config(args: Sequence[str]) -> list[str]:
    """Returns the options with the checkpoint's own run configuration first, if no configuration is given.

    Raises:
        TinvError: If there is none beside the checkpoint.
    """
    given = {name: value for name, value, _ in option_pairs(args)}
    checkpoint = given.get("ckpt_path")
    if "config" in given or not checkpoint or "help" in given:
        return list(args)
    own = Path(checkpoint).parent.parent / "config.yaml"
    if not own.is_file():
        raise TinvError(f"there is no {own} beside the checkpoint; name the configuration with --config")
    return ["--config", str(own), "--run_dir", "null", *args]


def _undotted(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Returns the content of a file with `trainer.max_epochs: 3` written as `trainer: {max_epochs: 3}`."""
    dotted = {key: content.pop(key) for key in list(content) if isinstance(key, str) and "." in key}
    flat = dict(flatten(content))
    for key in dotted:
        if any(f"{own}.".startswith(f"{key}.") or f"{key}.".startswith(f"{own}.") for own in flat):
            raise TinvError(f"{path}: {key} is given twice, once with dots in its key; keep one of them")
    return merge_configs(content, nested(dotted))


def with_new_names(value: Any, known: Any = None) -> Any:
    """Returns a configuration with the new names of renamed classes and arguments, saying so in a warning each.

    Args:
        value: A configuration, or a part of one.
        known: What is merged so far at its place, which may name the classes.

    Raises:
        TinvError: For an argument that is given by its old and by its new name.
    """
    if isinstance(value, list):
        return [with_new_names(item) for item in value]
    if not isinstance(value, dict):
        return value
    known = known if isinstance(known, dict) else {}
    found = {key: with_new_names(item, known.get(key)) for key, item in value.items()}
    if isinstance(path := found.get("class_path"), str) and path in catalog.old_classes():
        found["class_path"] = _told(path, catalog.old_classes()[path])
    path, given = found.get("class_path", known.get("class_path")), found.get("init_args")
    if isinstance(path, str) and isinstance(given, dict):
        new = catalog.old_arguments(path)
        if both := [key for key in given if new.get(key) in given]:
            raise TinvError(f"init_args.{both[0]} is the old name of {new[both[0]]}; keep one of them")
        found["init_args"] = {_told(key, new[key]) if key in new else key: item for key, item in given.items()}
    return found


def _told(old: str, new: str) -> str:
    warnings.warn(f"{old} is now {new}", RenamedWarning, stacklevel=2)
    return new


def new_option(key: str, value: str | None, known: Mapping[str, Any]) -> tuple[str, str | None]:
    """Returns an option under the new names of renamed classes and arguments.

    Args:
        key: Dotted key.
        value: As it is written.
        known: Dotted keys of the whole configuration, which name the classes.
    """
    parts = key.split(".")
    for end in (number for number, part in enumerate(parts[:-1]) if part in ("model", "data", "init_args")):
        prefix = ".".join(parts[: end + (parts[end] != "init_args")])
        path = known.get(f"{prefix}.class_path", known.get(prefix))
        path = catalog.old_classes().get(str(path), path)
        if new := catalog.old_arguments(path).get(parts[end + 1]):
            parts[end + 1] = _told(parts[end + 1], new)
    if value is not None and "class_path" in value:
        read = read_value(value)
        changed = with_new_names(read)
        if changed != read:
            value = to_cli(changed)
    elif parts[-1] == "class_path" or key in ("model", "data"):
        value = _told(value, catalog.old_classes()[value]) if value in catalog.old_classes() else value
    return ".".join(parts), value


def to_cli(value: Any) -> str:
    """Returns a value as an option of the command line takes it."""
    if isinstance(value, str):
        return value
    return yaml_files.dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")


def override(flat: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key; a string is read as the command line reads it, and a mapping replaces what stood there."""
    if isinstance(value, str):
        value = read_value(value)
    if key not in flat:
        for longer in [k for k in flat if k.startswith(f"{key}.")]:
            del flat[longer]
    if isinstance(value, dict) and value:
        flat.pop(key, None)
        flat.update(flatten(value, f"{key}."))
    else:
        flat[key] = value


def read_value(text: str) -> Any:
    """Returns the value of an option as it is written, which is YAML where it can be."""
    if text not in _READ:
        try:
            _READ[text] = yaml_files.parse(text)
        except (yaml.YAMLError, ValueError, TinvError):
            _READ[text] = text
    return _READ[text]


_READ: dict[str, Any] = {}
