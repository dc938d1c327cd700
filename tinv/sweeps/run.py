"""Expands a sweep into trials and runs those that are not done yet."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

from tinv.errors import TinvError
from tinv.sweeps.check import check_values
from tinv.sweeps.display import Display
from tinv.sweeps.ledger import Ledger
from tinv.sweeps.local import Launcher, LocalLauncher
from tinv.sweeps.runner import Runner, Source, TrialQueue, write_unfinished
from tinv.sweeps.schema import Sweep
from tinv.sweeps.search import BayesSource, random_settings
from tinv.sweeps.slurm import SlurmLauncher
from tinv.sweeps.trials import PROGRAM, Trial, TrialFactory, TrialFolder, select_trials

LauncherName = Literal["local", "slurm"]


def plan_trials(plan: Sweep, make: TrialFactory, only: Sequence[str] = ()) -> tuple[list[Trial], dict[str, str]]:
    """Returns the trials that are known before anything runs, and why some are impossible, by trial id.

    Args:
        plan: The sweep.
        make: Makes a trial of settings.
        only: Conditions `key=value`; trials that do not fit are left out.

    Raises:
        TinvError: If there is no trial, or the method needs what is not given.
    """
    if plan.method == "bayes":
        if only:
            raise TinvError("--only goes with methods grid and random: bayes chooses its trials itself")
        if plan.count is None:
            raise TinvError(f"{plan.path}: method bayes needs run_cap, the number of trials, or --count")
        return [], {}
    every = [make(settings) for settings in (plan.grid() if plan.method == "grid" else random_settings(plan))]
    trials = list({trial.id: trial for trial in every}.values())
    if only:
        trials = select_trials(trials, only, list(plan.parameters))
    excluded = {trial.id: reason for trial in trials if (reason := plan.excluded(trial.settings))}
    if len(excluded) == len(trials):
        raise TinvError(f"{plan.path}: every trial is excluded; the grid is empty")
    return trials, excluded


def run_sweep(
    plan: Sweep,
    out: Path,
    extra: Sequence[str] = (),
    *,
    jobs: int = 1,
    launcher: LauncherName = "local",
    only: Sequence[str] = (),
    retry_failed: bool = False,
    slurm: Mapping[str, str] | None = None,
    program: Sequence[str] = PROGRAM,
) -> int:
    """Runs every trial of a sweep that is not done yet, and shows how far it is.

    Args:
        plan: The sweep.
        out: Folder for the ledger and the runs of the trials.
        extra: Options that override those of every trial.
        jobs: Trials side by side.
        launcher: Who runs them.
        only: Conditions `key=value`; other trials do not run.
        retry_failed: Whether failed trials run again.
        slurm: Options of sbatch, by name with underscores.
        program: Command that runs a trial, before its options.

    Returns:
        0 if all trials finished, 1 if some failed or were stopped one by one, 128 and the number of the signal that
        stopped the sweep.

    Raises:
        TinvError: For options that a run refuses, and a folder that cannot be used.
    """
    make = TrialFactory(plan, extra)
    trials, excluded = plan_trials(plan, make, only)
    ledger = Ledger(out, plan, tuple(extra))
    try:
        if plan.method == "bayes":
            trials = [make(entry.settings) for entry in ledger.entries.values()]
        possible, waiting = _open(ledger, trials, excluded, retry_failed)
        total = plan.count if plan.method == "bayes" and plan.count else len(possible)
        _print_state(ledger, trials, possible, total)
        if new := [trial for trial in waiting if ledger[trial].attempts == 0]:
            check_values(new)
        ledger.save()
        runs: Launcher
        if launcher == "slurm":
            runs = SlurmLauncher(out, jobs, slurm or {}, program)
        else:
            runs = LocalLauncher(out, jobs, program)
        attached = [job for trial in waiting if (name := ledger[trial].job) and (job := runs.attach(trial, name))]
        todo = [trial for trial in waiting if trial.id not in {job.trial.id for job in attached}]
        source: Source = BayesSource(plan, make, ledger, todo) if plan.method == "bayes" else TrialQueue(todo)
        with Display(ledger, possible, total, jobs) as display:
            code = Runner(ledger, runs, source, display).run(attached)
        return _print_end(ledger, display.ids, total, code)
    finally:
        ledger.close()


def _open(
    ledger: Ledger, trials: Sequence[Trial], excluded: dict[str, str], retry_failed: bool
) -> tuple[list[Trial], list[Trial]]:
    """Brings the ledger in line with the folders; returns the trials that are possible, and those to run."""
    ledger.open(trials, excluded)
    possible = [trial for trial in trials if ledger[trial].status != "excluded"]
    for trial in trials:
        if trial not in possible:
            write_unfinished(trial, TrialFolder(ledger.folder, trial), "excluded", excluded[trial.id])
        elif trial.id in excluded:
            print(f"note: {trial.title} is excluded now, but has finished; its results are kept", file=sys.stderr)
    if retry_failed:
        for trial in possible:
            if ledger[trial].status == "failed":
                ledger[trial].status, ledger[trial].error = "stopped", None
    return possible, [trial for trial in possible if ledger[trial].status in ("pending", "stopped", "running")]


def _print_state(ledger: Ledger, trials: Sequence[Trial], possible: Sequence[Trial], total: int) -> None:
    states: list[str] = [ledger[trial].status for trial in possible]
    parts = [f"{total} trials"]
    for status, what in (
        ("finished", "kept as finished"),
        ("running", "still in Slurm's queue or running there"),
        ("stopped", "half done, resuming"),
        ("failed", "failed before (--retry-failed runs them again)"),
    ):
        if count := states.count(status):
            parts.append(f"{count} {what}")
    if reasons := [str(ledger[trial].error) for trial in trials if ledger[trial].status == "excluded"]:
        parts.append(f"{len(reasons)} excluded: {'; '.join(sorted(set(reasons)))}")
    others = len(ledger.entries) - len(trials)
    if others > 0:
        parts.append(f"{others} more in {ledger.folder} that this command does not ask for")
    print(", ".join(parts), file=sys.stderr)


def _print_end(ledger: Ledger, ids: Collection[str], total: int, code: int) -> int:
    entries = [entry for id, entry in ledger.entries.items() if id in ids]
    failed = [entry for entry in entries if entry.status == "failed"]
    finished, stopped = (sum(entry.status == status for entry in entries) for status in ("finished", "stopped"))
    for entry in failed:
        print(f"failed: {ledger.folder / 'cells' / entry.name / 'log.txt'}: {entry.error}", file=sys.stderr)
    print(f"{finished} of {total} trials finished, {len(failed)} failed; tinv report {ledger.folder}", file=sys.stderr)
    if code or stopped:
        what = "" if code else f"{stopped} trials were "
        print(f"{what}stopped; the same command resumes where it was", file=sys.stderr)
    return code or (1 if failed or stopped else 0)
