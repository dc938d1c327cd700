"""What `tinv measure` shows a network: images of a folder, with room for the shifts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional as T

from tinv.data.image_files import ImageDataset, ImageFiles, OnError, collate
from tinv.metrics.views import Motion


@dataclass
class Room:
    """How an image is laid out: what the network sees is `size` pixels a side.

    Attributes:
        size: (H, W) in pixels.
        max_shift: the largest offset of a view.
        motion: `crop` keeps max_shift more pixels of the photograph, `zero` lays a smaller one on a blank canvas.
        mean: of each channel, subtracted from values in 0..1; blank is 0 afterwards.
        std: of each channel, divided by.
    """

    size: tuple[int, int]
    max_shift: int
    motion: Motion
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def kept(self) -> tuple[int, int]:
        """Pixels (H, W) of the photograph that are kept."""
        more = {"crop": self.max_shift, "zero": -self.max_shift, "circular": 0}[self.motion]
        return self.size[0] + more, self.size[1] + more

    def lay_out(self, image: Image.Image) -> Tensor:
        """Returns the middle of a photograph, its shorter side as long as what is kept: (C, h, w) uint8."""
        pixels = T.pil_to_tensor(image.convert("L") if len(self.mean) == 1 else image)
        pixels = T.resize(pixels, [max(self.kept)], interpolation=T.InterpolationMode.BILINEAR, antialias=True)
        kept: Tensor = T.center_crop(pixels, list(self.kept))
        return kept

    def normalise(self, images: Tensor) -> Tensor:
        """Returns images (N, C, H, W) as the network takes them, on their canvas; channels last in memory."""
        mean, std = (torch.tensor(v, device=images.device).view(1, -1, 1, 1) for v in (self.mean, self.std))
        made = ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
        if self.motion != "zero":
            return made
        left, right = self.max_shift // 2, self.max_shift - self.max_shift // 2
        return F.pad(made, (right, left, right, left))


@dataclass
class Photographs:
    """Batches of the images of some files.

    Attributes:
        files: to read.
        room: how each is laid out.
        batch_size: images a batch.
        workers: processes that read.
        on_error: what a damaged file does.
        skipped: paths of damaged files, once they were met.
    """

    files: ImageFiles
    room: Room
    batch_size: int
    workers: int
    on_error: OnError = "raise"
    skipped: set[str] = field(default_factory=set)

    def batches(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yields images as `Room.normalise` makes them, classes (N,) and numbers (N,)."""
        data = ImageDataset(self.files, self.room.lay_out, max(self.room.kept), self.on_error)
        loader: DataLoader[tuple[Tensor, int, int]] = DataLoader(
            data, self.batch_size, num_workers=self.workers, collate_fn=collate, pin_memory=device.type == "cuda"
        )
        for images, targets, index, skipped in loader:
            self.skipped |= {str(self.files.paths[number]) for number in skipped}
            if len(images):
                yield self.room.normalise(images.to(device, non_blocking=True)), targets.to(device), index.to(device)
