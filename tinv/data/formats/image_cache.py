"""Decoded images on disk, as bytes mapped into memory: read and resized once, for all epochs and runs."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from torch import Tensor

from tinv.data.formats.cache_folder import build_cache_dir, map_bytes, read_arrays, read_manifest
from tinv.data.formats.images import ImageFiles, read_all
from tinv.errors import TinvError

DAMAGED = -1


class Prepare(Protocol):
    """What is done to every image before it is kept."""

    @property
    def name(self) -> str:
        """Says what is done, to tell caches apart."""

    def __call__(self, path: Path) -> Tensor:
        """Returns the pixels (3, H, W) uint8 of a file."""


class ImageCache:
    """Prepared images of some files, made on first use.

    A cache belongs to the files' names, sizes and times of change and to how they are prepared: another subset or
    another size is another cache, and a cache is only there once it is whole.

    Args:
        folder: Folder of all caches.
        files: Image files to keep.
        prepare: What is done to each image.
    """

    def __init__(self, folder: Path, files: ImageFiles, prepare: Prepare) -> None:
        self.files, self.prepare = files, prepare
        key = hashlib.sha256(f"{prepare.name}\n{files.fingerprint()}".encode())
        self.cache_dir = folder / key.hexdigest()[:24]
        self._pixels: Tensor | None = None
        self._where: np.ndarray | None = None

    def build(self, workers: int = 0) -> None:
        """Reads and prepares every image; does nothing if the cache is there.

        Damaged files are remembered as such. What an interrupted build leaves is never taken for a cache.

        Args:
            workers: Number of processes that read.

        Raises:
            TinvError: If it cannot be written.
        """
        build_cache_dir(self.cache_dir, "an image cache", lambda folder: self._write(folder, workers))

    def _write(self, folder: Path, workers: int) -> dict[str, Any]:
        with (folder / "pixels.bin").open("wb") as pixels:
            where, damaged = self._write_pixels(pixels, workers)
        np.save(folder / "where.npy", where)
        about = {"prepare": self.prepare.name, "folder": str(self.files.folder)}
        return {**about, "images": len(where), "damaged": damaged}

    def _write_pixels(self, pixels: BinaryIO, workers: int) -> tuple[np.ndarray, dict[str, str]]:
        where = np.empty((len(self.files), 3), dtype=np.int64)  # offset, height, width
        damaged, end = {}, 0
        for number, image in enumerate(read_all(self.files, self.prepare, workers, "caching")):
            if isinstance(image, str):
                damaged[os.fsdecode(self.files.names[number])] = image
                where[number] = DAMAGED
                continue
            where[number] = end, image.shape[1], image.shape[2]
            end += pixels.write(image.permute(1, 2, 0).numpy().tobytes())
        return where, damaged

    def read(self, number: int) -> Tensor:
        """Returns an image (3, H, W) uint8, channels last in memory; not to be written to.

        Raises:
            TinvError: If the file was damaged.
        """
        if self._where is None or self._pixels is None:
            # mapped by each process for itself, which costs nothing; not shared, so that no one can change the file
            self._where = read_arrays(self.cache_dir / "where.npy")
            begins, heights, widths = self._where.T
            size = int(np.where(begins == DAMAGED, 0, begins + 3 * heights * widths).max(initial=0))
            self._pixels = map_bytes(self.cache_dir / "pixels.bin", size)
        begin, height, width = (int(value) for value in self._where[number])
        if begin == DAMAGED:
            raise TinvError(read_manifest(self.cache_dir)["damaged"][os.fsdecode(self.files.names[number])])
        return self._pixels[begin : begin + height * width * 3].view(height, width, 3).permute(2, 0, 1)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_pixels": None, "_where": None}
