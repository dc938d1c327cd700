"""The outputs of the process, which may be closed, full, or a terminal that has gone away."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from typing import TextIO

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
"""Errors of a disk, or of another output, that takes no more."""


class _Unheard(io.FileIO):
    """Writes to a file as long as it takes what is written, and drops the rest."""

    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError:
            return len(data)  # type: ignore[arg-type]


def open_outputs() -> None:
    """Makes messages on stderr cost no run, and gives a closed output a place to write to.

    A run continues when its terminal has gone away or its stderr is full: its results are files. What is written to a
    full stdout is an error, since it is what was asked for.
    """
    if sys.stdout is None:
        sys.stdout = _nowhere()
    elif isinstance(sys.stdout, io.TextIOWrapper):
        # tables are readable where the locale is ASCII, and names of files that are no Unicode are shown
        codecs.register_error("tinv", _spelled)
        sys.stdout.reconfigure(errors="tinv")
    if sys.stderr is None:
        sys.stderr = _nowhere()
        return
    try:
        number = sys.stderr.fileno()
    except (OSError, ValueError):
        return  # no file, such as in a notebook
    encoding = sys.stderr.encoding
    sys.stderr.flush()
    raw = _Unheard(number, "w", closefd=False)
    sys.stderr = io.TextIOWrapper(raw, encoding, errors="backslashreplace", line_buffering=True)


def close_stdout() -> None:
    """Writes what stdout still holds; keeps the interpreter from trying again at its end where it fails.

    Raises:
        OSError: Where stdout takes no more.
    """
    try:
        sys.stdout.flush()
    except OSError:
        drop_stdout()
        raise


def drop_stdout() -> None:
    """Sends what stdout still holds to nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _spelled(error: UnicodeError) -> tuple[str | bytes, int]:
    """Handles characters that an output's encoding lacks."""
    if isinstance(error, UnicodeEncodeError) and error.object[error.start] == "±":
        return "+-", error.start + 1
    return codecs.backslashreplace_errors(error)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")
