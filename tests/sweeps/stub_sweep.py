"""Runs `tinv sweep` with stub_run.py in the place of `tinv fit`; as a program: python stub_sweep.py FILE --out ..."""

import sys
from pathlib import Path

import tinv.cli.sweep as command
import tinv.sweeps.run as run
from tinv.errors import TinvError

STUB = (sys.executable, "-S", str(Path(__file__).with_name("stub_run.py")))

HEAD = """
name: tiny
method: {method}
command: [tinv, fit, --config, configs/red_green.yaml, "${{args}}"]
"""


def write_sweep(parameters: str, method: str = "grid", more: str = "", path: str = "sweep.yaml") -> Path:
    """Writes a sweep file; `parameters` are lines without indentation."""
    lines = "\n".join(f"  {line}" for line in parameters.strip().splitlines())
    Path(path).write_text(f"{HEAD.format(method=method)}\n{more}\nparameters:\n{lines}\n")
    return Path(path)


def sweep(*words: str) -> int:
    """Runs it in this process, unchecked; returns the exit code."""
    run.check_values = lambda trials: None
    try:
        return command.sweep([str(word) for word in words], STUB)
    except TinvError as error:
        print(f"tinv: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(sweep(*sys.argv[1:]))
