"""Markdown that several pages need, and the reading of docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from griffe import Docstring, DocstringSectionKind


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table; a line break or a bar in a cell does not end the cell."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(map(cell, line))} |\n" for line in lines) + "\n"


def cell(text: str) -> str:
    """Returns a text as it stands in a cell of a table."""
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))


def code(value: object) -> str:
    """Returns a value as code."""
    return f"`{value}`"


def heading(level: int, title: str, anchor: str = "") -> str:
    """Returns a heading, with an anchor of its own if there is one."""
    return f"{'#' * level} {title}{f' {{ #{anchor} }}' if anchor else ''}\n\n"


class Doc(NamedTuple):
    """A docstring in its parts.

    Attributes:
        text: What it says before and between its sections.
        sections: Contents of the sections that Google's style does not know, such as `Reported`, by their names.
    """

    text: str
    sections: dict[str, str]

    @property
    def first(self) -> str:
        """Its first paragraph, on one line."""
        return " ".join(self.text.partition("\n\n")[0].split())


def doc(source: Any) -> Doc:
    """Returns the docstring of an object, or one that is given as a text, in its parts."""
    text = source if isinstance(source, str) else inspect.getdoc(source) or ""
    parts, sections = [], {}
    for section in Docstring(inspect.cleandoc(text)).parse("google", warnings=False):
        if section.kind is DocstringSectionKind.text:
            parts.append(section.value)
        elif section.kind is DocstringSectionKind.admonition:
            sections[section.title or ""] = section.value.description
    return Doc("\n\n".join(parts), sections)
