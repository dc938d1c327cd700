"""Where the images of a measurement come from: a folder, a list of files, a tensor, or a data loader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from tinv.data.formats.images import ImageFiles, OnError, find_images, image_files, subsample_evenly
from tinv.errors import TinvError
from tinv.evaluation.image_checks import Size, check_images, check_shifts, size_text, view_size
from tinv.evaluation.images import ImageLayout, class_numbers, short_name
from tinv.evaluation.transformed_files import Transform, transformed_batches
from tinv.metrics.views import UNLABELLED
from tinv.translation import CANVASES, ShiftMode

Images = str | Path | Sequence[str | Path] | Tensor | tuple[Tensor, Tensor] | Iterable[Any]
"""A folder, a list of paths, images (N, C, H, W), those with their classes (N,), or batches."""

Numbered = tuple[Tensor, Tensor, Tensor]
"""Images (N, C, H, W), classes (N,), -1 where they are not known, and sample indices (N,)."""


class ImageSource(Protocol):
    """What a measurement asks of its images.

    Attributes:
        layout: Size of what the network sees, and how images may be moved.
        skipped: Paths of damaged files, once they were met.
    """

    layout: ImageLayout
    skipped: set[str]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the images' numbers."""

    @property
    def title(self) -> str:
        """What the images are called in messages."""

    @property
    def folders(self) -> tuple[str, ...]:
        """Names of the class folders; empty where there are none."""

    @property
    def number_of_images(self) -> int | None:
        """How many images there are, damaged ones among them; None if that is not known."""

    def class_map(self, classes: int) -> Tensor | None:
        """Returns the network's class of each target, of so many classes; None without labels."""

    def name_of(self, number: int) -> str:
        """Returns what an image is called in messages."""

    def short_name(self, number: int) -> str:
        """Returns what an image is called in tables: its path in the folder, if it has one."""

    def pixels(self, images: Tensor) -> Tensor:
        """Returns images (N, C, H, W) as people see them, uint8."""

    def batches(self, device: torch.device) -> Iterator[Numbered]:
        """Yields all images in order."""


@dataclass
class GivenImages:
    """Batches of images that are as the network takes them, with the room that the shifts need.

    Attributes:
        layout: Size of what the network sees, and how images may be moved.
        title: What the images are called in messages.
        given: The batches, which are read once.
        shape: (C, H, W) of the images.
        dtype: Type of the images' numbers.
        number_of_images: How many there are, damaged ones among them; None if that is not known.
        files: The files that they come from, if any.
        skipped: Paths of damaged files, once they were met.
    """

    layout: ImageLayout
    title: str
    given: Iterable[Numbered]
    shape: tuple[int, ...]
    dtype: torch.dtype
    number_of_images: int | None = None
    files: ImageFiles | None = None
    skipped: set[str] = field(default_factory=set)

    @property
    def folders(self) -> tuple[str, ...]:
        """Names of the class folders that the files lie in."""
        return () if self.files is None else self.files.classes

    def class_map(self, classes: int) -> Tensor | None:
        """Returns the network's class of each class folder, else the classes themselves, which are the network's."""
        if self.files is not None:
            return class_numbers(self.folders, classes)
        return torch.arange(classes)

    def name_of(self, number: int) -> str:
        """Returns the path of a file, else the number of the image."""
        return f"image {number}" if self.files is None else str(self.files.path(number))

    def short_name(self, number: int) -> str:
        """Returns the path of a file in its folder, else the number of the image."""
        return f"image {number}" if self.files is None else short_name(self.files, number)

    def pixels(self, images: Tensor) -> Tensor:
        """Returns images (N, C, H, W) as uint8, each from its smallest number to its largest: how they were normalised
        is not known.
        """
        low, high = (values[:, None, None, None] for values in images.flatten(1).aminmax(dim=1))
        return (255 * (images - low) / (high - low).clamp(min=1e-12)).round().to(torch.uint8)

    def batches(self, device: torch.device) -> Iterator[Numbered]:
        """Yields all images in order.

        Raises:
            TinvError: For images that are no float tensor of one size, or leave no room for the shifts.
        """
        for images, targets, index in self.given:
            check_images(images, self.title)
            if tuple(images.shape[1:]) != self.shape:
                raise TinvError(
                    f"{self.name_of(int(index[0]))} of {self.title} is {size_text(images.shape[1:])}, the images "
                    f"before it are {size_text(self.shape)}; all have to be of one size"
                )
            self._check_canvas(images, index)
            yield images.to(device), targets.to(device), index.to(device)

    def _check_canvas(self, images: Tensor, index: Tensor) -> None:
        """Refuses content that would leave a zero canvas: a view would then hold less than another."""
        if self.layout.mode not in CANVASES:
            return
        margin = self.layout.offset_range - self.layout.offset_range // 2
        if self.layout.mode == "mean":
            # a canvas of one colour, which is 0 once it is taken off
            images = (images - images[..., :1, :1]).where((images - images[..., :1, :1]).abs() > 1e-6, 0)
        inside = images[..., margin : images.shape[-2] - margin, margin : images.shape[-1] - margin]
        cut = images.ne(0).sum((1, 2, 3)) != inside.ne(0).sum((1, 2, 3))
        if bool(cut.any()):
            canvas = "zeros" if self.layout.mode == "zero" else "one color"
            raise TinvError(
                f"{self.name_of(int(index[cut.to(index.device)][0]))} of {self.title} has content in its outer "
                f"{margin} pixels, which mode {self.layout.mode} with offset_range {self.layout.offset_range} would "
                f"move out of the image; pad the images with {margin} pixels of {canvas} a side, or use mode circular"
            )


def find_files(images: str | Path | Sequence[str | Path], max_images: int | None) -> ImageFiles:
    """Returns the files of a folder or a list, at most so many, evenly spread.

    Raises:
        TinvError: For a folder without images, or an empty list.
    """
    if isinstance(images, str | Path):
        files = find_images(Path(images))
    else:
        if not images:
            raise TinvError("images is an empty list; name at least one file")
        files = image_files(Path(), [str(path) for path in images], [UNLABELLED] * len(images), ())
    return files if max_images is None else subsample_evenly(files, max_images)


def is_files(images: object) -> bool:
    """Returns whether images are a folder or a list of paths."""
    if isinstance(images, str | Path):
        return True
    return isinstance(images, list | tuple) and all(isinstance(path, str | Path) for path in images)


def given_images(
    images: Any,
    size: Size | None,
    mode: ShiftMode,
    offset_range: int,
    max_images: int | None,
    batch_size: int,
    step: int = 4,
) -> GivenImages:
    """Returns the images of a tensor, a pair of images and classes, or an iterable of batches.

    Args:
        images: The images.
        size: (H, W) that the network sees; None for that of the images.
        mode: How images are moved.
        offset_range: Views lie at offsets of 0 to so many pixels.
        max_images: Of a tensor spread evenly, of batches the first; None for all.
        batch_size: Images a batch, of a tensor.
        step: Pixels of which offset_range has to be a multiple.

    Raises:
        TinvError: For what holds no images, or leaves no room for the shifts.
    """
    title = "the data loader"
    if _is_pair(images):
        images, targets = images
        if len(images) != len(targets):
            raise TinvError(f"there are {len(images)} images and {len(targets)} classes; give one for each")
        title = "the tensor of images"
        batches = _split(images, targets, max_images, batch_size)
    elif isinstance(images, Tensor):
        title = "the tensor of images"
        check_images(images, title)
        batches = _split(images, None, max_images, batch_size)
    elif isinstance(images, Iterable):
        batches = _numbered(images, title, max_images)
    else:
        raise TinvError(
            f"images is a {type(images).__name__}; give a folder, a list of paths, a tensor (N, C, H, W), or batches"
        )
    first = next(batches, None)
    if first is None:
        raise TinvError(f"{title} holds no image")
    check_images(first[0], title)
    count = _number_of_images(images, len(first[0]), max_images)
    return _source(title, first, batches, size, mode, offset_range, count, step)


def _number_of_images(images: Any, batch_size: int, most: int | None) -> int | None:
    """Returns how many images a tensor or a loader holds, of a loader at most; None if that is not known."""
    try:
        count = len(images) * (1 if isinstance(images, Tensor) else batch_size)
    except TypeError:  # no length, or the loader of an IterableDataset
        return None
    return count if most is None else min(count, most)


def transformed_images(
    files: ImageFiles,
    transform: Transform,
    size: Size | None,
    mode: ShiftMode,
    offset_range: int,
    batch_size: int,
    workers: int,
    on_error: OnError,
    step: int = 4,
) -> GivenImages:
    """Returns the images of files as a transform of the user's own lays them out.

    Args:
        files: Files to read.
        transform: Takes a PIL image (RGB, upright) and returns a float tensor (C, h, w).
        size: (H, W) that the network sees; None for that of what the transform returns.
        mode: How images are moved.
        offset_range: Views lie at offsets of 0 to so many pixels.
        batch_size: Images a batch.
        workers: Processes that read.
        on_error: What a damaged file does.
        step: Pixels of which offset_range has to be a multiple.

    Raises:
        TinvError: For a transform that returns no image, or leaves no room for the shifts.
    """
    skipped: set[str] = set()
    batches = transformed_batches(files, transform, batch_size, workers, on_error, skipped)
    title = "the transformed images"
    first = next(batches)
    found = _source(title, first, batches, size, mode, offset_range, len(files), step)
    found.files, found.skipped = files, skipped
    return found


def _source(
    title: str,
    first: Numbered,
    rest: Iterator[Numbered],
    size: Size | None,
    mode: ShiftMode,
    offset_range: int,
    count: int | None,
    step: int,
) -> GivenImages:
    shape = tuple(first[0].shape[1:])
    size = view_size(shape, size, mode, offset_range)
    check_shifts(size, mode, offset_range, step)
    layout = ImageLayout(size, offset_range, mode, (0.0,) * shape[0], (1.0,) * shape[0])
    return GivenImages(layout, title, chain([first], rest), shape, first[0].dtype, count)


def _is_pair(images: Any) -> bool:
    is_two = isinstance(images, tuple) and len(images) == 2 and all(isinstance(part, Tensor) for part in images)
    return is_two and images[0].dim() == 4 and images[1].dim() == 1


def _split(images: Tensor, targets: Tensor | None, max_images: int | None, size: int) -> Iterator[Numbered]:
    total = len(images)
    index = torch.arange(total)
    if max_images is not None and max_images < total:
        # which images, not how they are numbered: shifts follow the place among those that are measured
        index = torch.tensor([number * total // max_images for number in range(max_images)])
    for numbers in torch.split(torch.arange(len(index)), size) if len(index) else ():  # of nothing it gives one piece
        taken = index[numbers]
        yield images[taken], _classes(None if targets is None else targets[taken], len(taken)), numbers


def _numbered(batches: Iterable[Any], title: str, max_images: int | None) -> Iterator[Numbered]:
    """Yields batches with the place of each image in the order in which they come."""
    seen = 0
    for batch in batches:
        parts = list(batch) if isinstance(batch, list | tuple) else [batch]
        if not parts:
            raise TinvError(f"{title} holds an empty batch; batches are images, or (images, classes, ...)")
        check_images(parts[0], title)
        most = len(parts[0]) if max_images is None else min(len(parts[0]), max_images - seen)
        if most:
            targets = parts[1] if len(parts) > 1 else None
            yield parts[0][:most], _classes(targets, len(parts[0]))[:most], torch.arange(seen, seen + most)
        seen += most
        if seen == max_images:
            return


def _classes(targets: Any, count: int) -> Tensor:
    """Returns classes (N,), -1 where there are none."""
    if targets is None:
        return torch.full((count,), UNLABELLED)
    if not isinstance(targets, Tensor) or targets.dim() != 1 or targets.is_floating_point() or len(targets) != count:
        what = f"a tensor {tuple(targets.shape)}" if isinstance(targets, Tensor) else f"a {type(targets).__name__}"
        raise TinvError(
            f"the targets of a batch of {count} images are {what}, not class numbers ({count},); leave them out of the "
            "batch to measure without labels"
        )
    return targets.long().cpu()
