"""How far long work is: a bar at a terminal, a line a minute in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

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


class PartsProgress:
    """One bar over the parts of long work, with the time left of all of them; a line a minute where no terminal is.

    Args:
        costs: What each part costs, in any unit, in the order of the work. If one of them is None, which is not known,
            nothing is said of the time left. The keys are what people read, such as "measuring".
    """

    def __init__(self, costs: Mapping[str, float | None]) -> None:
        self.costs = dict(costs)
        known = [cost for cost in self.costs.values() if cost is not None]
        self.total = sum(known) if len(known) == len(self.costs) else None
        self.bar: Progress | None = None
        self.begun = self.told = time.monotonic()

    def __enter__(self) -> PartsProgress:
        if at_terminal():
            from rich.console import Console
            from rich.progress import Progress

            self.bar = Progress(console=Console(stderr=True), speed_estimate_period=120)
            self.task = self.bar.add_task(next(iter(self.costs)), total=self.total)
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def at(self, part: str, share: float) -> None:
        """Says that the parts before this one are done, and a share of it.

        Args:
            part: Key of `costs`.
            share: From 0 to 1.
        """
        before = 0.0
        for name, cost in self.costs.items():
            if name == part:
                before += share * (cost or 0)
                break
            before += cost or 0
        if self.bar is not None:
            self.bar.update(self.task, description=part, completed=before if self.total else 0)
        elif time.monotonic() - self.told >= PAUSE:
            self.told = time.monotonic()
            print(f"{part}{self._left(before)}", file=sys.stderr, flush=True)

    def _left(self, done: float) -> str:
        if not (self.total and done):
            return ""
        minutes = (time.monotonic() - self.begun) * (self.total - done) / done / 60
        return f": {100 * done / self.total:.0f}% of all, about {max(1, round(minutes))} min left"
