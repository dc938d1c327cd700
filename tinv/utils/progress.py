"""How far long work is: a bar at a terminal, a line a minute in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

PAUSE = 60.0
"""Seconds between two lines where there is no terminal; shorter work stays silent."""


def at_terminal() -> bool:
    """Returns whether stderr is a terminal, on which lines can be drawn again.

    `rich` takes any output for one where FORCE_COLOR is set, as it is for the commands of a notebook's cell.
    """
    return sys.stderr.isatty()


class MinuteLines:
    """Says on stderr how far work is, at most once in `PAUSE` seconds."""

    def __init__(self) -> None:
        self.told = time.monotonic()

    def __call__(self, what: str, done: int, total: float | None) -> None:
        """Says that `done` of `total`, None where that is not known, are done, if the last line is long enough ago."""
        if time.monotonic() - self.told >= PAUSE:
            of_all = "" if total is None else f" of {total}"
            print(f"{what}: {done}{of_all}", file=sys.stderr, flush=True)
            self.told = time.monotonic()


def progress(items: Iterable[T], what: str, total: int | None) -> Iterator[T]:
    """Passes items on, and says on stderr how many have been.

    Args:
        items: Items to pass on.
        what: Is done to them, such as "measuring".
        total: Number of items; None if it is not known.
    """
    if at_terminal():
        from rich.console import Console
        from rich.progress import track

        yield from track(items, what, total, console=Console(stderr=True))
        return
    lines = MinuteLines()
    for done, item in enumerate(items):
        lines(what, done, total)
        yield item
