"""Where data sets are looked for, what is said of those that are not there, and how they are downloaded."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from tinv.errors import TinvError
from tinv.utils.download import fetch


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


def fetch_archive(addresses: Sequence[str], folder: Path, checksum: str, unpacked: Path | None = None) -> None:
    """Downloads an archive with torchvision and unpacks it.

    Args:
        addresses: Where it lies; one after the other is tried, and the first again if there is no other.
        folder: Folder that it is downloaded to.
        checksum: MD5 of the archive.
        unpacked: Folder that it is unpacked to, after which the archive is removed; None unpacks it in `folder`.

    Raises:
        TinvError: If it cannot be had; the message names the file and the folder.
    """
    from torchvision.datasets.utils import download_and_extract_archive

    order = itertools.cycle(addresses)
    target = folder if unpacked is None else unpacked

    def download() -> None:
        address = next(order)
        name = address.rpartition("/")[2]
        download_and_extract_archive(address, str(folder), str(target), name, checksum, unpacked is not None)

    fetch(download, addresses[0], f"fetch it by hand, unpack it to {target} and leave out download")
