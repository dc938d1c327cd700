"""Reads the options of some cells as `tinv fit` would, and runs nothing: finds a bad value before the first cell."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from tinv.errors import TinvError
from tinv.sweeps.cells import Cell


def check_values(cells: Sequence[Cell]) -> None:
    """Raises TinvError for the first cell whose options `tinv fit` refuses.

    Every value of every key is looked at in one cell at least. Runs in a process of its own, since it needs torch,
    which the sweep does not.
    """
    seen: set[tuple[str, str]] = set()
    picked = []
    for cell in cells:
        pairs = {(key, repr(value)) for key, value in cell.settings.items()}
        if not pairs <= seen:
            seen |= pairs
            picked.append(cell)
    question = json.dumps([list(cell.words) for cell in picked])
    answer = subprocess.run([sys.executable, "-m", __name__], input=question, capture_output=True, text=True)
    refusals: dict[str, Any] = {}
    try:
        refusals = json.loads(answer.stdout.splitlines()[-1])
    except (ValueError, IndexError) as error:
        last = (answer.stderr.strip().splitlines() or ["no output"])[-1]
        raise TinvError(f"the options of the cells could not be checked: {last}") from error
    for number, reason in refusals.items():
        raise TinvError(f"cell {picked[int(number)].title}: {reason}")


def main() -> None:
    """Reads lists of options from stdin and prints, by number, why some are refused."""
    from tinv.runs.configuration import Configuration

    refusals = {}
    for number, words in enumerate(json.load(sys.stdin)):
        try:
            Configuration(words)
        except TinvError as error:
            refusals[number] = " ".join(str(error).split())
    print(json.dumps(refusals))


if __name__ == "__main__":
    main()
