"""What has been done of a sweep: `ledger.json`, one entry a trial, always readable, true to the files of the trials."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from filelock import FileLock, Timeout

from tinv.errors import TinvError
from tinv.runs.results import RunResult
from tinv.sweeps.schema import Sweep
from tinv.sweeps.trials import Trial, TrialFolder
from tinv.utils.io import read_json, write_atomically

TrialStatus = Literal["pending", "running", "stopped", "finished", "failed", "excluded"]
"""stopped: begun and not finished, to be resumed."""


LEDGER = "ledger.json"
"""Name of the file in the folder of a sweep."""


@dataclass
class Entry:
    """What is known of one trial.

    Attributes:
        name: Name of the folder of the trial.
        settings: Swept keys and values.
        status: Status of the trial.
        attempts: How often the trial was begun or resumed.
        seconds: Seconds of the attempts that have ended.
        error: Why it failed, or is excluded.
        job: Job number of Slurm.
    """

    name: str
    settings: dict[str, Any]
    status: TrialStatus = "pending"
    attempts: int = 0
    seconds: float = 0.0
    error: str | None = None
    job: str | None = None

    @classmethod
    def read(cls, content: dict[str, Any]) -> Entry:
        """Makes an entry of what a ledger holds.

        Raises:
            ValueError: If it is damaged.
        """
        if not isinstance(content, dict) or content.get("status") not in get_args(TrialStatus):
            raise ValueError("an entry without status")
        known = {field.name for field in fields(cls)}
        try:
            return cls(**{key: value for key, value in content.items() if key in known})
        except TypeError as error:
            raise ValueError(str(error)) from error


def read_entries(path: Path) -> dict[str, Entry]:
    """Returns the entries of a ledger by trial id; none of a damaged one, which the sweep itself sets aside."""
    try:
        return {str(key): Entry.read(value) for key, value in read_json(path)["cells"].items()}
    except (TinvError, ValueError, KeyError, TypeError, AttributeError):
        return {}


class Ledger:
    """The ledger of the sweep in one folder, held against other `tinv sweep` until it is closed.

    Args:
        folder: Folder of the sweep; made if it is not there.
        sweep: Sweep that runs in it.
        extra: Options that override those of every trial.

    Raises:
        TinvError: If the folder belongs to another sweep, another process works on it, or it cannot be written to.
    """

    def __init__(self, folder: Path, sweep: Sweep, extra: tuple[str, ...] = ()) -> None:
        self.folder, self.path = folder, folder / LEDGER
        self.identity = {
            "sweep": sweep.name,
            "method": sweep.method,
            "options": [*sweep.words, *extra],
            "parameters": sorted(sweep.parameters),
        }
        self.entries: dict[str, Entry] = {}
        self._lock = FileLock(folder / ".sweep.lock", timeout=0)
        self._lost = False
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire()
            except Timeout as error:
                raise TinvError(
                    f"another tinv sweep works in {folder}; wait for it, or choose another folder with --out"
                ) from error
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        if not self.path.exists():
            others = [path for path in self.folder.iterdir() if not path.name.startswith(".")]
            if others and not (self.folder / "cells").is_dir():
                raise TinvError(f"{self.folder} holds other files and no sweep; choose an empty folder with --out")
            return
        try:
            content = read_json(self.path)
            identity = dict(content["identity"])
            entries = {str(key): Entry.read(value) for key, value in content["cells"].items()}
        except (TinvError, ValueError, KeyError, TypeError, AttributeError) as error:
            then = ", and what is done is read off the trials' folders"
            self._set_aside(self.path, f"{self.path} is damaged ({error.__cause__ or error})", then)
            return
        if identity != self.identity:
            wrong = next(key for key in self.identity if identity.get(key) != self.identity[key])
            raise TinvError(
                f"{self.folder} holds another sweep: its {wrong} is {_short(identity.get(wrong))}, not "
                f"{_short(self.identity[wrong])}; choose another folder with --out"
            )
        self.entries = entries

    def open(self, trials: Iterable[Trial], excluded: dict[str, str]) -> None:
        """Brings the ledger in line with the trials' folders.

        A trial is finished if, and only if, its results.json says so. What was running when the last `tinv sweep` ended
        is stopped now. A damaged results.json is named and set aside.

        Args:
            trials: Of the sweep.
            excluded: Reasons by trial id.
        """
        for trial in trials:
            entry = self.entries.setdefault(trial.id, Entry(trial.name, trial.settings))
            folder = TrialFolder(self.folder, trial)
            status = self.status_of(folder)
            if status == "finished":  # whatever the sweep file says of it by now
                entry.status, entry.error = "finished", None
            elif trial.id in excluded:
                entry.status, entry.error = "excluded", excluded[trial.id]
            elif entry.status == "failed" or status == "failed":
                entry.status = "failed"
            elif entry.status != "running" or entry.job is None:  # a job of Slurm may still be running
                entry.status = "stopped" if folder.path.exists() else "pending"

    def status_of(self, folder: TrialFolder) -> str | None:
        """Returns the status that a trial's results.json gives; None if there is none that can be read."""
        try:
            found = RunResult.read_if_there(folder.results)
        except TinvError as error:
            self._set_aside(folder.results, str(error))
            return None
        return found.status if found else None

    def _set_aside(self, path: Path, problem: str, then: str = "") -> None:
        aside = path.with_name(f"{path.stem}.damaged-{time.strftime('%Y%m%d-%H%M%S')}.json")
        with self._writing():
            path.rename(aside)
        print(f"note: {problem}; it was renamed to {aside.name}{then}", file=sys.stderr)

    def __getitem__(self, trial: Trial) -> Entry:
        return self.entries[trial.id]

    def save(self) -> None:
        """Writes the ledger. A full disk is said once and stops nothing: the trials' own files still tell."""
        content = {"identity": self.identity, "cells": {key: asdict(entry) for key, entry in self.entries.items()}}
        try:
            write_atomically(self.path, json.dumps(content, indent=1) + "\n")
        except OSError as error:
            if not self._lost:
                print(f"note: cannot write {self.path} ({error.strerror}); the sweep runs without it", file=sys.stderr)
            self._lost = True

    def close(self) -> None:
        """Lets go of the folder."""
        self._lock.release()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TinvError(
                f"cannot write to the sweep's folder {self.folder} ({error.strerror}); choose another with --out"
            ) from error


def _short(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) < 120 else f"{text[:117]}..."
