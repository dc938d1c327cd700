"""MNIST and Fashion-MNIST from their raw IDX files."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinv.data.folders import data_not_found, fetch_archive
from tinv.data.in_memory import ImageSet, TrainTestData, check_targets
from tinv.deprecation import renamed
from tinv.errors import TinvError
from tinv.utils.arguments import PositiveInt
from tinv.utils.io import read_bytes

IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049


class MNIST(TrainTestData):
    """Handwritten digits: 60,000 training and 10,000 test images, 28x28 gray, 10 classes, scaled to [0, 1] on black.

    Reads `ROOT/MNIST/raw/*-ubyte` (or `.gz`), the layout torchvision makes.

    Args:
        root: Folder of data sets; None takes `$TINV_DATA`, else `data`.
        canvas_size: Side in pixels of the square of zeros around the image, 40 in Mouton et al. (2020).
        **kwargs: See TrainTestData.
    """

    num_classes = 10
    name = "MNIST"

    @renamed(canvas="canvas_size")
    def __init__(self, root: str | None = None, *, canvas_size: PositiveInt | None = 40, **kwargs: Any) -> None:
        super().__init__(root, canvas_size=canvas_size, **kwargs)

    def read(self) -> tuple[ImageSet, ImageSet]:
        """Reads the four files."""
        folder = Path(self.root) / self.name / "raw"
        return self._read(folder, "train"), self._read(folder, "t10k")

    def fetch(self) -> None:
        """Downloads and unpacks each of the four files that is there neither packed nor unpacked."""
        folder = Path(self.root) / self.name / "raw"
        for file, checksum in self.torchvision_class.resources:
            if not (folder / file).exists() and not (folder / file).with_suffix("").exists():
                fetch_archive([mirror + file for mirror in self.torchvision_class.mirrors], folder, checksum)

    def _read(self, folder: Path, part: str) -> ImageSet:
        paths = [folder / f"{part}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
        found = [path if path.exists() else path.with_name(path.name + ".gz") for path in paths]
        for path, plain in zip(found, paths, strict=True):
            if not path.exists():
                raise data_not_found(self.name, [plain, f"{plain.name}.gz"], self.root)
        image, target = read_idx(found[0], IMAGES_MAGIC), read_idx(found[1], LABELS_MAGIC)
        if len(image) != len(target):
            raise TinvError(
                f"{found[0]} holds {len(image)} images, {found[1].name} {len(target)} labels; get both again"
            )
        return ImageSet(torch.from_numpy(image).unsqueeze(-1), check_targets(found[1], target, self.num_classes))


class FashionMNIST(MNIST):
    """Articles of clothing in MNIST's format: `ROOT/FashionMNIST/raw/*-ubyte`. See MNIST for the options."""

    name = "FashionMNIST"


def read_idx(path: Path, magic: int) -> np.ndarray:
    """Reads an IDX file of bytes: a magic number, the sizes, the values, all integers big-endian.

    Args:
        path: Path of the file; `.gz` is unpacked.
        magic: 2051 for images, 2049 for labels.

    Returns:
        uint8 of shape (N, H, W) or (N,).

    Raises:
        TinvError: For another magic number or a length that is not what the sizes say.
    """
    packed, start = read_bytes(path), 4 + 4 * (magic & 0xFF)
    try:
        with gzip.open(io.BytesIO(packed)) if path.suffix == ".gz" else io.BytesIO(packed) as file:
            header = file.read(start)
            sizes = [int.from_bytes(header[at : at + 4], "big") for at in range(4, start, 4)]
            # no more than belongs there, whatever a damaged archive would unpack to; deflate packs 1032 to 1 at best
            values = file.read(min(math.prod(sizes), 1032 * len(packed)) + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise TinvError(f"{path}: cannot be read ({error}); get the file again") from error
    if (found := int.from_bytes(header[:4], "big")) != magic:
        raise TinvError(f"{path}: magic number {found} where an IDX file has {magic}; get the file again")
    if len(header) < start or 0 in sizes:
        raise TinvError(f"{path}: truncated or damaged, it holds a header alone; get the file again")
    if len(values) != (expected := math.prod(sizes)):
        there = "more" if len(values) > expected else f"{start + len(values)}"
        raise TinvError(
            f"{path}: truncated or damaged, {there} bytes where {start + expected} belong; get the file again"
        )
    return np.frombuffer(values, dtype=np.uint8).reshape(sizes).copy()
