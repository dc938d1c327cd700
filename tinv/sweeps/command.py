"""`tinv sweep`: expands a sweep file into cells and runs those that are not done yet."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinv.errors import TinvError
from tinv.results import RunResult
from tinv.runs import options
from tinv.sweeps.cells import PROGRAM, Cell, CellFactory, CellFolder, chosen
from tinv.sweeps.check import check_values
from tinv.sweeps.display import Display
from tinv.sweeps.ledger import Ledger
from tinv.sweeps.local import Job, Launcher, LocalLauncher
from tinv.sweeps.runner import Queue, Runner, Source, write_unfinished
from tinv.sweeps.search import Search, random_settings
from tinv.sweeps.slurm import SlurmLauncher
from tinv.sweeps.sweepfile import MOST_CELLS, Sweep, read_sweep

USAGE = "tinv sweep FILE --out DIR [options] [-- --key=value ...]"

EPILOG = """\
A sweep that was stopped or killed resumes when the same command is given again: finished cells are kept, half-done ones
resume from their last checkpoint, failed ones wait for --retry-failed. What follows `--` overrides every cell.
Exit code: 0 all cells finished, 1 some failed, 2 something in the input has to be corrected, 130 or 143 stopped.
"""


def sweep(words: Sequence[str], program: Sequence[str] = PROGRAM) -> int:
    """Runs `tinv sweep` and returns the exit code.

    Args:
        words: after `tinv sweep`.
        program: the command that runs a cell, before its options.
    """
    words = list(words)
    extra: list[str] = []
    if "--" in words:
        words, extra = words[: words.index("--")], words[words.index("--") + 1 :]
    args, further = _parser().parse_known_args(words)
    slurm = _slurm_options(further)
    if slurm and args.launcher != "slurm":
        raise TinvError(f"--slurm-{next(iter(slurm))} goes with --launcher slurm")
    if args.jobs < 1:
        raise TinvError(f"--jobs must be at least 1, not {args.jobs}")
    plan = read_sweep(args.file)
    if plan.early_terminate:
        print(
            f"note: {plan.path}: early_terminate works under W&B agents alone; here every cell runs to its end",
            file=sys.stderr,
        )
    options.check([*plan.words, *extra])
    for name, _, _ in options.option_pairs(extra):
        if name in ("run_dir", "runs", "ckpt_path"):
            raise TinvError(f"--{name} cannot be given after `--`; the sweep itself sets it")
    if args.count is not None:
        if plan.method == "grid" or not 1 <= args.count <= MOST_CELLS:
            raise TinvError(f"--count is a number of cells for method random or bayes, from 1 to {MOST_CELLS}")
        plan = replace(plan, count=args.count)
    make = CellFactory(plan, extra)
    cells, excluded = _cells(plan, make, args)
    if args.dry_run:
        return _dry_run(plan, cells, excluded, args.out)
    if args.out is None:
        raise TinvError("--out DIR is missing: the folder for the runs of this sweep")
    ledger = Ledger(args.out, plan, tuple(extra))
    try:
        return _run(plan, make, cells, excluded, ledger, args, slurm, program)
    finally:
        ledger.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "tinv sweep", usage=USAGE, description="Run every cell of a sweep file.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("file", type=Path, metavar="FILE", help="sweep file in W&B's format, such as sweeps/rook.yaml")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the ledger and the cells' runs")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="cells side by side (default 1)")
    parser.add_argument("--launcher", choices=("local", "slurm"), default="local", help="who runs the cells")
    parser.add_argument("--dry-run", action="store_true", help="print the commands of the cells and run nothing")
    parser.add_argument("--retry-failed", action="store_true", help="run failed cells again")
    parser.add_argument(
        "--only", action="append", default=[], metavar="KEY=VALUE",
        help="run these cells only; KEY may be the last word of a key; again for more",
    )  # fmt: skip
    parser.add_argument("--count", type=int, metavar="N", help="cells of a random or bayes sweep, in place of run_cap")
    parser.add_argument_group("Slurm").add_argument(
        "--slurm-NAME=VALUE", dest="slurm", help="option of sbatch: --slurm-partition=gpu --slurm-gpus-per-node=1 "
        "--slurm-cpus-per-task=8 --slurm-time=240 (minutes; a day if left out)",
    )  # fmt: skip
    return parser


def _slurm_options(further: Sequence[str]) -> dict[str, str]:
    found = {}
    for word in further:
        name, equals, value = word.partition("=")
        if not name.startswith("--slurm-") or not equals:
            raise TinvError(f"unknown option {word} of tinv sweep; options of the runs stand after `--`")
        found[name.removeprefix("--slurm-").replace("-", "_")] = value
    return found


def _cells(
    plan: Sweep, make: Callable[[dict[str, Any]], Cell], args: argparse.Namespace
) -> tuple[list[Cell], dict[str, str]]:
    """Returns the cells that are known before anything runs, and why some are impossible, by cell id."""
    if plan.method == "bayes":
        if args.only:
            raise TinvError("--only goes with methods grid and random: bayes chooses its cells itself")
        if plan.count is None:
            raise TinvError(f"{plan.path}: method bayes needs run_cap, the number of cells, or --count")
        return [], {}
    every = [make(settings) for settings in (plan.grid() if plan.method == "grid" else random_settings(plan))]
    cells = list({cell.id: cell for cell in every}.values())
    if args.only:
        cells = chosen(cells, args.only, list(plan.parameters))
    excluded = {cell.id: reason for cell in cells if (reason := plan.excluded(cell.settings))}
    if len(excluded) == len(cells):
        raise TinvError(f"{plan.path}: every cell is excluded; the grid is empty")
    return cells, excluded


def _dry_run(plan: Sweep, cells: Sequence[Cell], excluded: dict[str, str], out: Path | None) -> int:
    if plan.method == "bayes":
        print(f"bayes chooses each of its {plan.count} cells when others have ended; every one is a run of")
        print(shlex.join(["tinv", "fit", *plan.words, "..."]))
        return 0
    for cell in cells:
        if cell.id in excluded:
            print(f"# excluded: {cell.title}: {excluded[cell.id]}")
        else:
            place = [f"--run_dir={CellFolder(out, cell).path}"] if out else []
            print(shlex.join(["tinv", "fit", *cell.words, *place]))
    print(f"# {len(cells) - len(excluded)} cells, {len(excluded)} excluded", file=sys.stderr)
    return 0


def _run(
    plan: Sweep,
    make: CellFactory,
    cells: Sequence[Cell],
    excluded: dict[str, str],
    ledger: Ledger,
    args: argparse.Namespace,
    slurm: dict[str, str],
    program: Sequence[str],
) -> int:
    if plan.method == "bayes":
        cells = [make(entry.settings) for entry in ledger.entries.values()]
    ledger.open(cells, excluded)
    for cell in cells:
        if cell.id in excluded:
            write_unfinished(cell, CellFolder(ledger.folder, cell), "excluded", excluded[cell.id])
    possible = [cell for cell in cells if cell.id not in excluded]
    if args.retry_failed:
        for cell in possible:
            if ledger[cell].status == "failed":
                ledger[cell].status, ledger[cell].error = "stopped", None
    waiting = [cell for cell in possible if ledger[cell].status in ("pending", "stopped", "running")]
    total = plan.count if plan.method == "bayes" and plan.count else len(possible)
    _say_state(ledger, possible, excluded, total)
    if any(ledger[cell].attempts == 0 for cell in waiting):
        check_values([cell for cell in waiting if ledger[cell].attempts == 0])
    ledger.save()
    launcher: Launcher
    if args.launcher == "slurm":
        launcher = SlurmLauncher(ledger.folder, args.jobs, slurm, program)
    else:
        launcher = LocalLauncher(ledger.folder, args.jobs, program)
    attached: list[Job] = []
    for cell in waiting:
        if (name := ledger[cell].job) and (job := launcher.attach(cell, name)):
            attached.append(job)
    todo = [cell for cell in waiting if cell.id not in {job.cell.id for job in attached}]
    source: Source = Chooser(plan, make, ledger, todo) if plan.method == "bayes" else Queue(todo)
    with Display(ledger, possible, total, args.jobs) as display:
        code = Runner(ledger, launcher, source, display).run(attached)
    return _say_end(ledger, display.ids, total, code)


def _say_state(ledger: Ledger, cells: Sequence[Cell], excluded: dict[str, str], total: int) -> None:
    states: list[str] = [ledger[cell].status for cell in cells]
    parts = [f"{total} cells"]
    for status, what in (
        ("finished", "kept as finished"),
        ("running", "still in Slurm's hands"),
        ("stopped", "half done, resuming"),
        ("failed", "failed before (--retry-failed runs them again)"),
    ):
        if count := states.count(status):
            parts.append(f"{count} {what}")
    if excluded:
        parts.append(f"{len(excluded)} excluded: {'; '.join(sorted(set(excluded.values())))}")
    others = len(ledger.entries) - len(cells) - len(excluded)
    if others > 0:
        parts.append(f"{others} more in {ledger.folder} that this command does not ask for")
    print(", ".join(parts), file=sys.stderr)


def _say_end(ledger: Ledger, ids: Collection[str], total: int, code: int) -> int:
    entries = [entry for id, entry in ledger.entries.items() if id in ids]
    failed = [entry for entry in entries if entry.status == "failed"]
    finished = sum(entry.status == "finished" for entry in entries)
    for entry in failed:
        print(f"failed: {ledger.folder / 'cells' / entry.name / 'log.txt'}: {entry.error}", file=sys.stderr)
    print(f"{finished} of {total} cells finished, {len(failed)} failed; tinv report {ledger.folder}", file=sys.stderr)
    if code:
        print("stopped; the same command resumes where it was", file=sys.stderr)
    return code or (1 if failed else 0)


class Chooser:
    """Cells of a bayes sweep: those begun before, then as many new ones as are still missing.

    Args:
        plan: the sweep.
        make: makes a cell of settings.
        ledger: opened.
        todo: cells of an earlier session that are not done.
    """

    def __init__(self, plan: Sweep, make: CellFactory, ledger: Ledger, todo: Sequence[Cell]) -> None:
        assert plan.metric is not None
        assert plan.count is not None
        self.plan, self.make, self.ledger, self.metric = plan, make, ledger, plan.metric[0]
        self.search = Search(plan)
        self.todo = list(todo)
        self.trials: dict[str, Any] = {}
        self.repeats = 0
        for cell in [make(entry.settings) for entry in ledger.entries.values()]:
            value = self._value(cell)
            self.trials[cell.id] = self.search.known(cell.settings, value)

    def _value(self, cell: Cell) -> float | None:
        if self.ledger[cell].status != "finished":
            return None
        found = RunResult.read_if_there(CellFolder(self.ledger.folder, cell).results)
        metrics = found.metrics if found else {}
        value = metrics.get(self.metric)
        if value is None:
            known = ", ".join(metrics)
            raise TinvError(f"{self.plan.path}: metric.name: no run gives {self.metric}; they give {known}")
        return float(value)

    def take(self) -> Cell | None:
        if self.todo:
            return self.todo.pop(0)
        while len(self.ledger.entries) < (self.plan.count or 0):
            settings, trial = self.search.ask()
            cell = self.make(settings)
            if cell.id in self.ledger.entries:
                # asked for again: its value is known, or is on its way
                self.search.tell(trial, self._value(cell))
                self.repeats += 1
                if self.repeats > 1000:
                    return None  # a small space is used up
                continue
            self.ledger.open([cell], {})
            self.trials[cell.id] = trial
            return cell
        return None

    def ended(self, cell: Cell, results: RunResult | None) -> None:
        trial = self.trials.pop(cell.id, None)
        if trial is not None:
            self.search.tell(trial, self._value(cell) if results else None)
