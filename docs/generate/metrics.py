"""The page of the metrics: which numbers each reports, in which unit and range, by which formula and from which paper.

All of it stands in the docstrings of the classes, in the sections Reported, Formula and Source. A line of Reported is
"- `KEY` (UNIT, RANGE): what it is", where NAME in a key stands for the name of the metric.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import NamedTuple

import tinv.metrics
from generate.text import code, doc, heading, table
from tinv.metrics.base import ReportedMetric

INTRODUCTION = """# Metrics

A configuration names metrics under `model.init_args.metrics`; results are logged as `test/KEY`, followed by `/SET`
where there is more than one test set. Keys are those of the default `name` of each metric. Arguments are listed under
[Configuration](configuration.md#metrics), classes under [API](../api/metrics.md). Percentages lie in 0 to 100, cosine
similarities in -1 to 1. `results.json` holds the unit of each number that declares one.

"""

BASES = ("InvarianceMetric", "ViewMetric")

LINE = re.compile(r"- `(?P<key>\S+)` \((?P<unit>[^,)]+), (?P<range>[^)]+)\): (?P<what>.+)", re.DOTALL)


class Reported(NamedTuple):
    """One number that a metric reports.

    Attributes:
        key: Its key, below `test/`.
        unit: Its unit.
        range: Smallest and largest value.
        what: What it is.
    """

    key: str
    unit: str
    range: str
    what: str


def names() -> list[str]:
    """Returns the names of the metrics, without those of bases."""
    return [name for name in tinv.metrics.__all__ if name not in BASES]


def default_name(metric: type) -> str:
    """Returns the name of a metric if none is given; empty for one that cannot be named."""
    parameters = inspect.signature(metric).parameters
    return parameters["name"].default if "name" in parameters else ""


def reported(metric: type) -> Iterator[Reported]:
    """Yields what the docstring of a metric says that it reports.

    Raises:
        LookupError: If a line does not say it in the form above.
    """
    lines = re.split(r"\n(?=- )", doc(metric).sections.get("Reported", ""))
    for line in lines:
        if (found := LINE.fullmatch(line.strip())) is None:
            raise LookupError(f"{metric.__name__}: the section Reported is missing, or has the line {line!r}")
        yield Reported(found["key"].replace("NAME", default_name(metric)), found["unit"], found["range"], found["what"])


def page() -> str:
    """Returns the page."""
    return INTRODUCTION + "".join(map(_section, names()))


def _section(name: str) -> str:
    metric = getattr(tinv.metrics, name)
    found = doc(metric)
    rows = ((code(f"test/{line.key}"), line.unit, line.range, line.what) for line in reported(metric))
    link = f"[`tinv.metrics.{name}`](../api/metrics.md#{metric.__module__}.{name})"
    parts = [heading(2, name, name.lower()), found.text, "\n\n"]
    parts.append(table(("key", "unit", "range", "what it is"), rows))
    parts += [f"**{part}.** {found.sections[part]}\n\n" for part in ("Formula", "Source") if part in found.sections]
    if issubclass(metric, ReportedMetric):
        more = f", options: [configuration](configuration.md#metric-{name.lower()})"
    else:
        more = ", computed by tasks without being named in a configuration"
    text = "".join(parts) + f"Class: {link}{more}.\n\n"
    return re.sub(r"\bNAME", default_name(metric), text)
