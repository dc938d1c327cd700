"""Runs trials as jobs of a Slurm cluster, through submitit."""

from __future__ import annotations

import getpass
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinv.errors import TinvError
from tinv.sweeps.local import STOP_SECONDS, STOPPED, Job, ask
from tinv.sweeps.trials import PROGRAM, Trial, TrialFolder, start_trial

SUBMITIT_NAMES = ("account", "comment", "constraint", "cpus_per_gpu", "cpus_per_task", "dependency", "exclude",
                  "exclusive", "gpus_per_node", "gpus_per_task", "gres", "mail_type", "mail_user", "mem", "mem_per_cpu",
                  "mem_per_gpu", "nodelist", "nodes", "ntasks_per_node", "partition", "qos", "setup", "signal_delay_s",
                  "srun_args", "time", "use_srun", "wckey")  # fmt: skip
"""Options that submitit knows as `slurm_NAME`; others go to sbatch as they are."""

DAY_MINUTES = 24 * 60
WAIT_SECONDS = 0.2
KILL_WAIT_SECONDS = 90.0
QUEUE_SECONDS = 5.0
LOST_SECONDS = 30.0
AGAIN = ("PREEMPTED", "NODE_FAIL", "TIMEOUT", "BOOT_FAIL", "REQUEUED")
"""States of a job whose end is not the run's fault: it is submitted again."""


class RunTrial:
    """What a job of the cluster does: runs a trial, or resumes it, and returns the exit code.

    Args:
        trial: Trial to run.
        sweep_folder: Folder of the sweep, on a disk that the nodes share.
        program: The command that runs a trial, before its options.
    """

    def __init__(self, trial: Trial, sweep_folder: Path, program: Sequence[str] = PROGRAM) -> None:
        self.trial, self.sweep_folder, self.program = trial, sweep_folder.resolve(), tuple(program)
        self.directory = Path.cwd()
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        folder = TrialFolder(self.sweep_folder, self.trial)
        own: dict[str, Any] = {"cwd": self.directory, "env": _environment(), "preexec_fn": _ignore_warning_signals}
        self.process = start_trial(self.trial, folder, self.program, **own)
        # not `wait`: `checkpoint` may come in between, in a signal handler, and wait too
        while (code := self.process.poll()) is None:
            time.sleep(WAIT_SECONDS)
        if code in (-signal.SIGTERM, 128 + signal.SIGTERM):
            # Slurm has signalled the whole step: it takes the job away, or puts it in the queue again
            time.sleep(KILL_WAIT_SECONDS)
        return code

    def checkpoint(self) -> Any:
        """Stops the run before its time is up or another job takes its place; submitit puts it in the queue again."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            deadline = time.monotonic() + STOP_SECONDS
            while self.process.poll() is None and time.monotonic() < deadline:
                time.sleep(WAIT_SECONDS)
            self.process.kill()
        return DelayedSubmission(RunTrial(self.trial, self.sweep_folder, self.program))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "process": None}


def _environment() -> dict[str, str]:
    """Returns the environment without Slurm's variables.

    Lightning would take them as a request to start one process a task and to put stopped jobs in the queue again by
    itself; here a run starts its own processes, and submitit sees to the queue.
    """
    return {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SUBMITIT_", "SLURMD_"))}


def _ignore_warning_signals() -> None:
    # meant for submitit, but Slurm sends them to every process of the step
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


class SlurmJob:
    """A trial in the cluster's queue, or running there."""

    def __init__(self, trial: Trial, job: Any, queue: SlurmQueue) -> None:
        self.trial, self.job, self.queue = trial, job, queue
        self.stop_requested = False
        self.error: str | None = None

    @property
    def name(self) -> str:
        """Slurm's number of the job."""
        return str(self.job.job_id)

    def poll(self) -> int | None:
        """Returns the exit code; STOPPED for what Slurm ended and may be submitted again."""
        if self.job.paths.result_pickle.exists():
            try:
                return int(self.job.result())
            except Exception as error:  # whatever the job raised, out of submitit
                self.error = (str(error).strip().splitlines() or [type(error).__name__])[-1]
                return 1
        state = self.queue.state(self.name, patience=0.0 if self.stop_requested else LOST_SECONDS)
        if state is None:
            return None
        if self.stop_requested:
            return STOPPED
        self.error = f"job {self.name} of Slurm ended without a result: {state}; see {self.job.paths.stderr}"
        return STOPPED if state.startswith(AGAIN) else 1

    def stop(self) -> None:
        if not self.stop_requested:
            self.stop_requested = True
            self.job.cancel(check=False)


class SlurmQueue:
    """What Slurm says of jobs, asked at most every few seconds; works on clusters without accounting too."""

    def __init__(self) -> None:
        self.active: set[str] = set()
        self.asked_at = -QUEUE_SECONDS
        self.missing_since: dict[str, float] = {}

    def state(self, name: str, patience: float) -> str | None:
        """Returns the state in which a job has ended, None while it waits or runs, or left the queue only just now.

        Args:
            name: Slurm's number of the job.
            patience: Seconds for which a job that has left the queue may still be writing its result.
        """
        now = time.monotonic()
        if now - self.asked_at > QUEUE_SECONDS:
            answer = ask("squeue", "--noheader", "--array", "--format=%i", f"--user={getpass.getuser()}")
            if answer is not None:  # else a busy controller: everything runs on, as far as known
                self.active, self.asked_at = set(answer.split()), now
        if name in self.active:
            self.missing_since.pop(name, None)
            return None
        if now - self.missing_since.setdefault(name, now) < patience:
            return None
        shown = ask("scontrol", "show", "job", name) or ""
        found = re.search(r"JobState=(\w+)", shown)
        return found.group(1) if found else "left the queue"


class SlurmLauncher:
    """Submits trials as one array of jobs.

    Args:
        folder: Folder of the sweep, on a disk that the nodes share.
        jobs: Number of trials that run side by side.
        parameters: Options of sbatch, by name with underscores.
        program: The command that runs a trial, before its options.

    Raises:
        TinvError: If there is no Slurm here, or an option that it does not take.
    """

    restarts = True
    capacity = 10**6

    def __init__(
        self, folder: Path, jobs: int, parameters: Mapping[str, str], program: Sequence[str] = PROGRAM
    ) -> None:
        import submitit

        self.folder, self.together, self.program, self.queue = folder, jobs, program, SlurmQueue()
        if submitit.SlurmExecutor.affinity() < 0:
            raise TinvError("there is no Slurm here (sbatch was not found); use --launcher local")
        # its logs stand beside the trials
        self.executor = submitit.AutoExecutor(folder=folder / "slurm", cluster="slurm", slurm_max_num_timeout=1000)
        try:
            self.executor.update_parameters(**submitit_parameters(parameters, jobs))
        except (ValueError, TypeError, NameError) as error:
            raise TinvError(f"--slurm-...: {error}") from error

    def start(self, trials: Sequence[Trial]) -> list[Job]:
        import submitit

        try:
            with self.executor.batch():
                jobs = [self.executor.submit(RunTrial(trial, self.folder, self.program)) for trial in trials]
        except submitit.core.utils.FailedJobError as error:
            raise TinvError(f"Slurm refused the jobs: {error}") from error
        return [SlurmJob(trial, job, self.queue) for trial, job in zip(trials, jobs, strict=True)]

    def attach(self, trial: Trial, name: str) -> Job | None:
        """Returns the job that an earlier `tinv sweep` submitted, if it still waits or runs."""
        import submitit

        answer = ask("squeue", "--noheader", "--array", "--format=%i", f"--job={name}")
        if not (answer or "").strip():
            return None
        return SlurmJob(trial, submitit.SlurmJob(folder=self.folder / "slurm", job_id=name), self.queue)


def submitit_parameters(options: Mapping[str, str], jobs: int) -> dict[str, Any]:
    """Returns options of sbatch, by name with underscores, as submitit wants them."""
    found: dict[str, Any] = {"slurm_job_name": "tinv", "slurm_time": DAY_MINUTES, "slurm_array_parallelism": jobs}
    further: dict[str, Any] = {}
    for name, text in options.items():
        value: Any = int(text) if text.isdigit() else text
        if name in SUBMITIT_NAMES:
            found[f"slurm_{name}"] = [text] if name in ("setup", "srun_args") else value
        else:
            further[name.replace("_", "-")] = value
    return {**found, "slurm_additional_parameters": further} if further else found
