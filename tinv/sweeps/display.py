"""What a sweep shows while it runs: a live table in a terminal, a line an event elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tinv.errors import TinvError
from tinv.sweeps.ledger import Ledger
from tinv.sweeps.trials import Trial, TrialFolder
from tinv.utils.io import read_csv
from tinv.utils.progress import at_terminal

REFRESH_SECONDS = 1.0


class Display:
    """Shows how far a sweep is: done, running, failed, time left.

    Args:
        ledger: Ledger of the sweep.
        trials: Those asked for so far, excluded ones not among them.
        total: Number of trials that there will be in all.
        together: Number of trials that run side by side.
    """

    def __init__(self, ledger: Ledger, trials: Sequence[Trial], total: int, together: int) -> None:
        self.ledger, self.total, self.together = ledger, total, together
        self.ids = {trial.id for trial in trials}
        self.console = Console(stderr=True)
        self.live = Live(console=self.console, auto_refresh=False) if at_terminal() else None
        self.begun: dict[str, float] = {}
        self.shown = 0.0

    def __enter__(self) -> Display:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.update(self.table([]), refresh=True)
            self.live.stop()

    def started(self, trial: Trial) -> None:
        """A trial was started."""
        self.ids.add(trial.id)
        self.begun[trial.id] = time.monotonic()
        self._line("begun" if self.ledger[trial].attempts == 1 else "resumed", trial, "")

    def ended(self, trial: Trial) -> None:
        """A trial finished, failed or was stopped; the ledger says which."""
        entry = self.ledger[trial]
        took = f"{_duration(time.monotonic() - self.begun.pop(trial.id, time.monotonic()))}"
        self._line(entry.status, trial, f"{took}, {self.left()}")
        if entry.error and not self.live:
            print(f"    {entry.error}", file=sys.stderr, flush=True)

    def tick(self, running: Sequence[Trial]) -> None:
        """Some time has passed."""
        if self.live and time.monotonic() - self.shown > REFRESH_SECONDS:
            self.shown = time.monotonic()
            self.live.update(self.table(running), refresh=True)

    def counts(self) -> Counter[str]:
        """Returns how many trials have each status."""
        return Counter(self.ledger.entries[id].status for id in self.ids)

    def left(self) -> str:
        """Returns the time left as text, from the time that finished trials took."""
        took = [e.seconds for e in self.ledger.entries.values() if e.status == "finished" and e.seconds]
        counts = self.counts()
        open_trials = self.total - counts["finished"] - counts["failed"]
        if open_trials <= 0:
            return "nothing left"
        if not took:
            return f"{open_trials} left"
        now = time.monotonic()
        mean = sum(took) / len(took)
        seconds = mean * open_trials - sum(min(now - begun, mean) for begun in self.begun.values())
        return f"about {_duration(max(seconds, mean) / min(self.together, open_trials))} left"

    def table(self, running: Sequence[Trial]) -> RenderableType:
        """Returns the live table."""
        counts = self.counts()
        head = Text.assemble(
            (f"{counts['finished']}", "bold green"), f" of {self.total} done   ",
            (f"{len(running)}", "bold"), " running   ",
            (f"{counts['failed']}", "bold red" if counts["failed"] else ""), " failed   ", self.left(),
        )  # fmt: skip
        rows = Table.grid(padding=(0, 2))
        for trial in running[: self.together]:
            took = time.monotonic() - self.begun.get(trial.id, time.monotonic())
            rows.add_row(Text(trial.title, overflow="ellipsis", no_wrap=True), _duration(took), self._epoch(trial))
        return Group(head, rows)

    def _epoch(self, trial: Trial) -> str:
        try:
            last = read_csv(TrialFolder(self.ledger.folder, trial).metrics)[-1]
            return f"epoch {int(float(last['epoch'] or 'nan')) + 1}"
        except (TinvError, LookupError, ValueError, OverflowError):
            return "starting"  # no table yet, or none that says how far it is

    def _line(self, what: str, trial: Trial, more: str) -> None:
        if self.live:
            return
        counts = self.counts()
        done = counts["finished"] + counts["failed"]
        ending = f"  ({more})" if more else ""
        print(f"[{done}/{self.total}] {what}: {trial.title}{ending}", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    """Returns `4s`, `3m05s`, `2h10m`."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, last = divmod(rest, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{last:02}s" if minutes else f"{last}s"
