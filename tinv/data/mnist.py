"""MNIST and Fashion-MNIST from their raw IDX files."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinv.data.in_memory import ImageSet, InMemoryData, Splits, check_targets, data_root, missing, split_balanced
from tinv.errors import TinvError
from tinv.utils.io import read_bytes

IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049


class MNIST(InMemoryData):
    """Handwritten digits: 60,000 training and 10,000 test images, 28x28 grey, 10 classes, scaled to [0, 1] on black.

    Reads `ROOT/MNIST/raw/*-ubyte` (or `.gz`), the layout torchvision makes.

    Args:
        root: folder of data sets; None takes `$TINV_DATA`, else `data`.
        download: fetches the files (with torchvision) if they are not there.
        val_size: class-balanced number of training images kept for validation.
        train_size: class-balanced number of images to train on; None for all the rest.
        test_size: class-balanced number of test images; None for all.
        split_seed: of these choices; part of the data, not of the run's seed.
        canvas: side in pixels of the square of zeros around the image, 40 in Mouton et al. (2020).
        **kwargs: see InMemoryData.
    """

    num_classes = 10
    folder = "MNIST"

    def __init__(
        self,
        root: str | None = None,
        download: bool = False,
        val_size: int = 5000,
        train_size: int | None = None,
        test_size: int | None = None,
        split_seed: int = 0,
        canvas: int | None = 40,
        **kwargs: Any,
    ) -> None:
        super().__init__(canvas=canvas, **kwargs)
        self.root, self.download = data_root(root), download
        self.val_size, self.train_size, self.test_size, self.split_seed = val_size, train_size, test_size, split_seed

    def prepare_data(self) -> None:
        """Downloads what is missing, if asked to."""
        if self.download:
            fetch(self.folder, self.root)

    def load(self) -> Splits:
        """Reads the four files and cuts the sets."""
        folder = Path(self.root) / self.folder / "raw"
        train, test = (self._read(folder, part) for part in ("train", "t10k"))
        val, train = split_balanced(train, {"val_size": self.val_size, "train_size": self.train_size}, self.split_seed)
        [test] = split_balanced(test, {"test_size": self.test_size}, self.split_seed)
        return Splits(train, val, {"test": test})

    def _read(self, folder: Path, part: str) -> ImageSet:
        paths = [folder / f"{part}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
        found = [path if path.exists() else path.with_name(path.name + ".gz") for path in paths]
        for path, plain in zip(found, paths, strict=True):
            if not path.exists():
                raise missing(self.folder, [plain, f"{plain.name}.gz"], self.root)
        image, target = read_idx(found[0], IMAGES_MAGIC), read_idx(found[1], LABELS_MAGIC)
        if len(image) != len(target):
            raise TinvError(
                f"{found[0]} holds {len(image)} images, {found[1].name} {len(target)} labels; get both again"
            )
        return ImageSet(torch.from_numpy(image).unsqueeze(-1), check_targets(found[1], target, self.num_classes))


class FashionMNIST(MNIST):
    """Articles of clothing in MNIST's format: `ROOT/FashionMNIST/raw/*-ubyte`. See MNIST for the options."""

    folder = "FashionMNIST"


def read_idx(path: Path, magic: int) -> np.ndarray:
    """Reads an IDX file of bytes: a magic number, the sizes, the values, all integers big-endian.

    Args:
        path: of the file; `.gz` is unpacked.
        magic: 2051 for images, 2049 for labels.

    Returns:
        uint8 of shape (N, H, W) or (N,).

    Raises:
        TinvError: for another magic number or a length that is not what the sizes say.
    """
    try:
        raw = read_bytes(path)
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (EOFError, OSError, zlib.error) as error:
        raise TinvError(f"{path}: cannot be read ({error}); get the file again") from error
    found = int.from_bytes(raw[:4], "big")
    if found != magic:
        raise TinvError(f"{path}: magic number {found} where an IDX file has {magic}; get the file again")
    dims = magic & 0xFF
    start = 4 + 4 * dims
    sizes = [int.from_bytes(raw[at : at + 4], "big") for at in range(4, start, 4)]
    expected = start + math.prod(sizes)
    if len(raw) != expected:
        raise TinvError(f"{path}: truncated or damaged, {len(raw)} bytes where {expected} belong; get the file again")
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(sizes).copy()


def fetch(name: str, root: str) -> None:
    """Downloads a data set with the torchvision class of that name, or says in one line why that failed."""
    from torchvision import datasets

    try:
        for train in (True, False):
            getattr(datasets, name)(root, train=train, download=True)
    except (OSError, RuntimeError) as error:
        raise TinvError(
            f"{name} could not be downloaded to {root!r} ({error}); put its files there by hand and leave out download"
        ) from error
