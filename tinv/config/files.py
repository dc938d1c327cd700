"""Where configurations and sweeps are found: as given, else among those that ship with tinv."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tinv.errors import TinvError, nearest

PACKAGE = Path(__file__).resolve().parent.parent

Kind = Literal["configs", "sweeps"]


def find_file(path: str | Path, kind: Kind) -> Path:
    """Returns the file that is meant: as given, else `configs/...` or `sweeps/...` of the installed tinv.

    Args:
        path: Path of the file.
        kind: Folder of tinv that holds such files.

    Raises:
        TinvError: If it is in neither place, naming the nearest ones.
    """
    given = Path(path)
    if given.is_file():
        return given
    if given.parts[:1] == (kind,):
        found = shipped_folder(kind).joinpath(*given.parts[1:])
        if found.is_file():
            return found
    names = [f"{kind}/{p.relative_to(shipped_folder(kind))}" for p in shipped_files(kind)]
    what = "configuration" if kind == "configs" else "sweep"
    raise TinvError(f"no {what} file {path}{nearest(str(path), names)}")


def shipped_folder(kind: Kind) -> Path:
    """Returns the folder of the files of a kind that ship with tinv: in a checkout, or in the installed package."""
    checkout = PACKAGE.parent / kind
    return checkout if checkout.is_dir() else PACKAGE / "files" / kind


def shipped_files(kind: Kind) -> list[Path]:
    """Returns the files of a kind that ship with tinv; those of folders within, such as overlays, last."""
    return [*sorted(shipped_folder(kind).glob("*.yaml")), *sorted(shipped_folder(kind).glob("*/*.yaml"))]
