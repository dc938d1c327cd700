"""Runs trials as processes of this machine, with its CPU threads or GPUs divided among them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from tinv.sweeps.trials import PROGRAM, Trial, TrialFolder, start_trial

STOP_SECONDS = 60.0
"""How long a run that was asked to stop is waited for."""

STOPPED = 128 + signal.SIGTERM
"""Exit code of a run that was stopped and can be resumed."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Job(Protocol):
    """A trial on its way."""

    trial: Trial
    error: str | None

    @property
    def name(self) -> str | None:
        """The cluster's name for it, by which it is found again."""

    def poll(self) -> int | None:
        """Returns the exit code, None while the trial runs; negative for a signal."""

    def stop(self) -> None:
        """Asks the trial to stop; it can be resumed."""


class Launcher(Protocol):
    """Who runs trials: this machine, or a cluster.

    Attributes:
        together: Number of trials that run side by side.
        capacity: Number of trials that may be started before others have ended.
        restarts: Whether a trial that was stopped by someone else is started again.
    """

    together: int
    capacity: int
    restarts: bool

    def start(self, trials: Sequence[Trial]) -> list[Job]:
        """Starts trials."""

    def attach(self, trial: Trial, name: str) -> Job | None:
        """Returns a job that an earlier `tinv sweep` started, if it still runs."""


class LocalJob:
    """A trial that runs as a process here."""

    name: str | None = None
    error: str | None = None

    def __init__(self, trial: Trial, process: subprocess.Popen[bytes], slot: int) -> None:
        self.trial, self.process, self.slot = trial, process, slot
        self.stop_requested_at: float | None = None

    def poll(self) -> int | None:
        code = self.process.poll()
        asked_at = self.stop_requested_at
        if code is None and asked_at is not None and time.monotonic() - asked_at > STOP_SECONDS:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        return code

    def stop(self) -> None:
        if self.stop_requested_at is None:
            self.stop_requested_at = time.monotonic()
            # the run's own process tells its children
            self.process.terminate()


class LocalLauncher:
    """Runs trials as processes of this machine.

    Args:
        folder: Folder of the sweep.
        jobs: Number of trials that run side by side; CPU cores, or GPUs where there are any, are divided among them.
        program: The command that runs a trial, before its options.
    """

    restarts = False

    def __init__(self, folder: Path, jobs: int, program: Sequence[str] = PROGRAM) -> None:
        self.folder, self.together, self.capacity, self.program = folder, jobs, jobs, program
        self.jobs: list[LocalJob] = []
        self.shares = shares(jobs, len(os.sched_getaffinity(0)), visible_gpus())

    def start(self, trials: Sequence[Trial]) -> list[Job]:
        return [self._start(trial) for trial in trials]

    def attach(self, trial: Trial, name: str) -> Job | None:
        return None

    def _start(self, trial: Trial) -> LocalJob:
        self.jobs = [job for job in self.jobs if job.process.poll() is None]
        slot = min(set(range(self.together)) - {job.slot for job in self.jobs})
        environment = {**os.environ, **self.shares[slot]}
        # in a session of its own: Ctrl-C in the terminal reaches us alone; we tell the trials
        own: dict[str, Any] = {"start_new_session": True, "preexec_fn": _dies_with(os.getpid())}
        process = start_trial(trial, TrialFolder(self.folder, trial), self.program, env=environment, **own)
        job = LocalJob(trial, process, slot)
        self.jobs.append(job)
        return job


def _dies_with(parent: int) -> Callable[[], None]:
    """Returns what makes the kernel kill a new process when its parent dies, however it dies (Linux)."""
    # found before the process is made, so that little can happen in between
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def prepare() -> None:
        if prctl is not None:
            prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:
                os._exit(STOPPED)  # it died before the kernel was told

    return prepare


def shares(jobs: int, cores: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """Returns the environment of each of some jobs side by side: its share of the cores and of the GPUs.

    With more jobs than GPUs, GPUs are shared in turn. A thread count that the user set is kept.
    """
    found = []
    for job in range(jobs):
        threads = str(max(1, cores // jobs))
        environment = {variable: threads for variable in THREAD_VARIABLES if variable not in os.environ}
        if gpus:
            each = max(1, len(gpus) // jobs)
            own = [gpus[number % len(gpus)] for number in range(job * each, (job + 1) * each)]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(own)
        found.append(environment)
    return found


def visible_gpus() -> list[str]:
    """Returns the ids of the NVIDIA GPUs that may be used; asks the driver, not torch, which takes seconds."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    return (ask("nvidia-smi", "--query-gpu=index", "--format=csv,noheader", timeout_s=20) or "").split()


def ask(*command: str, timeout_s: float = 60) -> str | None:
    """Returns what a command prints; None if there is no such command, or it fails or takes longer."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None
