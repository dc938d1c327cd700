"""Reads the options of some trials as `tinv fit` would, and runs nothing: finds a bad value before the first trial."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from tinv.errors import TinvError
from tinv.sweeps.trials import Trial


def check_values(trials: Sequence[Trial]) -> None:
    """Raises TinvError for the first trial whose options `tinv fit` refuses.

    Every value of every key is looked at in one trial at least. Runs in a process of its own, since it needs torch,
    which the sweep does not.
    """
    seen: set[tuple[str, str]] = set()
    picked = []
    for trial in trials:
        pairs = {(key, repr(value)) for key, value in trial.settings.items()}
        if not pairs <= seen:
            seen |= pairs
            picked.append(trial)
    question = json.dumps([list(trial.words) for trial in picked])
    answer = subprocess.run([sys.executable, "-m", __name__], input=question, capture_output=True, text=True)
    try:
        refusals: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    except (ValueError, IndexError) as error:
        last = (answer.stderr.strip().splitlines() or ["no output"])[-1]
        raise TinvError(f"the options of the trials could not be checked: {last}") from error
    for number, reason in refusals.items():
        raise TinvError(f"trial {picked[int(number)].title}: {reason}")


def main() -> None:
    """Reads lists of options from stdin and prints, by number, why some are refused."""
    from tinv.runs.configuration import TinvCLI

    refusals = {}
    for number, words in enumerate(json.load(sys.stdin)):
        try:
            TinvCLI(words)
        except TinvError as error:
            refusals[number] = " ".join(str(error).split())
    print(json.dumps(refusals))


if __name__ == "__main__":
    main()
