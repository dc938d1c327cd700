"""Decoded images on disk, as bytes mapped into memory: read and resized once, for all epochs and runs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tinv.data.formats.cache_folder import MANIFEST, build_cache_dir, is_built
from tinv.data.formats.images import ImageFiles
from tinv.errors import TinvError
from tinv.utils.progress import progress

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

    @property
    def is_built(self) -> bool:
        """Whether it has been made."""
        return is_built(self.cache_dir)

    def build(self, workers: int = 0) -> None:
        """Reads and prepares every image; does nothing if the cache is there.

        Damaged files are remembered as such. What an interrupted build leaves is never taken for a cache.

        Args:
            workers: Number of processes that read.

        Raises:
            TinvError: If it cannot be written.
        """
        build_cache_dir(self.cache_dir, "an image cache", lambda folder: self._write(folder, workers))

    def _write(self, folder: Path, workers: int) -> None:
        with (folder / "pixels.bin").open("wb") as pixels:
            where, damaged = self._write_pixels(pixels, workers)
        np.save(folder / "where.npy", where)
        about = {"prepare": self.prepare.name, "folder": str(self.files.folder), "images": len(where)}
        (folder / MANIFEST).write_text(json.dumps({**about, "damaged": damaged}, indent=2) + "\n")

    def _write_pixels(self, pixels: BinaryIO, workers: int) -> tuple[np.ndarray, dict[str, str]]:
        where = np.empty((len(self.files), 3), dtype=np.int64)  # offset, height, width
        damaged, end = {}, 0
        images = progress(_prepared(self.files, self.prepare, workers), f"caching {self.files.folder}", len(self.files))
        for number, image in enumerate(images):
            if isinstance(image, str):
                damaged[os.fsdecode(self.files.names[number])] = image
                where[number] = DAMAGED
                continue
            where[number] = end, image.shape[0], image.shape[1]
            end += pixels.write(image.numpy().tobytes())
        return where, damaged

    def read(self, number: int) -> Tensor:
        """Returns an image (3, H, W) uint8, channels last in memory; not to be written to.

        Raises:
            TinvError: If the file was damaged.
        """
        if self._where is None or self._pixels is None:
            # mapped by each process for itself, which costs nothing; not shared, so that no one can change the file
            self._where = np.load(self.cache_dir / "where.npy")
            file = self.cache_dir / "pixels.bin"
            self._pixels = torch.from_file(str(file), shared=False, size=file.stat().st_size, dtype=torch.uint8)
        begin, height, width = (int(value) for value in self._where[number])
        if begin == DAMAGED:
            reasons = json.loads((self.cache_dir / MANIFEST).read_text())["damaged"]
            raise TinvError(reasons[os.fsdecode(self.files.names[number])])
        return self._pixels[begin : begin + height * width * 3].view(height, width, 3).permute(2, 0, 1)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_pixels": None, "_where": None}


class _Prepared(Dataset[Tensor | str]):
    def __init__(self, files: ImageFiles, prepare: Prepare) -> None:
        self.files, self.prepare = files, prepare

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Tensor | str:
        try:
            return self.prepare(self.files.path(number)).permute(1, 2, 0).contiguous()
        except TinvError as error:
            return str(error)


def _prepared(files: ImageFiles, prepare: Prepare, workers: int) -> Iterator[Tensor | str]:
    loader: DataLoader[Tensor | str] = DataLoader(_Prepared(files, prepare), batch_size=None, num_workers=workers)
    yield from loader
