"""Four-quadrant images: the same photographs at the top left and at the bottom right, where only the place differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tinv.data.image_files import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    OnError,
    find_images,
    photographs_folder,
    read_pixels,
    resize_and_centre,
    spread,
)
from tinv.data.in_memory import Batch, ImageSet, InMemoryData, Splits
from tinv.errors import TinvError, unknown

SplitRule = Literal["published", "disjoint"]
READ_SIDE, READ_CROP = 256, 224
"""Photographs are resized to the one and cropped to the other before they are made small, as in the paper."""


class FourQuadrant(InMemoryData):
    """Photographs on black, at the top left (class 0) or bottom right (class 1): 4QI (Kayhan & van Gemert 2020).

    Every photograph is there in both places, so that nothing but the place tells the classes apart.

    Args:
        root: folder of photographs, flat or with class folders (searched for in the folder of data sets too); the paper
            took ImageNet's validation images.
        images: number of photographs, spread evenly over the sorted folder: 1,000 out of 50,000 are one in 50.
        splits: `published` trains, validates and tests on the same photographs; `disjoint` on a third each.
        side: of a photograph in the image, in pixels.
        canvas: side of the image. With the default sides both places lie 64 pixels apart, a multiple of the networks'
            stride; circular padding is exact on a canvas that is such a multiple itself: side 64 on canvas 128.
        on_error: `skip` leaves out photographs that cannot be read, and counts them.
        batch_size: 8 in the paper.
        **kwargs: see InMemoryData.
    """

    num_classes = 2
    mean = IMAGENET_MEAN
    std = IMAGENET_STD

    def __init__(
        self,
        root: str = "imagenet/val",
        images: int = 1000,
        splits: SplitRule = "published",
        side: int = 56,
        canvas: int = 120,
        on_error: OnError = "raise",
        batch_size: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, canvas=canvas, **kwargs)
        if splits not in get_args(SplitRule):
            raise unknown("splits", splits, get_args(SplitRule))
        if not 0 < side < canvas:
            raise TinvError(f"side={side} must be smaller than canvas={canvas}, for two places to differ")
        if self.train_max_shift:
            raise TinvError("train_max_shift must be 0 for FourQuadrant: the place is what is learned")
        self.least = 3 if splits == "disjoint" else 1
        if images < self.least:
            raise TinvError(f"images={images}: splits={splits} needs {self.least} or more")
        self.root, self.images, self.split_rule, self.side = root, images, splits, side
        self.on_error: OnError = on_error
        self.skipped: set[str] = set()

    @property
    def margin(self) -> int:
        """0: photographs touch the border."""
        return 0

    def load(self) -> Splits:
        """Reads the photographs."""
        folder = photographs_folder(self.root)
        files = find_images(folder)
        if self.images > len(files):
            raise TinvError(f"images={self.images} asked for, {folder} holds {len(files)}; set data.init_args.images")
        read = []
        chosen = spread(files, self.images)
        for path in (chosen.path(number) for number in range(len(chosen))):
            try:
                read.append(self._shrink(path))
            except TinvError:
                if self.on_error == "raise":
                    raise
                self.skipped.add(str(path))
        if len(read) < self.least:
            raise TinvError(f"only {len(read)} photographs of {folder} could be read")
        photographs = torch.stack(read)
        if self.split_rule == "published":
            everything = _in_both_places(photographs)
            return Splits(everything, everything, {"test": everything})
        order = torch.from_numpy(np.random.default_rng(self.seed or 0).permutation(len(photographs)))
        train, val, test = (_in_both_places(photographs[order[part::3]]) for part in range(3))
        return Splits(train, val, {"test": test})

    def _shrink(self, path: Path) -> Tensor:
        """Returns the middle of a photograph, made small: (side, side, 3) uint8."""
        middle = resize_and_centre(read_pixels(path, READ_SIDE), READ_SIDE, READ_CROP, READ_CROP)[None].float()
        # bilinear without averaging, as torch's own at the time of the paper
        small = F.interpolate(middle, size=(self.side, self.side), mode="bilinear", align_corners=False)
        return small[0].round().clamp(0, 255).byte().permute(1, 2, 0)

    @property
    def facts(self) -> dict[str, Any]:
        """Counts for results.json."""
        return {"skipped": len(self.skipped), "skipped_files": sorted(self.skipped)}

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Lays each photograph, normalised, at its place on black."""
        pixels = self.normalise(batch.image)
        assert self.canvas is not None
        far = self.canvas - self.side
        laid = pixels.new_zeros(len(pixels), self.canvas, self.canvas, pixels.shape[3])
        first = batch.target == 0
        laid[first, : self.side, : self.side] = pixels[first]
        laid[~first, far:, far:] = pixels[~first]
        return batch._replace(image=laid.permute(0, 3, 1, 2))


def _in_both_places(photographs: Tensor) -> ImageSet:
    target = torch.arange(2 * len(photographs)) % 2
    return ImageSet(photographs.repeat_interleave(2, dim=0), target)
