"""How files are opened and written: only regular ones, every error names the file, and nothing is half written."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from tinv.errors import TinvError

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def regular(path: Path) -> Path:
    """Returns the path of a file that is safe to open: reading a pipe or a device may never end.

    Args:
        path: Path of the file; links are followed.

    Raises:
        TinvError: If it is not there, cannot be looked at, or is not a regular file.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        raise TinvError(f"there is no file {path}") from error
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(mode):
        raise TinvError(f"{path} is {KINDS.get(stat.S_IFMT(mode), 'something else')}, not a regular file")
    return path


def read_bytes(path: Path) -> bytes:
    """Returns the content of a regular file.

    Args:
        path: Path of the file; links are followed.

    Raises:
        TinvError: If it cannot be read, or is not a regular file.
    """
    try:
        return regular(path).read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def read_text(path: Path, errors: Literal["strict", "surrogateescape"] = "strict") -> str:
    """Returns the text of a regular file in UTF-8, with or without a byte order mark.

    Args:
        path: Path of the file; links are followed.
        errors: What other bytes do: raise an error, or come through as in Python's file names (`surrogateescape`).

    Raises:
        TinvError: If it cannot be read, is not a regular file, or is not text in UTF-8 (the line is named).
    """
    content = read_bytes(path)
    try:
        text = content.decode("utf-8-sig", errors)
        place = text.find("\0")
        if place < 0:
            return text
        line = text.count("\n", 0, place) + 1
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
    raise TinvError(f"{path}, line {line}: not text in UTF-8; save the file in that encoding")


def read_lines(path: Path, errors: Literal["strict", "surrogateescape"] = "strict") -> list[tuple[int, str]]:
    """Returns the lines of a text file that are not blank, each with its number from 1 on; see `read_text`."""
    # not str.splitlines, which also cuts at characters that file names may hold
    lines = enumerate(re.split(r"\r\n|\n|\r", read_text(path, errors)), 1)
    return [(number, line) for number, line in lines if line.strip()]


def read_json(path: Path) -> Any:
    """Returns what a JSON file in UTF-8 holds.

    Args:
        path: Path of the file; links are followed.

    Raises:
        TinvError: If it cannot be read, is not a regular file, or is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise TinvError(f"{path} is damaged ({type(error).__name__}: {error})") from error


def read_csv(path: Path) -> list[dict[str, str | None]]:
    """Returns the rows of a CSV file in UTF-8 by column; None where a row is too short.

    Args:
        path: Path of the file, whose first line names the columns; links are followed.

    Raises:
        TinvError: If it cannot be read, is not a regular file, or is not CSV.
    """
    try:
        return list(csv.DictReader(io.StringIO(read_text(path), newline="")))
    except csv.Error as error:
        raise TinvError(f"{path} is damaged ({error})") from error


@contextlib.contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turns whatever a library raises over a file into one error that names it, so that it can be skipped.

    Args:
        path: Path of the file.
        what: What it is read as, such as "an image".

    Raises:
        TinvError: For every error within but TinvError itself and a lack of memory, which is no fault of the file.
    """
    try:
        yield
    except (TinvError, MemoryError):
        raise
    except Exception as error:  # the libraries' errors have no common class
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
        reason = re.split(r"[:,]? [<'/]", reason)[0]  # Pillow and PyAV repeat the path
        raise TinvError(f"{path} cannot be read as {what} ({reason})") from error


def unreadable(path: Path, error: Exception) -> TinvError:
    """Returns the error for a file that the system does not let us read."""
    return TinvError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error})")


def write_atomically(path: Path, text: str) -> None:
    """Writes a file under a temporary name and renames it, so that no reader ever sees half of it."""
    write_bytes_atomically(path, text.encode())


def png(figure: Any, dpi: int | Literal["figure"] = "figure") -> bytes:
    """Returns a figure of matplotlib as a PNG file has it.

    Args:
        figure: The figure.
        dpi: Pixels an inch; `figure` takes those of the figure.
    """
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Writes bytes under a temporary name beside, waits for the disk, and renames: the old file stays until then."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
