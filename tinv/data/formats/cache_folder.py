"""Folders that are made once and used by all later runs: whole, or not there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from platformdirs import user_cache_path
from torch import Tensor

from tinv.errors import TinvError
from tinv.utils.io import read_json, reading, regular, write_atomically

MANIFEST = "about.json"
"""A file that says what a folder holds; written last, so that its being there tells that the folder is whole."""

BEGIN, PATIENCE_S = ".building-", 60.0
"""How names of folders begin that are being made, and for how long one that nobody holds is left alone."""


def default_folder() -> Path:
    """Returns where caches are kept unless a folder is named: `~/.cache/tinv`, or under `$XDG_CACHE_HOME`."""
    return user_cache_path("tinv")


def is_built(cache_dir: Path) -> bool:
    """Returns whether a cache folder is there and whole."""
    return (cache_dir / MANIFEST).is_file()


def read_manifest(cache_dir: Path) -> dict[str, Any]:
    """Returns what a cache folder says that it holds."""
    manifest: dict[str, Any] = read_json(cache_dir / MANIFEST)
    return manifest


def read_arrays(path: Path) -> Any:
    """Returns the array of an `.npy` file, or the arrays of an `.npz` file by name; objects are never unpickled.

    Raises:
        TinvError: If the file is not there, is not a regular file, or is damaged.
    """
    with reading(path, "arrays, remove the cache folder that it is in"):
        found = np.load(regular(path))
        return found if isinstance(found, np.ndarray) else dict(found)


def map_bytes(path: Path, size: int) -> Tensor:
    """Returns the bytes of a file, (size,) uint8, mapped into memory by each process for itself; not to be written to.

    Raises:
        TinvError: If the file is not there, is not a regular file, or is of another size.
    """
    if (there := regular(path).stat().st_size) != size:
        raise TinvError(f"{path} holds {there} bytes where {size} belong; remove the folder, which is made again")
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)


def build_cache_dir(cache_dir: Path, what: str, write: Callable[[Path], dict[str, Any]]) -> None:
    """Makes a folder unless it is there; what an interrupted run leaves of it is never taken for it.

    Args:
        cache_dir: Folder to make.
        what: Name of what it holds, for error messages.
        write: Function that fills a temporary folder and returns what its manifest says.

    Raises:
        TinvError: If it cannot be written.
    """
    if is_built(cache_dir):
        return
    temporary: Path | None = None
    held: int | None = None
    try:
        cache_dir.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(cache_dir.parent)
        temporary = Path(tempfile.mkdtemp(prefix=BEGIN, dir=cache_dir.parent))
        held = _hold(temporary)
        manifest = write(temporary)
        write_atomically(temporary / MANIFEST, json.dumps(manifest, indent=2) + "\n")
        # of two runs that make the same folder the first one's is kept
        with contextlib.suppress(OSError):
            os.replace(temporary, cache_dir)
        if not is_built(cache_dir):
            raise TinvError(f"{cache_dir} is in the way of {what}; remove it")
    except OSError as error:
        raise TinvError(
            f"cannot write {what} to {cache_dir.parent} ({error.strerror}); choose another folder with "
            "--data.init_args.cache_dir, or turn the cache off"
        ) from error
    finally:
        if held is not None:
            os.close(held)
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _hold(folder: Path) -> int | None:
    """Tells other processes that a folder is in use, until this one closes the file or ends; None if one holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or a file system without locks
        os.close(descriptor)
        return None
    return descriptor


def _remove_abandoned(parent: Path) -> None:
    """Removes what killed processes have left unfinished; what a process still works on is held by it."""
    for folder in parent.glob(f"{BEGIN}*"):
        with contextlib.suppress(OSError):
            # another process may have made it, and not held it yet
            if time.time() - folder.stat().st_mtime < PATIENCE_S:
                continue
            if (held := _hold(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(held)
