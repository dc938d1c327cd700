"""Downloads that end: a time limit, a second try, and one line that says what to fetch by hand."""

from __future__ import annotations

import contextlib
import pickle
import socket
from collections.abc import Callable, Iterator
from typing import TypeVar

from tinv.errors import TinvError

T = TypeVar("T")

LIMIT_S = 10.0
"""Seconds that a server may be silent before a try is given up."""

TRIES = 2
"""Number of tries; only errors of the network or the disk are worth another one."""


def fetch(download: Callable[[], T], what: str, instead: str) -> T:
    """Calls a function that downloads; a server that says nothing for `LIMIT_S` seconds ends the try.

    Args:
        download: Function to call; it opens its connections itself and is called again after an `OSError`.
        what: Name of what it downloads, for the error message.
        instead: What the user can do instead, for the error message.

    Returns:
        What the function returns.

    Raises:
        TinvError: If `TRIES` tries have failed, or what was sent is damaged.
    """
    earlier = socket.getdefaulttimeout()
    socket.setdefaulttimeout(LIMIT_S)
    try:
        for _ in range(TRIES - 1):
            with contextlib.suppress(OSError):
                return download()
        return download()
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise TinvError(f"{what} cannot be fetched ({reason}); {instead}") from error
    finally:
        socket.setdefaulttimeout(earlier)


@contextlib.contextmanager
def hub_or_its_cache() -> Iterator[None]:
    """Lets the client of the Hugging Face hub use its cache alone where the hub is out of reach.

    The client itself tries each of its requests six times, which takes minutes.

    Raises:
        OSError: What the client raises; that the hub is out of reach, where the cache has not what is asked for.
    """
    from huggingface_hub import constants, get_session

    offline, reason = constants.HF_HUB_OFFLINE, ""
    if not offline:
        try:
            get_session().head(constants.ENDPOINT, timeout=LIMIT_S)
        except Exception as error:  # of either of the client's two libraries
            reason = str(error) or type(error).__name__
    constants.HF_HUB_OFFLINE = offline or bool(reason)
    try:
        yield
    except OSError as error:
        if not reason:
            raise
        raise OSError(f"{constants.ENDPOINT} is out of reach: {reason}") from error
    finally:
        constants.HF_HUB_OFFLINE = offline
