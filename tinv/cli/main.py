"""The `tinv` command: reads the first word, answers quickly what can be answered quickly, and hands on the rest.

Nothing here imports torch before the options have been checked.
"""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, cast

from tinv import __version__
from tinv.cli.failure import MAX_LENGTH, report_failure
from tinv.deprecation import RenamedWarning
from tinv.errors import TinvError, TinvWarning, unknown
from tinv.runs.ranks import check_variables
from tinv.utils.outputs import close_stdout, open_outputs

RUN_COMMANDS = {
    "fit": "train, then test the best checkpoint",
    "validate": "score a checkpoint on the validation set",
    "test": "score a checkpoint on the test sets",
    "predict": "write a checkpoint's class probabilities for the test sets",
}
OTHER_COMMANDS = {
    "sweep": "a whole grid of runs, here or on Slurm; resumes where it was stopped",
    "inspect": "geometry, cost and exact invariance of a network under a policy",
    "measure": "invariance of any network on a folder of images, and what breaks it",
    "tiles": "tiles of a large image whose stitched outputs equal those of the whole",
    "probe": "how far from the border a frozen network encodes absolute position",
    "report": "table and figures of finished runs, beside the published numbers",
    "list": "backbones, data, experiments, sweeps, padding, subsampling, activation or token policies",
}


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code.

    0: done. 2: something in the input has to be corrected. 1: a run failed after training had begun. 70: an error that
    nobody foresaw. 130, 143: stopped by Ctrl-C or SIGTERM. Every failure is one line.

    Args:
        args: Words after `tinv`; None takes the process's own.
    """
    if args is None:
        open_outputs()
        # figures are files; a backend for a screen may be missing here
        os.environ["MPLBACKEND"] = "agg"
    words = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if (folder := sys.modules.get("tinv.runs.folder")) is not None:
        folder.RunFolder.current = None
    try:
        if args is None:
            _import_from_current_folder()
        with as_notes():
            code = _dispatch(words)
        close_stdout()
        return code
    except (Exception, KeyboardInterrupt) as error:
        return report_failure(error, words, debug)


def _import_from_current_folder() -> None:
    """Lets a configuration name classes of the user's own; the script `tinv` has another first entry of the path."""
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        raise TinvError("the current folder has been removed; change to another") from None
    if folder not in sys.path:
        sys.path.append(folder)


@contextlib.contextmanager
def as_notes() -> Iterator[None]:
    """Prints each warning once, on one line of stderr: tinv's own as notes and at once, those of libraries at the end.

    Where a command fails, what libraries warned of stands in the log, and does not come before the error.
    """
    notes, later = set(), {}

    def print_note(message: Warning | str, category: type[Warning], *args: Any, **options: Any) -> None:
        text = " ".join(str(message).split())
        if not issubclass(category, TinvWarning | RenamedWarning):
            short = textwrap.shorten(text, MAX_LENGTH - 50, placeholder="...")
            later[f"warning: {short} ({category.__name__})"] = True
        elif text not in notes:
            notes.add(text)
            print(f"note: {text}", file=sys.stderr)

    with warnings.catch_warnings():
        for category in (TinvWarning, RenamedWarning):
            warnings.simplefilter("always", category)
        warnings.showwarning = print_note
        try:
            yield
        except BaseException as error:
            for line in later:
                error.add_note(line)
            raise
    for line in later:
        print(line, file=sys.stderr)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    command, rest = words[0], words[1:]
    if command == "--version":
        print(f"tinv {__version__}")
        return 0
    check_variables()
    if command in RUN_COMMANDS and not {"-h", "--help"} & set(rest):
        from tinv.config import merge, options

        rest = rest if command == "fit" else merge.with_run_config(rest)
        options.check(rest)
    if command in (*RUN_COMMANDS, "measure", "probe"):
        from tinv.utils.memory import keep_freed_memory

        keep_freed_memory()
    if command in RUN_COMMANDS:
        from tinv.cli.run import run

        return run(cast(Any, command), rest)
    if command not in OTHER_COMMANDS:
        raise unknown("command", command, [*RUN_COMMANDS, *OTHER_COMMANDS])
    module = import_module(f"tinv.cli.{command}")
    code: int = getattr(module, "list_choices" if command == "list" else command)(rest)
    return code


def usage() -> str:
    """Returns the text of `tinv --help`."""
    from tinv.config.options import TOP_LEVEL

    def table(rows: dict[str, str]) -> str:
        return "\n".join(f"  {name:<18}{text}" for name, text in rows.items())

    return f"""\
tinv {__version__}: how translation invariant is a convolutional network, and what in it breaks the invariance?

usage: tinv COMMAND [--config FILE]... [--key=value]...

commands:
{table(RUN_COMMANDS | OTHER_COMMANDS)}

keys of a configuration, each also an option (--trainer.max_epochs=5):
{table(TOP_LEVEL)}

examples:
  tinv list experiments
  tinv fit --config configs/digits_grid.yaml
  tinv fit --config configs/cifar_grid.yaml --model.init_args.backbone_args.kernel_size=5
  tinv test --config configs/digits_grid.yaml --ckpt_path runs/digits_grid/RUN/checkpoints/best.ckpt
  tinv sweep sweeps/red_green.yaml --out runs/red_green --jobs 2
  tinv report runs/red_green
  tinv inspect resnet50 --padding full_zero --subsampling blur3

`tinv fit --help` lists every option there is (it takes some seconds)."""
