"""Image files in folders: which there are, of which class, and how each is read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as T

from tinv.data.in_memory import data_root
from tinv.errors import TinvError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")

OnError = Literal["raise", "skip"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the red, green and blue channel of ImageNet's training images, in 0..1: what its networks are trained with."""


@dataclass(frozen=True)
class ImageFiles:
    """Image files of a folder, in the order of classes and names.

    Attributes:
        folder: that they are in.
        names: (N,) bytes, relative to the folder. An array, since a million path objects would be copied page by page
            into every process that reads.
        targets: (N,) int64 class numbers, -1 where there are no classes.
        classes: names of the class folders, in order; empty for a flat folder.
    """

    folder: Path
    names: NDArray[np.bytes_]
    targets: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def path(self, number: int) -> Path:
        """Returns where an image is."""
        return self.folder / os.fsdecode(self.names[number])

    def take(self, numbers: Sequence[int] | NDArray[np.int64]) -> ImageFiles:
        """Returns the images with the given numbers."""
        return replace(self, names=self.names[numbers], targets=self.targets[numbers])

    def listed(self) -> str:
        """Returns the names, one a line, as a list file holds them."""
        return "".join(f"{os.fsdecode(name)}\n" for name in self.names)

    def sha256(self) -> str:
        """Returns the checksum of that list: which images these are."""
        return hashlib.sha256(self.listed().encode("utf-8", "surrogateescape")).hexdigest()

    def fingerprint(self) -> str:
        """Returns a checksum of the folder and of the files' names, sizes and times of change.

        Raises:
            TinvError: if a file is not there.
        """
        key = hashlib.sha256(f"{self.folder.resolve()}\n".encode())
        for number, name in enumerate(self.names):
            try:
                facts = self.path(number).stat()
            except OSError as error:
                raise TinvError(f"{self.path(number)} cannot be read ({error.strerror})") from error
            key.update(bytes(name) + f" {facts.st_size} {facts.st_mtime_ns}\n".encode())
        return key.hexdigest()


def image_files(folder: Path, names: Sequence[str], targets: Sequence[int], classes: Sequence[str]) -> ImageFiles:
    """Returns an ImageFiles of names (relative to the folder) and class numbers."""
    encoded = np.array([os.fsencode(name) for name in names], dtype=np.bytes_)
    return ImageFiles(folder, encoded, np.array(targets, dtype=np.int64), tuple(classes))


def find_images(folder: Path, classes: Sequence[str] | None = None) -> ImageFiles:
    """Finds the images of a folder of class folders, or of a flat one, whose images have no class.

    Args:
        folder: to look through.
        classes: names of the class folders to take, in order of class numbers; None for all there are, sorted.

    Raises:
        TinvError: if the folder or a class is not there, it holds no image, or a class folder is empty.
    """
    if not folder.is_dir():
        raise TinvError(f"no folder of images {folder}")
    with os.scandir(folder) as entries:
        inside = sorted(entries, key=lambda entry: entry.name)
    there = [entry.name for entry in inside if entry.is_dir() and not entry.name.startswith(".")]
    if classes is None:
        flat = [entry.name for entry in inside if _is_image(entry.name)]
        if flat or not there:
            if not flat:
                raise TinvError(f"{folder} holds no images ({', '.join(SUFFIXES)}) and no class folders")
            return image_files(folder, flat, [-1] * len(flat), ())
        classes = there
    if absent := sorted(set(classes) - set(there)):
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise TinvError(f"{folder} has no class folder {', '.join(absent[:3])}{more}")
    names: list[str] = []
    targets: list[int] = []
    for number, name in enumerate(classes):
        found = _images_below(folder, name)
        if not found:
            raise TinvError(f"the class folder {folder / name} holds no images")
        names += found
        targets += [number] * len(found)
    return image_files(folder, names, targets, classes)


def photographs_folder(root: str) -> Path:
    """Returns a folder of photographs: as named, or in the folder of data sets.

    Raises:
        TinvError: if it is in neither place.
    """
    for folder in (Path(root), Path(data_root(None)) / root):
        if folder.is_dir():
            return folder
    raise TinvError(
        f"no folder of photographs {root}; name one with --data.init_args.root=DIR (relative to the working folder or "
        f"to TINV_DATA, now {data_root(None)!r})"
    )


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _images_below(folder: Path, name: str) -> list[str]:
    found = []
    for place, _, files in os.walk(folder / name):
        inside = os.path.relpath(place, folder)
        found += [f"{inside}/{file}" for file in files if _is_image(file)]
    return sorted(found)


def spread(files: ImageFiles, count: int) -> ImageFiles:
    """Returns as many files as asked for, at even distances in the list; all if there are no more."""
    total = len(files)
    return files if count >= total else files.take([number * total // count for number in range(count)])


def read_pixels(path: Path, shorter_side: int | None = None) -> Tensor:
    """Reads a file as red, green and blue: greyscale, palette, CMYK and transparent images are converted.

    Args:
        path: of the file.
        shorter_side: pixels wanted; a JPEG much larger than that is decoded at half, a quarter or an eighth of them.

    Returns:
        (3, H, W) uint8, channels last in memory.

    Raises:
        TinvError: if it is no image, or damaged.
    """
    try:
        with Image.open(path) as file:
            if shorter_side is not None:
                # never below twice what is wanted, so that the resizing that follows still averages
                file.draft("RGB", (2 * shorter_side, 2 * shorter_side))
            if file.mode in ("RGBA", "LA", "PA") or "transparency" in file.info:
                on_black = Image.new("RGBA", file.size, (0, 0, 0, 255))
                image = Image.alpha_composite(on_black, file.convert("RGBA")).convert("RGB")
            else:
                image = file.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).partition(" '")[0]
        raise TinvError(f"{path} cannot be read as an image ({reason})") from error
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def resize(pixels: Tensor, height: int, width: int) -> Tensor:
    """Returns (3, height, width) bytes of an image (3, H, W): bilinear, averaging where it shrinks."""
    # on bytes themselves: torchvision's resize goes by way of floats on processors with AVX512, 3 times as slow
    # rows first, so that torch sees that the channels come last, and keeps them so
    batch = pixels.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
    return F.interpolate(batch, (height, width), mode="bilinear", antialias=True)[0]


def resize_shorter(pixels: Tensor, side: int) -> Tensor:
    """Returns (3, H, W) bytes resized to a shorter side of so many pixels."""
    height, width = pixels.shape[1:]
    if height <= width:
        return resize(pixels, side, int(side * width / height))
    return resize(pixels, int(side * height / width), side)


def centre(pixels: Tensor, height: int, width: int) -> Tensor:
    """Returns the middle (3, height, width) of an image, black where it is smaller."""
    middle: Tensor = T.center_crop(pixels, [height, width])
    return middle
