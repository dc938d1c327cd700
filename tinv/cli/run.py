"""`tinv fit`, `validate`, `test` and `predict`."""

from __future__ import annotations

from collections.abc import Sequence

from tinv.report.published import published_for, unmet_conditions
from tinv.report.tables import print_results
from tinv.runs.callbacks.checks import Command
from tinv.runs.configuration import TinvCLI
from tinv.runs.engine import evaluate, fit


def run(command: Command, words: Sequence[str]) -> int:
    """Runs one of the commands, prints its metrics beside the published ones, and returns the exit code.

    Args:
        command: Name of the command.
        words: Words after it.
    """
    configuration = TinvCLI(words, command)
    # an unknown entry is found now, not after training
    published = published_for(configuration.values) if command in ("fit", "test") else None
    outcome = fit(configuration) if command == "fit" else evaluate(command, configuration)
    if outcome.metrics is not None:
        print_results(outcome.metrics, published, str(outcome.folder), outcome.units)
        if published is not None and (reason := unmet_conditions(configuration.values)):
            print(f"note: {reason}")
    return outcome.code
