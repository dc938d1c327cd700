"""The folder that `tinv measure` and `tinv probe` write to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tinv.errors import TinvError


def prepare(folder: Path, results: str) -> None:
    """Makes the folder for results and removes earlier ones of that name, so that none is mistaken for new.

    Raises:
        TinvError: If the folder cannot be written to.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / results).unlink(missing_ok=True)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns what the system says of a folder that cannot be written to into one line."""
    try:
        yield
    except OSError as error:
        raise TinvError(f"cannot write to {folder} ({error.strerror}); choose another --out") from error
