"""Where data sets are looked for, what is said of those that are not there, and how they are downloaded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tinv.errors import TinvError


def data_root(root: str | None = None) -> str:
    """Returns the folder of data sets: `root`, else `$TINV_DATA`, else `data`."""
    return root or os.environ.get("TINV_DATA") or "data"


def find_folder(name: str, places: Sequence[Path], root: str, download: bool = False) -> Path:
    """Returns the first of some folders that is there.

    Args:
        name: What the folder holds, for the error message.
        places: Folders to look for, in order.
        root: Value of the data module's `root`.
        download: Whether the data module can download it.

    Raises:
        TinvError: If none of them is there; the message names them all.
    """
    for place in places:
        if place.is_dir():
            return place
    raise data_not_found(name, places, root, download)


def image_folder(root: str) -> Path:
    """Returns a folder of images: relative to the working folder, else to the folder of data sets.

    Raises:
        TinvError: If it is in neither place.
    """
    return find_folder("image", [Path(root).expanduser(), Path(data_root()) / root], root)


def data_not_found(name: str, places: Sequence[object], root: str, download: bool = True) -> TinvError:
    """Returns the error for a data set that is not there: where it was looked for, and how to get it.

    Args:
        name: Name of the data set.
        places: Files or folders that were looked for.
        root: Value of the data module's `root`.
        download: Whether the data module has an argument `download`.
    """
    get = "pass --data.init_args.download=true to fetch it, or" if download else "get it, and"
    return TinvError(
        f"no {name} data: looked for {' or '.join(map(str, places))}; {get} name the folder that holds it with "
        f"--data.init_args.root=DIR or TINV_DATA=DIR (now {root!r})"
    )


@contextlib.contextmanager
def downloading(name: str, folder: object, by_hand: str) -> Iterator[None]:
    """Turns the errors of a download into one line.

    Args:
        name: Name of the data set.
        folder: Folder that it is downloaded to.
        by_hand: What the user can do instead.

    Raises:
        TinvError: For every error of the network or the disk.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise TinvError(
            f"{name} could not be downloaded to {folder} ({error}); {by_hand} by hand and leave out download"
        ) from error
