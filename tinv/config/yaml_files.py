"""Reads and writes YAML in one way: numbers as YAML 1.2 has them, no key twice, strings that stay strings.

PyYAML follows YAML 1.1, where 1e-5 is a string and a quoted '1e5' loses its quotes when it is written; 010 and 1:30,
which are 8 and 90 there, are refused. Whatever tinv reads and writes goes through here, so that a value means the same
in a configuration, a sweep and a run's folder.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import yaml

from tinv.errors import TinvError
from tinv.utils.io import read_text

_FLOAT = re.compile(
    r"""^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
        |[0-9][0-9_]*[eE][-+]?[0-9]+
        |\.[0-9_]+(?:[eE][-+]?[0-9]+)?
        |[-+]?\.(?:inf|Inf|INF)
        |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            try:
                if key in seen:
                    raise TinvError(f"key {key!r} is given twice, in lines {seen[key]} and {line}; keep one of them")
            except TypeError as error:
                raise TinvError(f"line {line}: a key cannot be a list or a mapping") from error
            seen[key] = line
        return cast("dict[Any, Any]", super().construct_mapping(node, deep))

    def construct_yaml_int(self, node: Any) -> int:
        text = self.construct_scalar(node)
        if ":" in text or re.match(r"[-+]?0[0-9]", text):
            line = node.start_mark.line + 1
            raise TinvError(f"line {line}: {text} is another number in YAML 1.1 than it seems; put text into quotes")
        return super().construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


class _Dumper(yaml.SafeDumper):
    """Quotes every string that would be read as something else."""


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def parse(text: str) -> Any:
    """Returns the value of YAML text.

    Raises:
        TinvError: For a key that is given twice, and an integer written as 010 or 1:30.
        yaml.YAMLError: For text that is not YAML.
    """
    return yaml.load(text, _Loader)


def dump(value: Any, **options: Any) -> str:
    """Returns a value as YAML text, which `parse` reads as the same value."""
    text: str = yaml.dump(value, Dumper=_Dumper, **{"sort_keys": False, **options})
    return text


def line_of(path: Path, key: str) -> int | None:
    """Returns the line, from 1 on, that a dotted key stands in; None where it stands in none, as after a merge key."""
    node, line = yaml.compose(read_text(path), _Loader), None
    for part in key.split("."):
        found = [each for each, _ in getattr(node, "value", ()) if getattr(each, "value", None) == part]
        if not isinstance(node, yaml.MappingNode) or not found:
            return None
        line = found[0].start_mark.line + 1
        node = dict(node.value)[found[0]]
    return line


def read_mapping(path: Path) -> dict[str, Any]:
    """Reads a file of `key: value` lines.

    Raises:
        TinvError: With the line and column of what is wrong.
    """
    try:
        content = parse(read_text(path))
        json.dumps(content, default=str)  # finds what holds itself
    except TinvError as error:
        raise error if str(path) in str(error) else TinvError(f"{path}: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise TinvError(f"{path}{at}: not valid YAML ({getattr(error, 'problem', error)})") from error
    except RecursionError as error:
        raise TinvError(f"{path}: nested too deeply") from error
    except ValueError as error:
        raise TinvError(f"{path}: not valid YAML ({error})") from error
    if not isinstance(content, dict):
        raise TinvError(f"{path}: holds no `key: value` lines")
    if isinstance(content.get("wandb"), bool):
        # YAML reads off as false
        content["wandb"] = "online" if content["wandb"] else "off"
    return content
