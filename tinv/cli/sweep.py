"""`tinv sweep`: runs every trial of a sweep file that is not done yet."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tinv.cli.parser import PlainParser
from tinv.config import options
from tinv.config.merge import option_pairs
from tinv.errors import TinvError
from tinv.sweeps.run import plan_trials, run_sweep
from tinv.sweeps.schema import MAX_TRIALS, Sweep, read_sweep
from tinv.sweeps.trials import PROGRAM, TrialFactory, TrialFolder

USAGE = "tinv sweep FILE --out DIR [options] [-- --key=value ...]"

EPILOG = """\
A sweep that was stopped or killed resumes when the same command is given again: finished trials are kept, half-done
ones resume from their last checkpoint, failed ones wait for --retry-failed. What follows `--` overrides every trial.
Exit code: 0 all trials finished, 1 some failed or were stopped one by one, 2 something in the input has to be
corrected, 130 or 143 the sweep was stopped.
"""


def sweep(words: Sequence[str], program: Sequence[str] = PROGRAM) -> int:
    """Runs `tinv sweep` and returns the exit code.

    Args:
        words: Words after `tinv sweep`.
        program: Command that runs a trial, before its options.
    """
    words = list(words)
    extra: list[str] = []
    if "--" in words:
        words, extra = words[: words.index("--")], words[words.index("--") + 1 :]
    args, further = make_parser().parse_known_args(words)
    slurm = _slurm_options(further)
    if slurm and args.launcher != "slurm":
        raise TinvError(f"--slurm-{next(iter(slurm))} goes with --launcher slurm")
    if args.jobs < 1:
        raise TinvError(f"--jobs must be at least 1, not {args.jobs}")
    plan = read_sweep(args.file)
    if plan.early_terminate is not None:
        print(
            f"note: {plan.path}: early_terminate works under W&B agents alone; here every trial runs to its end",
            file=sys.stderr,
        )
    options.check([*plan.words, *extra])
    for name, _, _ in option_pairs(extra):
        if name in ("run_dir", "runs", "ckpt_path"):
            raise TinvError(f"--{name} cannot be given after `--`; the sweep itself sets it")
    if args.count is not None:
        if plan.method == "grid" or not 1 <= args.count <= MAX_TRIALS:
            raise TinvError(f"--count is a number of trials for method random or bayes, from 1 to {MAX_TRIALS}")
        plan = plan.model_copy(update={"count": args.count})
    if args.dry_run:
        return _dry_run(plan, extra, args.only, args.out)
    if args.out is None:
        raise TinvError("--out DIR is missing: the folder for the runs of this sweep")
    return run_sweep(
        plan,
        args.out,
        extra,
        jobs=args.jobs,
        launcher=args.launcher,
        only=args.only,
        retry_failed=args.retry_failed,
        slurm=slurm,
        program=program,
    )


def make_parser() -> PlainParser:
    """Returns the parser of the words after `tinv sweep`."""
    parser = PlainParser(
        "tinv sweep", usage=USAGE, description="Run every trial of a sweep file.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("file", type=Path, metavar="FILE", help="sweep file in W&B's format, such as sweeps/rook.yaml")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the ledger and the runs of the trials")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="trials side by side (default 1)")
    parser.add_argument("--launcher", choices=("local", "slurm"), default="local", help="who runs the trials")
    parser.add_argument("--dry-run", action="store_true", help="print the commands of the trials and run nothing")
    parser.add_argument("--retry-failed", action="store_true", help="run failed trials again")
    parser.add_argument(
        "--only", action="append", default=[], metavar="KEY=VALUE",
        help="run these trials only; KEY may be the last word of a key; again for more",
    )  # fmt: skip
    parser.add_argument("--count", type=int, metavar="N", help="trials of a random or bayes sweep, in place of run_cap")
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


def _dry_run(plan: Sweep, extra: Sequence[str], only: Sequence[str], out: Path | None) -> int:
    trials, excluded = plan_trials(plan, TrialFactory(plan, extra), only)
    if plan.method == "bayes":
        print(f"bayes chooses each of its {plan.count} trials when others have ended; every one is a run of")
        print(shlex.join(["tinv", "fit", *plan.words, "..."]))
        return 0
    for trial in trials:
        if trial.id in excluded:
            print(f"# excluded: {trial.title}: {excluded[trial.id]}")
        else:
            folder = [f"--run_dir={TrialFolder(out, trial).path}"] if out else []
            print(shlex.join(["tinv", "fit", *trial.words, *folder]))
    print(f"# {len(trials) - len(excluded)} trials, {len(excluded)} excluded", file=sys.stderr)
    return 0
