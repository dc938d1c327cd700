"""Image files in folders: which there are, of which class, and how each is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from tinv.errors import TinvError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")

OnError = Literal["raise", "skip"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the red, green and blue channel of ImageNet's training images, in 0..1: what its networks are trained with."""


@dataclass(frozen=True)
class ImageFiles:
    """Image files, in the order of their paths.

    Attributes:
        folder: that was looked through.
        paths: of the files.
        targets: class numbers, -1 where there are no classes.
        classes: names of the class folders, in order; empty for a flat folder.
    """

    folder: Path
    paths: tuple[Path, ...]
    targets: tuple[int, ...]
    classes: tuple[str, ...]


def find_images(folder: Path) -> ImageFiles:
    """Finds the images of a folder of class folders, or of a flat one, whose images have no class.

    Raises:
        TinvError: if the folder is not there, holds no image, or a class folder is empty.
    """
    if not folder.is_dir():
        raise TinvError(f"no folder of images {folder}")
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    flat = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if flat or not classes:
        if not flat:
            raise TinvError(f"{folder} holds no images ({', '.join(SUFFIXES)}) and no class folders")
        return ImageFiles(folder, tuple(flat), (-1,) * len(flat), ())
    paths, targets = [], []
    for number, place in enumerate(classes):
        found = sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not found:
            raise TinvError(f"the class folder {place} holds no images")
        paths += found
        targets += [number] * len(found)
    return ImageFiles(folder, tuple(paths), tuple(targets), tuple(path.name for path in classes))


def spread(files: ImageFiles, count: int) -> ImageFiles:
    """Returns as many files as asked for, at even distances in the list; all if there are no more."""
    total = len(files.paths)
    if count >= total:
        return files
    picked = [number * total // count for number in range(count)]
    return replace(files, paths=tuple(files.paths[n] for n in picked), targets=tuple(files.targets[n] for n in picked))


def read_image(path: Path, shorter_side: int | None = None) -> Image.Image:
    """Reads a file as RGB: greyscale, palette, CMYK and transparent images are converted.

    Args:
        path: of the file.
        shorter_side: pixels; a JPEG much larger than that is decoded at half, a quarter or an eighth of its size.

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
                return Image.alpha_composite(on_black, file.convert("RGBA")).convert("RGB")
            return file.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise TinvError(f"{path} cannot be read as an image ({error})") from error


class ImageDataset(Dataset[tuple[Tensor, int, int]]):
    """Images of files, transformed: (image, class, number in the list).

    Args:
        files: to read.
        transform: from a PIL image to a tensor.
        shorter_side: see read_image.
        on_error: `skip` gives an empty tensor for a damaged file instead of raising.
    """

    def __init__(
        self,
        files: ImageFiles,
        transform: Callable[[Image.Image], Tensor],
        shorter_side: int | None = None,
        on_error: OnError = "raise",
    ) -> None:
        self.files, self.transform, self.shorter_side, self.on_error = files, transform, shorter_side, on_error

    def __len__(self) -> int:
        return len(self.files.paths)

    def __getitem__(self, number: int) -> tuple[Tensor, int, int]:
        try:
            image = self.transform(read_image(self.files.paths[number], self.shorter_side))
        except TinvError:
            if self.on_error == "raise":
                raise
            image = torch.empty(0)
        return image, self.files.targets[number], number


def collate(samples: Sequence[tuple[Tensor, int, int]]) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Returns images (N, C, H, W), classes (N,), numbers (N,), and the numbers of files that were skipped."""
    good = [sample for sample in samples if sample[0].numel()]
    skipped = [number for image, _, number in samples if not image.numel()]
    images = torch.stack([image for image, _, _ in good]) if good else torch.empty(0)
    return images, torch.tensor([s[1] for s in good]), torch.tensor([s[2] for s in good]), skipped
