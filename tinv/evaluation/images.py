"""What `tinv measure` shows a network: images of a folder, with room for the shifts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files as package_files
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as T

from tinv.data.batching import DistributedBatchSampler
from tinv.data.file_batches import FileLoader, ImageDataset
from tinv.data.formats.images import ImageFiles, OnError, read_pixels, resize_and_center
from tinv.translation import CAMERA_SCALE, CANVASES, WINDOWS, ShiftMode


def class_numbers(folders: Sequence[str], classes: int) -> Tensor | None:
    """Returns the number that a network gives the class of each folder: (folders,), None if it cannot be told.

    Args:
        folders: Names of the class folders, sorted. As many as the network has classes: they are those, in this order.
            Fewer, but all synsets of ImageNet (`n01440764`), for a network of 1,000 classes: their places among them.
        classes: Classes of the network.
    """
    if len(folders) == classes:
        return torch.arange(classes)
    synsets = package_files("timm.data._info").joinpath("imagenet_synsets.txt").read_text().split()
    if classes != len(synsets) or not folders or not set(folders) <= set(synsets):
        return None
    return torch.tensor([synsets.index(name) for name in folders])


def short_name(files: ImageFiles, number: int) -> str:
    """Returns the path of an image in its folder; bytes that are no text are replaced, since JSON is text."""
    return os.fsdecode(files.names[number]).encode(errors="replace").decode()


@dataclass
class ImageLayout:
    """How an image is laid out: what the network sees is `size` pixels a side.

    Attributes:
        size: (H, W) in pixels.
        offset_range: The largest offset of a view.
        mode: `crop` keeps offset_range more pixels of the photograph, `camera` so many at twice the resolution, `zero`
            and `mean` lay a smaller one on a blank canvas, or on one of its mean colour.
        mean: Mean of each channel, subtracted from values in 0..1; blank is 0 afterwards.
        std: Standard deviation of each channel, divided by.
        resize: Pixels that the photograph's shorter side is scaled to, before its middle is cut out; None for as many
            as are kept.
    """

    size: tuple[int, int]
    offset_range: int
    mode: ShiftMode
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None

    @property
    def kept(self) -> tuple[int, int]:
        """Pixels (H, W) of the photograph that are kept."""
        more = self.offset_range if self.mode in WINDOWS else -self.offset_range if self.mode in CANVASES else 0
        scale = CAMERA_SCALE if self.mode == "camera" else 1
        return scale * (self.size[0] + more), scale * (self.size[1] + more)

    def lay_out(self, path: Path) -> Tensor:
        """Returns the middle of a photograph: (C, h, w) uint8."""
        side = max(self.resize or 0, *self.kept)
        pixels = resize_and_center(read_pixels(path, side), side, *self.kept)
        return T.rgb_to_grayscale(pixels) if len(self.mean) == 1 else pixels

    def normalize(self, images: Tensor) -> Tensor:
        """Returns images (N, C, H, W) as the network takes them, on their canvas; channels last in memory."""
        mean, std = (torch.tensor(v, device=images.device).view(1, -1, 1, 1) for v in (self.mean, self.std))
        made = ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
        if self.mode not in CANVASES:
            return made
        left, right = self.offset_range // 2, self.offset_range - self.offset_range // 2
        colour = made.mean(dim=(2, 3), keepdim=True) if self.mode == "mean" else 0
        return F.pad(made - colour, (right, left, right, left)) + colour

    def pixels(self, images: Tensor) -> Tensor:
        """Returns images (N, C, H, W) that `normalize` made as pictures, uint8; a blank canvas is the mean color."""
        mean, std = (torch.tensor(v, device=images.device).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return ((images.float() * std + mean) * 255).round().clamp(0, 255).byte()


@dataclass
class Photographs:
    """Batches of the images of some files.

    Attributes:
        files: Files to read.
        layout: How each is laid out.
        batch_size: Images a batch.
        workers: Processes that read.
        on_error: What a damaged file does.
        skipped: Paths of damaged files, once they were met.
        kept: All images, once they were asked for.
    """

    files: ImageFiles
    layout: ImageLayout
    batch_size: int
    workers: int
    on_error: OnError = "raise"
    skipped: set[str] = field(default_factory=set)
    kept: Tensor | None = field(default=None, repr=False)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the images' numbers."""
        return torch.float32

    @property
    def title(self) -> str:
        """What the images are called in messages."""
        return "the list of images" if self.files.folder == Path() else str(self.files.folder)

    @property
    def folders(self) -> tuple[str, ...]:
        """Names of the class folders; empty where there are none."""
        return self.files.classes

    @property
    def number_of_images(self) -> int:
        """How many images there are, damaged ones among them."""
        return len(self.files)

    def class_map(self, classes: int) -> Tensor | None:
        """Returns the number that a network of so many classes gives each folder; see `class_numbers`."""
        return class_numbers(self.folders, classes)

    def name_of(self, number: int) -> str:
        """Returns the path of an image."""
        return str(self.files.path(number))

    def short_name(self, number: int) -> str:
        """Returns the path of an image in the folder."""
        return short_name(self.files, number)

    def pixels(self, images: Tensor) -> Tensor:
        """Returns images (N, C, H, W) as `batches` yields them, as uint8."""
        return self.layout.pixels(images)

    def all(self, device: torch.device) -> Tensor:
        """Returns all images (N, C, H, W), read once."""
        if self.kept is None:
            self.kept = torch.cat([images for images, _, _ in self.batches(device)])
        return self.kept.to(device)

    def batches(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yields images as `ImageLayout.normalize` makes them, classes (N,) and numbers (N,)."""
        count = len(self.files)
        order = DistributedBatchSampler(count, self.batch_size, lambda: torch.arange(count), even=False)
        images = ImageDataset(self.files, self.layout.lay_out)
        for batch in FileLoader(images, order, self.workers, self.on_error, self.skipped):
            pixels = batch.image.to(device, non_blocking=True).permute(0, 3, 1, 2)
            yield self.layout.normalize(pixels), batch.target.to(device), batch.index.to(device)
