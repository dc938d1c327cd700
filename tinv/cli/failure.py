"""What a command says when it fails: one line, an exit code, and the whole traceback in a file."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tinv.config.files import PACKAGE
from tinv.config.merge import flatten, read_command_line
from tinv.errors import TinvError, TooLargeError
from tinv.runs.ranks import rank
from tinv.utils.memory import NO_MEMORY
from tinv.utils.outputs import DISK_FULL, drop_stdout

INTERNAL = 70
"""Exit code of an error that nobody foresaw (EX_SOFTWARE of sysexits.h)."""

MAX_LENGTH = 300
"""Characters of a message; the whole of it is in the log."""


def report_failure(error: BaseException, words: Sequence[str], debug: bool) -> int:
    """Prints one line for the error that ended a command, and returns the exit code.

    Args:
        error: The error.
        words: Words of the command line.
        debug: Whether the traceback is printed too.

    Returns:
        2 for input that has to be corrected, 1 once training has begun, 70 for an error that nobody foresaw, 130 for
        Ctrl-C.
    """
    if debug:
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        print("tinv: stopped", file=sys.stderr)
        return 130
    if isinstance(error, BrokenPipeError):
        drop_stdout()  # the reader of our output, such as `head`, has gone
        return 1
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        where = f" to {error.filename}" if error.filename else ""
        _print(f"cannot write{where} ({error.strerror}); free some space")
        return 1
    folder = _run_folder()
    begun = folder is not None and (folder / "checkpoints" / "last.ckpt").exists()
    if isinstance(error, OSError) and error.filename:
        error = TinvError(f"cannot use {error.filename} ({error.strerror}); choose another, or see to its permissions")
    if isinstance(error, TinvError):
        if folder is not None:
            _write_log(folder)
        more = _largest(words) if isinstance(error, TooLargeError) else ""
        _print(f"{error}{more}")
        return 1 if begun else 2
    log = _write_log(folder)
    reason = f"{type(error).__name__}: {error}".partition("\n")[0]
    if isinstance(error, MemoryError) or NO_MEMORY.search(reason):
        _print(f"not enough memory ({reason[:120]}){_largest(words)}; the traceback is in {log}")
        return 1 if begun else 2
    if (place := _users_own(error)) is not None:
        _print(f"{place}: {reason[:200]}; the traceback is in {log}")
        return 1 if begun else 2
    _print(f"internal error ({reason[:150]}); please report it with {log}")
    return INTERNAL


def _users_own(error: BaseException) -> str | None:
    """Returns the file and line in which an error was raised, if it is code of the user's own that tinv has called."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or "site-packages" in frames[-1].filename or frames[-1].filename.startswith("<"):
        return None
    path = Path(frames[-1].filename)
    if not path.is_file():
        return None  # a library's compiled code
    of_python = Path(sys.prefix), Path(sys.base_prefix), PACKAGE
    return None if any(path.is_relative_to(folder) for folder in of_python) else f"{path}, line {frames[-1].lineno}"


def _print(message: str) -> None:
    """Prints an error on one line; of several processes that found the same one, the first does."""
    connected = "torch" in sys.modules and sys.modules["torch"].distributed.is_initialized()
    if rank() and connected:
        # the first process, if it found the same, says so and ends this one
        time.sleep(5)
    if rank() == 0 or connected:
        text = " ".join(f"{f'process {rank()}: ' if rank() else ''}{message}".split())
        print(f"tinv: error: {text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 3] + '...'}", file=sys.stderr)


def _run_folder() -> Path | None:
    """Returns the folder of the run that this process works on, if it is there."""
    module = sys.modules.get("tinv.runs.folder")
    current = module.RunFolder.current if module is not None else None
    return current.path if current is not None and current.path.is_dir() else None


def _write_log(folder: Path | None) -> Path:
    """Writes the traceback to `error.log` in the folder of the run, else to a file among the temporary ones."""
    name = f"error-{rank()}.log" if rank() else "error.log"
    log = folder / name if folder else Path(tempfile.gettempdir()) / f"tinv-{os.getpid()}-{name}"
    try:
        log.write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
    except OSError:
        return Path(os.devnull)
    return log


def _largest(words: Sequence[str]) -> str:
    """Returns a hint at the option with the largest number, which probably asks for the memory."""
    options = words[2:] if len(words) > 1 and not words[1].startswith("-") else words[1:]
    try:
        given = read_command_line(options).flat
    except TinvError:
        return ""
    items = [(key, item) for key, value in flatten(given) for item in (value if isinstance(value, list) else [value])]
    numbers = [(item, key) for key, item in items if isinstance(item, int) and "seed" not in key]
    largest, key = max(numbers, default=(0, ""))
    return "" if largest < 1000 else f"; --{key}={largest} is the largest number asked for"
