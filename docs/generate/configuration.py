"""The page of the keys of a configuration, from the classes that it names and the parser that reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import tinv.data
import tinv.metrics
import tinv.tasks
from generate.arguments import Argument, argument_table, of_class, of_parser, type_text
from generate.commands import run_parser
from generate.metrics import names
from generate.text import code, doc, heading, table
from tinv.config import catalog
from tinv.config.options import TOP_LEVEL
from tinv.metrics.base import ReportedMetric
from tinv.runs.configuration import ABOVE_ZERO, LEAST
from tinv.utils import arguments

INTRODUCTION = """# Configuration

A configuration is a YAML file. Every key is an option of `tinv fit` too, with dots: `--data.init_args.batch_size=64`.
Several files given with `--config` are merged in order, options come last, and `${other.key}` takes the value of
another key after all of them. Unknown keys, wrong types and values out of range are found before anything slow is
imported, see [Errors](errors.md).

"""

SECTIONS = {
    "data": """## Data sets { #data }

`data.class_path` names one of these classes, or a `LightningDataModule` of your own; the keys below are those of
`data.init_args`.

""",
    "tasks": """## Tasks { #tasks }

`model.class_path` names one of these classes, or a `LightningModule` of your own; the keys below are those of
`model.init_args`. The options of networks, `model.init_args.backbone_args`, are listed under [Networks](networks.md).

""",
    "metrics": """## Metrics { #metrics }

`model.init_args.metrics` is a list of `class_path` and `init_args`. What each of them reports is listed under
[Metrics](metrics.md).

""",
    "trainer": """## Trainer { #trainer }

The keys of `trainer` are the arguments of `lightning.pytorch.Trainer`, with Lightning's own descriptions. Defaults
are those of a run of tinv.

""",
}


def page() -> str:
    """Returns the page."""
    named = [name for name in names() if issubclass(getattr(tinv.metrics, name), ReportedMetric)]
    return (
        INTRODUCTION
        + _top_level()
        + _classes("data", sorted(catalog.data_sets()), "data")
        + _classes("tasks", tinv.tasks.__all__, "task")
        + _classes("metrics", named, "metric")
        + SECTIONS["trainer"]
        + argument_table([_in_range(option) for option in of_parser(run_parser(), "trainer.")])
        + _types()
    )


def _top_level() -> str:
    known = {option.name: option for option in of_parser(run_parser())}
    rows = []
    for name, text in TOP_LEVEL.items():
        option = known.get(name)
        default = option.row[2] if option and name not in ("config", "model", "data") else ""
        rows.append((code(name), text, default))
    checkpoint = [option for option in known.values() if option.name.startswith("checkpoint.")]
    return (
        heading(2, "Keys at the top level", "top")
        + table(("key", "what it is", "default"), rows)
        + argument_table(checkpoint)
    )


def _classes(room: str, names: Sequence[str], prefix: str) -> str:
    """Returns the section of the classes of a room, each with its arguments."""
    parts = [SECTIONS[room]]
    for name in names:
        made: Any = getattr(getattr(tinv, room), name)
        parts += [heading(3, f"tinv.{room}.{name}", f"{prefix}-{name.lower()}"), doc(made).text, "\n\n"]
        parts.append(argument_table(of_class(made)))
    return "".join(parts)


def _in_range(option: Argument) -> Argument:
    """Returns an option of the trainer with the range that tinv holds it to."""
    name = option.name.removeprefix("trainer.")
    said = "Above 0" if name in ABOVE_ZERO else f"{LEAST[name]:g} or more" if name in LEAST else ""
    if said and name.startswith("max_"):
        said += ", or -1 for no limit"
    own = re.sub(r" ?Default: \S+?\.?(?= |$)", "", option.help)  # Lightning's, which may not be that of a run
    return option._replace(name=name, help=f"{own} {said}.".strip() if said else own)


def _types() -> str:
    rows = ((code(hint.__name__), type_text(hint)) for hint in arguments.RANGES)
    text = "These ranges are types of `tinv.utils.arguments`, which classes of your own can use too.\n\n"
    return heading(2, "Types with a range", "ranges") + text + table(("type", "range"), rows)
