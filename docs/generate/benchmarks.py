"""The page of the benchmarks: what each script claims, how it is run, and what was measured last."""

from __future__ import annotations

import ast
import csv
import re
from pathlib import Path
from typing import NamedTuple

from generate.text import code, table

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "docs" / "benchmarks.csv"

INTRODUCTION = """---
hide: [navigation, toc]
---

# Benchmarks

Every claim of speed or memory is a script in `benchmarks/` that times tinv and its peer in turn, prints the ratio, and
exits with 1 if the claim does not hold. Ratios depend on the machine: run the script on yours. The last three columns
are the latest measurement in `docs/benchmarks.csv`.

"""


class Script(NamedTuple):
    """One script.

    Attributes:
        name: Its file name.
        what: What it compares: the first sentence of the docstring.
        claim: The sentences that say what is claimed.
        command: How it is run.
    """

    name: str
    what: str
    claim: str
    command: str


def scripts() -> list[Script]:
    """Returns the scripts whose docstring says how they are run."""
    found = []
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())
        if (parts := re.fullmatch(r"(.*?\.)(?: .*?)? Claims?(?:: |, )(.*?) Run: (.*)", text)) is not None:
            found.append(Script(path.name, *parts.groups()))
    return found


def page() -> str:
    """Returns the page."""
    with MEASURED.open(newline="") as file:
        measured = {row["script"]: row for row in csv.DictReader(file)}
    columns = ("what is compared", "claim", "command", "ratio", "machine", "date")
    rows = []
    for script in scripts():
        last = measured.get(script.name, {})
        values = (last.get("ratio") or "not measured", last.get("machine", ""), last.get("date", ""))
        command, space, remark = script.command.partition(" (")
        rows.append((script.what, script.claim, f"{code(command)}{space}{remark}", *values))
    return INTRODUCTION + table(columns, rows)
