"""The one error that users are meant to see, and the nearest-name hint that goes with it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TinvError(Exception):
    """Something the user can correct: one line that names the file, key or layer and what to do.

    The command line prints the message without a traceback and exits with code 2 (`--debug` shows the traceback).
    """


class LayerError(TinvError):
    """A layer of a network cannot run on the map it gets; the message begins with the layer's path."""


class TooLargeError(TinvError):
    """More memory is asked for than there is; the command line names the largest number among its options."""


class TinvWarning(UserWarning):
    """Something that the user must know of a number, such as that it is not defined; commands print it as a note."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Returns `"; did you mean a, b?"` for the choices closest to `name`, or an empty string if none is close."""
    close = difflib.get_close_matches(name, list(choices), n=3, cutoff=0.6)
    return f"; did you mean {', '.join(close)}?" if close else ""


def unknown(kind: str, name: object, choices: Iterable[str]) -> TinvError:
    """Returns the error for a name that is not one of `choices`: it names the nearest ones, or the first ten."""
    choices = list(choices)
    more = f" and {len(choices) - 10} more" if len(choices) > 10 else ""
    hint = nearest(str(name), choices) or f"; choose from {', '.join(choices[:10])}{more}"
    return TinvError(f"unknown {kind} {str(name)[:100]!r}{hint}")
