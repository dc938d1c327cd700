"""Sets of image patches in the format of Winder, Hua and Brown: sheets of patches, their points, and pairs to test on.

A folder holds `patches0000.bmp`, `patches0001.bmp`, ...: sheets of 64x64 gray patches, row by row; `info.txt`: a line
a patch, first the number of its 3-D point; and `m50_N_N_0.txt`: N pairs, half of which show the same point, a line
each: patch, point, unused, patch, point, unused.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tinv.data.formats.cache_folder import build_cache_dir, map_bytes, read_arrays
from tinv.errors import TinvError
from tinv.utils.io import reading, regular
from tinv.utils.progress import progress

SIDE = 64
"""Of a patch, in pixels."""

SHEET = 16
"""Patches a row, and rows, of an official sheet."""


@dataclass(frozen=True)
class PatchSet:
    """Patches of 3-D points.

    Attributes:
        folder: Folder they were read from.
        patches: Patches (N, 64, 64), uint8, mapped into memory; not to be written to.
        points: Number of the 3-D point that each shows, (N,) int64.
    """

    folder: Path
    patches: Tensor
    points: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.points)


def read_patch_set(folder: Path, cache: Path) -> PatchSet:
    """Reads a folder in the official format; the first time its sheets are parsed into a cache.

    Args:
        folder: Folder of one set, such as `liberty`.
        cache: Folder of all caches.

    Raises:
        TinvError: If a file is missing, damaged or short, or `info.txt` and the sheets do not fit.
    """
    sheets = _sheets(folder)
    info = folder / "info.txt"
    key = hashlib.sha256(f"patches\n{folder.resolve()}\n".encode())
    for path in (info, *sheets):
        try:
            found = path.stat()
        except OSError as error:
            raise TinvError(f"{path} cannot be read ({error.strerror})") from error
        key.update(f"{path.name} {found.st_size} {found.st_mtime_ns}\n".encode())
    cache_dir = cache / f"patches-{key.hexdigest()[:24]}"
    build_cache_dir(cache_dir, "a cache of patches", lambda temporary: _parse(folder, info, sheets, temporary))
    points: NDArray[np.int64] = read_arrays(cache_dir / "points.npy")
    pixels = map_bytes(cache_dir / "patches.bin", len(points) * SIDE**2)
    return PatchSet(folder, pixels.view(-1, SIDE, SIDE), points)


def _sheets(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise TinvError(f"no folder of patches {folder}")
    with os.scandir(folder) as entries:
        there = {entry.name for entry in entries if entry.name.startswith("patches") and entry.name.endswith(".bmp")}
    if not there:
        raise TinvError(f"{folder} holds no patches0000.bmp; it is not a set of patches")
    names = [f"patches{number:04d}.bmp" for number in range(len(there))]
    if absent := [name for name in names if name not in there]:
        raise TinvError(f"{folder / absent[0]} is missing: sheets are numbered without gaps, {len(there)} are there")
    return [folder / name for name in names]


def _parse(folder: Path, info: Path, sheets: Sequence[Path], temporary: Path) -> dict[str, Any]:
    points = _integers(info, 1)[:, 0]
    rows, columns = _size(sheets[0])
    header = _header(sheets[0])
    each = rows * columns
    if len(points) > each * len(sheets) or len(points) <= each * (len(sheets) - 1):
        raise TinvError(
            f"{info} lists {len(points)} patches, the {len(sheets)} sheets beside it hold "
            f"{each * (len(sheets) - 1) + 1} to {each * len(sheets)}; get the set again"
        )
    with (temporary / "patches.bin").open("wb") as file, ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:

        def parse(number: int) -> None:
            patches = _cut(sheets[number], rows, columns, header)[: len(points) - number * each]
            # at its place, so that sheets may end in any order
            os.pwrite(file.fileno(), patches.data, number * each * SIDE**2)

        done = pool.map(parse, range(len(sheets)))
        for _ in progress(done, f"reading {folder}", len(sheets)):
            pass
    np.save(temporary / "points.npy", points)
    return {"folder": str(folder), "patches": len(points)}


def _size(sheet: Path) -> tuple[int, int]:
    """Returns the rows and columns of patches of a sheet."""
    with reading(sheet, "an image"), Image.open(regular(sheet)) as image:
        width, height = image.size
    if width % SIDE or height % SIDE or not width or not height:
        raise TinvError(f"{sheet} has {width}x{height} pixels, which are no sheet of {SIDE}x{SIDE} patches")
    return height // SIDE, width // SIDE


def _header(sheet: Path) -> bytes | None:
    """Returns what an official sheet begins with: after it come its bytes as they are, bottom row first.

    None if Pillow says that the pixels lie in another way.
    """
    with reading(sheet, "an image"), Image.open(regular(sheet)) as image:
        tiles = getattr(image, "tile", [])
        tile = tiles[0] if len(tiles) == 1 else None
        if image.mode != "L" or tile is None or tile[0] != "raw" or tile[3] != ("L", image.width, -1):
            return None
        return sheet.read_bytes()[: tile[2]]


def _cut(sheet: Path, rows: int, columns: int, header: bytes | None) -> NDArray[np.uint8]:
    """Returns the patches of a sheet: (rows * columns, 64, 64).

    A sheet that begins as the first one is read without Pillow, which would keep the other threads waiting.
    """
    height, width = rows * SIDE, columns * SIDE
    pixels = None
    if header is not None:
        try:
            content = np.fromfile(sheet, dtype=np.uint8, count=len(header) + height * width)
        except OSError:
            content = np.empty(0, dtype=np.uint8)  # Pillow, below, says what is wrong with the file
        if content[: len(header)].tobytes() == header and len(content) == len(header) + height * width:
            pixels = content[len(header) :].reshape(height, width)[::-1]
    if pixels is None:
        pixels = _decoded(sheet, height, width)
    cut: NDArray[np.uint8] = np.ascontiguousarray(pixels.reshape(rows, SIDE, columns, SIDE).swapaxes(1, 2))
    return cut.reshape(-1, SIDE, SIDE)


def _decoded(sheet: Path, height: int, width: int) -> NDArray[np.uint8]:
    """Returns the gray pixels (H, W) of a sheet in any form that Pillow reads."""
    with reading(sheet, "an image"), Image.open(regular(sheet)) as image:
        if image.size != (width, height):
            raise TinvError(f"{sheet} has {image.width}x{image.height} pixels, the first sheet {width}x{height}")
        return np.asarray(image if image.mode == "L" else image.convert("L"))


def read_pairs(patches: PatchSet, pairs: int) -> NDArray[np.int64]:
    """Reads the official test pairs `m50_N_N_0.txt`.

    Args:
        patches: Patches that the pairs name.
        pairs: N in the name of the file.

    Returns:
        (N, 3): the numbers of two patches, and that of the point that both show, -1 if they show different ones.

    Raises:
        TinvError: If the file is not there, or names a patch that is not there or another point of it.
    """
    path = patches.folder / f"m50_{pairs}_{pairs}_0.txt"
    if not path.is_file():
        others = sorted(int(found.name.split("_")[1]) for found in patches.folder.glob("m50_*_*_0.txt"))
        there = (
            f"there are {', '.join(map(str, others))}: set data.init_args.num_test_pairs" if others else "there is none"
        )
        raise TinvError(f"no list of pairs {path}; {there}")
    table = _integers(path, 5)
    if len(table) == 0:
        raise TinvError(f"{path} lists no pairs")
    both, named = table[:, [0, 3]], table[:, [1, 4]]
    outside = (both < 0) | (both >= len(patches))
    wrong = outside | (patches.points[np.where(outside, 0, both)] != named)
    if wrong.any():
        line, column = (int(value) for value in np.argwhere(wrong)[0])
        patch, point = int(both[line, column]), int(named[line, column])
        there = (
            f"there are {len(patches)}"
            if outside[line, column]
            else f"info.txt says that it shows point {patches.points[patch]}"
        )
        raise TinvError(f"{path}, line {line + 1}: patch {patch} of point {point}, but {there}; get the set again")
    shown = np.where(named[:, 0] == named[:, 1], named[:, 0], -1)
    return np.column_stack([both, shown])


def _integers(path: Path, columns: int) -> NDArray[np.int64]:
    """Reads the first columns of a text file of integers."""
    if not path.is_file():
        raise TinvError(f"{path} is missing; get the set again")
    try:
        table: NDArray[np.int64] = np.loadtxt(path, dtype=np.int64, usecols=range(columns), ndmin=2, comments=None)
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise TinvError(f"{path} is not {columns} integers a line ({error})") from error
    return table


def write_patch_set(
    folder: Path, patches: NDArray[np.uint8], points: Sequence[int], pairs: NDArray[np.int64], images: Sequence[int]
) -> None:
    """Writes a folder in the official format.

    Args:
        folder: Folder to make and fill.
        patches: Patches (N, 64, 64).
        points: Number of the point that each shows, N.
        pairs: Numbers of two patches, (P, 2).
        images: Number of the image that each patch comes from, N; the format has a column for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    each = SHEET**2
    for number, begin in enumerate(range(0, len(patches), each)):
        sheet = np.zeros((each, SIDE, SIDE), dtype=np.uint8)
        part = patches[begin : begin + each]
        sheet[: len(part)] = part
        pixels = sheet.reshape(SHEET, SHEET, SIDE, SIDE).swapaxes(1, 2).reshape(SHEET * SIDE, SHEET * SIDE)
        Image.fromarray(pixels).save(folder / f"patches{number:04d}.bmp")
    lines = (f"{point} {image}\n" for point, image in zip(points, images, strict=True))
    (folder / "info.txt").write_text("".join(lines))
    text = "".join(f"{one} {points[one]} 0 {other} {points[other]} 0\n" for one, other in pairs.tolist())
    (folder / f"m50_{len(pairs)}_{len(pairs)}_0.txt").write_text(text)
