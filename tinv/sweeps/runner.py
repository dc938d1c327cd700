"""Runs the trials of a sweep that are not done yet, keeps the ledger, and shows how far it is."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Protocol

from tinv.errors import TinvError
from tinv.runs.results import RunResult, RunStatus
from tinv.sweeps.display import Display
from tinv.sweeps.ledger import Ledger
from tinv.sweeps.local import Job, Launcher
from tinv.sweeps.trials import Trial, TrialFolder, last_error_line

POLL_SECONDS = 0.1


class Source(Protocol):
    """Where the next trial comes from."""

    def take(self) -> Trial | None:
        """Returns the next trial to run, None if there is none, or none before others have ended."""

    def ended(self, trial: Trial, results: RunResult | None) -> None:
        """Takes note of how a trial ended; None for a failure."""


class TrialQueue:
    """Trials that are known from the start, in order."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.trials = deque(trials)

    def take(self) -> Trial | None:
        return self.trials.popleft() if self.trials else None

    def ended(self, trial: Trial, results: RunResult | None) -> None:
        pass


class Runner:
    """Runs trials and keeps the ledger.

    Args:
        ledger: Opened.
        launcher: Who runs the trials.
        source: Source of the trials to run.
        watcher: Told of all that happens.
    """

    def __init__(self, ledger: Ledger, launcher: Launcher, source: Source, watcher: Display) -> None:
        self.ledger, self.launcher, self.source, self.watcher = ledger, launcher, source, watcher
        self.jobs: dict[Job, float] = {}
        self.again: deque[Trial] = deque()
        self.stopping: int | None = None

    def run(self, attached: Sequence[Job] = ()) -> int:
        """Runs until no trial is left, or a signal stops it.

        Args:
            attached: Jobs of an earlier session that still run.

        Returns:
            0, or 128 and the number of the signal.
        """
        now = time.monotonic()
        self.jobs = dict.fromkeys(attached, now)
        with self._signals():
            try:
                while not self.stopping and self._step():
                    time.sleep(POLL_SECONDS)
            finally:
                self._end()
        return 128 + self.stopping if self.stopping else 0

    def _step(self) -> bool:
        """Looks at what runs and starts what can be started; returns whether anything is left."""
        changed = self._look()
        starting: list[Trial] = []
        while len(self.jobs) + len(starting) < self.launcher.capacity:
            trial = self.again.popleft() if self.again else self.source.take()
            if trial is None:
                break
            starting.append(trial)
        if starting:
            changed = True
            for trial in starting:
                entry = self.ledger[trial]
                entry.status, entry.error, entry.attempts = "running", None, entry.attempts + 1
                self._folder(trial).results.unlink(missing_ok=True)  # of a failure
            self.ledger.save()
            try:
                jobs = self.launcher.start(starting)
            except OSError as error:
                for trial in starting:
                    self.ledger[trial].status = "stopped"
                raise TinvError(
                    f"cannot start {starting[0].title} ({error.strerror}); the same command resumes where it was"
                ) from error
            for job in jobs:
                self.jobs[job] = time.monotonic()
                self.ledger[job.trial].job = job.name
                self.watcher.started(job.trial)
        if changed:
            self.ledger.save()
        self.watcher.tick([job.trial for job in self.jobs])
        return bool(self.jobs)

    def _look(self) -> bool:
        changed = False
        for job, started in list(self.jobs.items()):
            code = job.poll()
            if code is not None:
                del self.jobs[job]
                self._ended(job, code, time.monotonic() - started)
                changed = True
        return changed

    def _ended(self, job: Job, code: int, seconds: float) -> None:
        trial, entry, folder = job.trial, self.ledger[job.trial], self._folder(job.trial)
        entry.seconds = round(entry.seconds + seconds, 3)
        entry.job = None
        results = RunResult.read(folder.results) if self.ledger.status_of(folder) == "finished" else None
        if results is not None:
            entry.status = "finished"
        elif code in (128 + signal.SIGTERM, 128 + signal.SIGINT, -signal.SIGTERM) or self.stopping:
            entry.status = "stopped"
            if self.launcher.restarts and not self.stopping:
                self.again.append(trial)
                return
        else:
            entry.status = "failed"
            entry.error = job.error or last_error_line(folder.log)
            if code < 0:
                name = signal.Signals(-code).name
                why = " (out of memory?)" if code == -signal.SIGKILL else ""
                entry.error = f"killed by {name}{why}; last line: {entry.error}"
            with contextlib.suppress(OSError):  # a full disk; the ledger tries too
                write_unfinished(trial, folder, "failed", entry.error)
        self.source.ended(trial, results)
        self.watcher.ended(trial)

    def _folder(self, trial: Trial) -> TrialFolder:
        return TrialFolder(self.ledger.folder, trial)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Stops on Ctrl-C and SIGTERM instead of ending the process."""

        def handle(number: int, frame: FrameType | None) -> None:
            self.stopping = number

        old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _end(self) -> None:
        """Stops what still runs and waits for it."""
        for job in self.jobs:
            job.stop()
        while self.jobs:
            if not self._look():
                time.sleep(POLL_SECONDS)
        self.ledger.save()


def write_unfinished(trial: Trial, folder: TrialFolder, status: RunStatus, error: str) -> None:
    """Writes the results.json of a trial that failed or was excluded, so that a report can show it."""
    config = trial.config
    folder.path.mkdir(parents=True, exist_ok=True)
    RunResult(
        status=status,
        command="fit",
        experiment=config.get("experiment", "run"),
        seed=config.get("seed_everything", 0),
        config=config,
        metrics={},
        error=error,
    ).write(folder.results)
