"""One trial of a sweep: its settings, the hash that names it, its folder, and the command that runs it."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinv.config.identity import LOCATION_KEYS
from tinv.config.merge import nested, override, read_command_line, to_cli
from tinv.errors import TinvError, unknown
from tinv.runs.folder import RunFolder
from tinv.sweeps.schema import Sweep

PROGRAM = (sys.executable, "-m", "tinv", "fit")


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
        id: Hash of the configuration that the run's files and options come to.
        name: Name of the folder of the trial.
        settings: The swept keys and their values.
        words: All options of the run but those of place.
        flat: Every dotted key that a file or option sets, and its value.
    """

    id: str
    name: str
    settings: dict[str, Any]
    words: tuple[str, ...]
    flat: dict[str, Any]

    @property
    def title(self) -> str:
        """The settings in short: `padding=valid seed_everything=3`."""
        return " ".join(option.removeprefix("--").rpartition(".")[2] for option in _short_options(self.settings))

    @property
    def config(self) -> dict[str, Any]:
        """The configuration as its files would write it, without defaults."""
        return nested(self.flat)


def _options(settings: dict[str, Any]) -> list[str]:
    return [f"--{key}={to_cli(value)}" for key, value in settings.items()]


def _short_options(settings: dict[str, Any]) -> list[str]:
    short = {key.rpartition(".")[2]: value for key, value in settings.items()}
    return _options(short if len(short) == len(settings) else settings)


class TrialFactory:
    """Makes the trials of one sweep under the same further options.

    Args:
        sweep: Sweep whose trials are made.
        extra: Options that override those of every trial.
    """

    def __init__(self, sweep: Sweep, extra: Sequence[str] = ()) -> None:
        self.extra = tuple(extra)
        self.words = sweep.words
        self.base = read_command_line(sweep.words).flat
        self.overrides = read_command_line(extra).flat
        for key in self.overrides:
            if key in sweep.parameters:
                raise TinvError(f"--{key} is varied by {sweep.path}; narrow it with --only {key}=VALUE")

    def __call__(self, settings: dict[str, Any]) -> Trial:
        """Returns the trial of some settings."""
        flat = dict(self.base)
        for key, value in [*settings.items(), *self.overrides.items()]:
            override(flat, key, value)
        own = {key: value for key, value in flat.items() if key.partition(".")[0] not in LOCATION_KEYS}
        digest = hashlib.sha256(json.dumps(own, sort_keys=True, default=str).encode()).hexdigest()[:12]
        words = (*self.words, *_options(settings), *self.extra)
        return Trial(digest, f"{_slug(settings)}-{digest}", settings, words, flat)


def _slug(settings: dict[str, Any]) -> str:
    text = "-".join(option.partition("=")[2].rpartition("/")[2] for option in _options(settings))
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text)[:60].strip("-_.") or "cell"


def select_trials(trials: Sequence[Trial], only: Sequence[str], parameters: Sequence[str]) -> list[Trial]:
    """Returns the trials that fit all of some `key=value` conditions; a key may be named by its last word.

    Raises:
        TinvError: For a key that is not varied, or if nothing fits.
    """
    conditions: dict[str, set[str]] = {}
    for condition in only:
        key, equals, value = condition.partition("=")
        full = [name for name in parameters if name == key or name.rpartition(".")[2] == key]
        if not equals:
            raise TinvError(f"--only {condition}: has no value; write {key}=VALUE")
        if len(full) > 1:
            raise TinvError(f"--only {condition}: {key} is the end of {' and '.join(full)}; write the whole key")
        if not full:
            raise TinvError(f"--only {condition}: {unknown('key', key, parameters)}")
        conditions.setdefault(full[0], set()).add(value)
    kept = [
        trial for trial in trials if all(to_cli(trial.settings[key]) in values for key, values in conditions.items())
    ]
    if not kept:
        raise TinvError(f"no trial fits --only {' '.join(only)}")
    return kept


class TrialFolder(RunFolder):
    """The folder of one trial: that of its run, with the run's log."""

    def __init__(self, sweep_folder: Path, trial: Trial) -> None:
        super().__init__(sweep_folder / "cells" / trial.name)
        self.log = self.path / "log.txt"


def fit_command(trial: Trial, folder: RunFolder, program: Sequence[str] = PROGRAM) -> list[str]:
    """Returns the command that runs a trial, or resumes it from its last checkpoint."""
    resume = ["--ckpt_path=last"] if folder.last.exists() else []
    return [*program, *trial.words, f"--run_dir={folder.path}", *resume]


def start_trial(trial: Trial, folder: TrialFolder, program: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Starts the process of a trial, whose output is added to its log; see `subprocess.Popen` for the options."""
    folder.path.mkdir(parents=True, exist_ok=True)
    command = fit_command(trial, folder, program)
    with folder.log.open("ab") as log:
        log.write(f"$ {shlex.join(command)}\n".encode())
        log.flush()
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **options)


def last_error_line(log: Path) -> str:
    """Returns the line of a log that says why the run failed: the last one that speaks of an error."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines()[-400:] if line.strip()]
    except OSError as error:
        return f"no log ({error.strerror})"
    errors = [line for line in lines if re.search(r"\berror\b|Error\b|Killed", line)]
    return (errors or lines or ["no output"])[-1][:300]
