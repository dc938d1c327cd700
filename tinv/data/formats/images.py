"""Image files in folders: which there are, of which class, and how each is read."""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2.functional import center_crop as torch_center_crop

from tinv.errors import TinvError
from tinv.utils.io import reading, regular
from tinv.utils.progress import progress

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")

NO_DATA = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__pycache__"}
"""Folders that other programs leave behind; like hidden ones they hold no data."""

# what is wrong with a file is said by an error that names it
warnings.filterwarnings("ignore", module=r"PIL\.")

OnError = Literal["raise", "skip"]
T = TypeVar("T")

MOST_ENLARGED = 4
"""An image whose longer side would become more than so many times what is kept of it is cut before it is enlarged."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the red, green and blue channel of ImageNet's training images, in 0..1: what its networks are trained with."""


@dataclass(frozen=True)
class ImageFiles:
    """Image files of a folder, in the order of classes and names.

    Attributes:
        folder: Folder that they are in.
        names: File names (N,), bytes, relative to the folder. An array, since a million path
            objects would be copied page by page into every process that reads.
        targets: Class numbers (N,), int64, -1 where there are no classes.
        classes: Names of the class folders, in order; empty for a flat folder.
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
        return hashlib.sha256(os.fsencode(self.listed())).hexdigest()

    def fingerprint(self) -> str:
        """Returns a checksum of the folder and of the files' names, sizes and times of change."""
        key = hashlib.sha256(os.fsencode(f"{self.folder.resolve()}\n"))
        for number, name in enumerate(self.names):
            try:
                found = self.path(number).stat()
                about = f"{found.st_size} {found.st_mtime_ns}"
            except OSError:
                about = "unreadable"  # an error, or left out, where it is read
            key.update(bytes(name) + f" {about}\n".encode())
        return key.hexdigest()


def image_files(folder: Path, names: Sequence[str], targets: Sequence[int], classes: Sequence[str]) -> ImageFiles:
    """Returns an ImageFiles of names (relative to the folder) and class numbers."""
    encoded = np.array([os.fsencode(name) for name in names], dtype=np.bytes_)
    return ImageFiles(folder, encoded, np.array(targets, dtype=np.int64), tuple(classes))


def find_images(folder: Path, classes: Sequence[str] | None = None) -> ImageFiles:
    """Finds the images of a folder of class folders, or of a flat one, whose images have no class.

    Hidden files and folders, and those that other programs leave behind, hold no data.

    Args:
        folder: Folder to look through.
        classes: Names of the class folders to take, in order of class numbers; None for all there are, sorted.

    Raises:
        TinvError: If the folder or a class is not there or cannot be read, it holds no image, a class folder is empty,
            or images lie beside class folders that hold images too.
    """
    there, flat = _entries(folder)
    if classes is None:
        if flat and (full := next((name for name in there if _images_below(folder, name)), None)) is not None:
            raise TinvError(
                f"{folder} holds images ({flat[0]}) and folders of images ({full}): it is not clear whether the "
                "folders are classes; move the images into folders, or elsewhere"
            )
        if flat or not there:
            if not flat:
                raise TinvError(f"{folder} holds no images ({', '.join(SUFFIXES)}) and no class folders")
            return image_files(folder, flat, [-1] * len(flat), ())
        classes = there
    if absent := sorted(set(classes) - set(there)):
        raise TinvError(f"{folder} has no class folder {first_few(absent)}")
    names: list[str] = []
    targets: list[int] = []
    for number, name in enumerate(classes):
        found = _images_below(folder, name)
        if not found:
            raise TinvError(f"the class folder {folder / name} holds no images")
        names += found
        targets += [number] * len(found)
    return image_files(folder, names, targets, classes)


def first_few(names: Sequence[str]) -> str:
    """Returns the first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def class_folders(folder: Path) -> list[str]:
    """Returns the names of the class folders of a folder, sorted.

    Raises:
        TinvError: If the folder is not there or cannot be read.
    """
    return _entries(folder)[0]


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Returns the names of the folders and of the images in a folder, each sorted."""
    if not folder.is_dir():
        raise TinvError(f"no folder of images {folder}")
    with reading(folder, "a folder of images"):
        # links that lead nowhere are no folders
        inside = [(name, (folder / name).is_dir()) for name in sorted(os.listdir(folder))]
    return (
        [name for name, is_folder in inside if is_folder and _holds_data(name)],
        [name for name, is_folder in inside if not is_folder and _is_image(name)],
    )


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _holds_data(name: str) -> bool:
    return not name.startswith(".") and name not in NO_DATA


def _images_below(folder: Path, name: str) -> list[str]:
    def refuse(error: OSError) -> None:
        raise TinvError(f"{error.filename} cannot be read ({error.strerror})") from error

    found = []
    for parent, folders, files in os.walk(folder / name, onerror=refuse):
        folders[:] = [inner for inner in folders if _holds_data(inner)]
        inside = os.path.relpath(parent, folder)
        found += [f"{inside}/{file}" for file in files if _is_image(file)]
    return sorted(found)


def shuffled_class(files: ImageFiles, number: int, seed: int) -> NDArray[np.int64]:
    """Returns which files are of a class, in an order drawn by a seed.

    The order is the same whichever other classes there are.

    Args:
        files: Files to look through.
        number: Number of the class.
        seed: Seed of the order.
    """
    own = np.flatnonzero(files.targets == number)
    return own[np.random.default_rng([seed, *os.fsencode(files.classes[number])]).permutation(len(own))]


def subsample_evenly(files: ImageFiles, count: int) -> ImageFiles:
    """Returns at most `count` files, at even distances in the list."""
    total = len(files)
    return files if count >= total else files.take([number * total // count for number in range(count)])


class _FileReader(Dataset[Any]):
    def __init__(self, files: ImageFiles, read: Callable[[Path], Any]) -> None:
        self.files, self.read = files, read

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Any:
        try:
            return self.read(self.files.path(number))
        except TinvError as error:
            return str(error)


def read_all(files: ImageFiles, read: Callable[[Path], T], workers: int, what: str) -> Iterable[T | str]:
    """Returns what every file comes to, in order, or the reason why it cannot be read; shows a progress bar.

    Args:
        files: Files to read.
        read: Function that reads a file.
        workers: Number of processes that read.
        what: What is done, such as "caching", for the progress bar.
    """
    loader: DataLoader[Any] = DataLoader(_FileReader(files, read), batch_size=None, num_workers=workers)
    return progress(loader, f"{what} {files.folder}", len(files))


def read_pixels(path: Path, shorter_side: int | None = None) -> Tensor:
    """Reads a file as red, green and blue, upright: grayscale, palette, CMYK and transparent images are converted.

    The orientation that a camera notes in EXIF is applied, so that networks see what people see (torchvision's
    ImageFolder ignores it). Of 16 bits a channel the upper 8 are kept; floats are taken to lie in 0..1.

    Args:
        path: Path of the file.
        shorter_side: Shorter side wanted, in pixels; a JPEG much larger than that is decoded at half, a quarter
            or an eighth of it.

    Returns:
        (3, H, W) uint8, channels last in memory.

    Raises:
        TinvError: If it is no image, is damaged, is no regular file, or holds numbers whose range is not known.
    """
    with reading(path, "an image"), Image.open(regular(path)) as file:
        if shorter_side is not None:
            # never below twice what is wanted, so that the resizing that follows still averages
            file.draft("RGB", (2 * shorter_side, 2 * shorter_side))
        file.load()
        # damaged EXIF is no damage of the pixels
        with contextlib.suppress(Exception):
            ImageOps.exif_transpose(file, in_place=True)
        image: Image.Image = _eight_bits(path, file)
        if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
            on_black = Image.new("RGBA", image.size, (0, 0, 0, 255))
            image = Image.alpha_composite(on_black, image.convert("RGBA"))
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def image_size(path: Path) -> tuple[int, int]:
    """Returns the height and width in pixels that `read_pixels` gives a file, from its header alone.

    Raises:
        TinvError: If it is no image, or is no regular file.
    """
    with reading(path, "an image"), Image.open(regular(path)) as file:
        width, height = file.size
        orientation = 1
        with contextlib.suppress(Exception):
            orientation = file.getexif().get(ExifTags.Base.Orientation, 1)
        return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def _eight_bits(path: Path, image: Image.Image) -> Image.Image:
    """Returns an image of more than 8 bits a pixel and one channel as gray (Pillow would clip at 255), others as is."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    if image.mode == "F":
        if not ((values >= 0) & (values <= 1)).all():
            raise TinvError(f"{path} holds floats outside of 0..1, whose range is not known; save it with 8 or 16 bits")
        gray = values * 255.0
    elif image.mode == "I" and image.format not in ("PNG", "PPM"):
        raise TinvError(f"{path} holds 32-bit integers, whose range is not known; save it with 8 or 16 bits")
    else:
        gray = values / 257
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        gray = np.where(values == transparent, 0, gray)
    return Image.fromarray(gray.round().clip(0, 255).astype(np.uint8))


def resize(pixels: Tensor, height: int, width: int) -> Tensor:
    """Returns (3, height, width) bytes of an image (3, H, W): bilinear, averaging where it shrinks."""
    # on bytes themselves: torchvision's resize goes by way of floats on processors with AVX512, 3 times as slow
    # rows first, so that torch sees that the channels come last, and keeps them so
    batch = pixels.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
    return F.interpolate(batch, (height, width), mode="bilinear", antialias=True)[0]


def resize_shorter(pixels: Tensor, side: int) -> Tensor:
    """Returns (3, H, W) bytes resized to a shorter side of so many pixels."""
    return resize(pixels, *size_with_shorter(pixels, side))


def size_with_shorter(pixels: Tensor, side: int) -> tuple[int, int]:
    """Returns (height, width) of an image (3, H, W) whose shorter side is resized to so many pixels."""
    height, width = pixels.shape[1:]
    return (side, int(side * width / height)) if height <= width else (int(side * height / width), side)


def resize_and_center(pixels: Tensor, side: int, height: int, width: int) -> Tensor:
    """Returns the middle (3, height, width) of an image (3, H, W) resized to a shorter side of so many pixels.

    Of very long images only the middle is enlarged, which gives the same pixels, to rounding, in much less memory.
    """
    resized = size_with_shorter(pixels, side)
    if min(pixels.shape[1:]) < side and max(resized) > MOST_ENLARGED * max(side, height, width):
        pixels = _enlarged_middle(pixels.float(), 1, resized[0], height)
        pixels = _enlarged_middle(pixels, 2, resized[1], width).round().byte()
        return center_crop(pixels.permute(1, 2, 0).contiguous().permute(2, 0, 1), height, width)
    return center_crop(resize(pixels, *resized), height, width)


def _enlarged_middle(pixels: Tensor, axis: int, size: int, kept: int) -> Tensor:
    """Returns the middle `kept` pixels of an axis that is enlarged to `size`, bilinear; all if there are no more."""
    kept = min(kept, size)
    # where torchvision's center_crop begins
    positions = torch.arange(kept, dtype=torch.float64) + round((size - kept) / 2)
    length = pixels.shape[axis]
    positions = ((positions + 0.5) * length / size - 0.5).clamp(0, length - 1)
    before = positions.long()
    share = (positions - before).float().view(-1, *[1] * (2 - axis))
    after = (before + 1).clamp(max=length - 1)
    return torch.lerp(pixels.index_select(axis, before), pixels.index_select(axis, after), share)


def center_crop(pixels: Tensor, height: int, width: int) -> Tensor:
    """Returns the middle (3, height, width) of an image, black where it is smaller."""
    middle: Tensor = torch_center_crop(pixels, [height, width])
    return middle
