"""What every command does with bad input, whatever its kind: the judge that the generators of all boundaries share.

A generator makes one bad input from a number, so that the same number is the same input in every run. Some of its
inputs are valid values at an edge: they must be taken.
"""

import contextlib
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from tinv.cli import main

LIMIT_S = 10
"""Seconds in which a command has to answer to bad input."""

MEMORY = 12 * 2**30
"""Bytes of address space that a command may take beyond what the process has."""


@dataclass(frozen=True)
class Input:
    """One input and what a command has to do with it.

    Attributes:
        words: Words after `tinv`.
        names: Texts of which the message has to hold one: the key or the file.
        expected: `refused`: exit code 1 or 2 and one line. `taken`: exit code 0. `either`: one of the two.
        what: What is wrong, for whoever reads the failed test.
        kept: Files that must be there, byte by byte, when the input has been refused.
    """

    words: list[str]
    names: tuple[str, ...]
    expected: Literal["refused", "taken", "either"] = "refused"
    what: str = ""
    kept: tuple[Path, ...] = ()


Generator = Callable[[random.Random], Input]


def numbers(few: int, many: int) -> Any:
    """Returns the mark that runs a test with `few` numbers, and with `many` where `-m exhaustive` asks for them."""
    return pytest.mark.parametrize(
        "number", [*range(few), *(pytest.param(n, marks=pytest.mark.exhaustive) for n in range(few, many))]
    )


def seeded(boundary: str, number: int) -> random.Random:
    """Returns the generator of random numbers of one input."""
    return random.Random(f"{boundary} {number}")


def judge(given: Input, capfd: pytest.CaptureFixture[str], run: Callable[[list[str]], int] = main) -> None:
    """Runs a command and fails with everything that is wrong with its answer."""
    before = {path: path.read_bytes() for path in given.kept}
    capfd.readouterr()
    begun = time.monotonic()
    with _limits():
        code = run(given.words)
    seconds, (_, said) = time.monotonic() - begun, capfd.readouterr()
    wrong = list(_faults(given, code, said))
    if given.expected != "taken" and code and seconds > LIMIT_S:
        wrong.append(f"{seconds:.0f} s")
    if code:
        wrong += [f"{path} was changed" for path, content in before.items() if path.read_bytes() != content]
    assert not wrong, (
        f"{'; '.join(wrong)}\n{given.what}: tinv {' '.join(given.words)}\nexit code {code}\n{said[-2000:]}"
    )


def _faults(given: Input, code: int, said: str) -> Iterator[str]:
    if "Traceback" in said:
        yield "a traceback"
    if code == 0:
        if given.expected == "refused":
            yield "taken"
        return
    if given.expected == "taken":
        yield "a valid value is refused"
    if code not in (1, 2):
        yield f"exit code {code}"
    # notes, and the lines that a run prints on its way, end before the error
    *others, last = said.strip().splitlines() or [""]
    if not last.startswith("tinv: error: "):
        yield "the last line is no error"
    if len(last) > 320:
        yield f"a line of {len(last)} characters"
    if code == 2 and (company := [line for line in others if not line.startswith(("note: ", "epoch "))]):
        yield f"company: {company[0]}"
    if not any(name in last for name in given.names):
        yield f"names none of {given.names}"


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """Ends a command that hangs, and keeps it from taking all memory."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"no answer in {3 * LIMIT_S} s")

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    earlier = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))
    signal.alarm(3 * LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, earlier)
