"""Four-quadrant images: the same images at the top left and at the bottom right, where only the position differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tinv.data.base import skipped_files
from tinv.data.batching import Batch, normalize
from tinv.data.file_batches import ImageDataset
from tinv.data.folders import image_folder
from tinv.data.formats.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    OnError,
    find_images,
    read_pixels,
    resize_and_center,
    subsample_evenly,
)
from tinv.data.in_memory import ImageSet, InMemoryData, Splits
from tinv.deprecation import renamed
from tinv.errors import TinvError
from tinv.utils.arguments import PositiveInt

SplitRule = Literal["published", "disjoint"]
READ_SIDE, READ_CROP = 256, 224
"""Images are resized to the one and cropped to the other before they are made small, as in the paper."""


class FourQuadrant(InMemoryData):
    """Images on black, at the top left (class 0) or bottom right (class 1): 4QI (Kayhan & van Gemert 2020).

    Every image is there in both places, so that nothing but the position tells the classes apart.

    Args:
        root: Folder of images, flat or with class folders (searched for in the folder of data sets too); the paper took
            ImageNet's validation images.
        num_images: Number of images, spread evenly over the sorted folder: 1,000 out of 50,000 are one in 50.
        splits: Rule of the three sets: `published` trains, validates and tests on the same images; `disjoint` on a
            third each, drawn by the seed of the data module, that of the run unless `seed` is given.
        side: Side of an image on the canvas, in pixels.
        canvas_size: Side of the canvas in pixels. With the default sides both places lie 64 pixels apart, a multiple of
            the networks' stride; circular padding is exact on a canvas that is such a multiple itself: side 64 on
            canvas_size 128.
        on_error: What a damaged image does: `raise` an error, or `skip` it and count it.
        batch_size: Images a step, 8 in the paper.
        **kwargs: See InMemoryData.
    """

    num_classes = 2
    mean = IMAGENET_MEAN
    std = IMAGENET_STD
    canvas_margin = 0  # images touch the border

    @renamed(images="num_images", canvas="canvas_size")
    def __init__(
        self,
        root: str = "imagenet/val",
        num_images: PositiveInt = 1000,
        splits: SplitRule = "published",
        side: PositiveInt = 56,
        canvas_size: PositiveInt = 120,
        on_error: OnError = "raise",
        batch_size: PositiveInt = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, canvas_size=canvas_size, **kwargs)
        if not 0 < side < canvas_size:
            raise TinvError(f"side={side} must be smaller than canvas_size={canvas_size}, for two positions to differ")
        if self.train_max_shift:
            raise TinvError("train_max_shift must be 0 for FourQuadrant: the position is what is learned")
        self.least = 3 if splits == "disjoint" else 1
        if num_images < self.least:
            raise TinvError(f"num_images={num_images}: splits={splits} needs {self.least} or more")
        self.root, self.num_images, self.split_rule, self.side = root, num_images, splits, side
        self.on_error: OnError = on_error
        self.skipped: set[str] = set()

    def load(self) -> Splits:
        """Reads the images."""
        folder = image_folder(self.root)
        files = find_images(folder)
        if self.num_images > len(files):
            raise TinvError(
                f"num_images={self.num_images} asked for, {folder} holds {len(files)}; set data.init_args.num_images"
            )
        files = subsample_evenly(files, self.num_images)
        batch = ImageDataset(files, self._shrink)[0, torch.arange(len(files))]
        if batch.skipped and self.on_error == "raise":
            raise TinvError(batch.problem)
        self.skipped |= {str(files.path(number)) for number in batch.skipped}
        if len(images := batch.image) < self.least:
            raise TinvError(f"only {len(images)} images of {folder} could be read")
        if self.split_rule == "published":
            everything = _in_both_places(images)
            return Splits(everything, everything, {"test": everything})
        order = torch.from_numpy(np.random.default_rng(self.seed).permutation(len(images)))
        train, val, test = (_in_both_places(images[order[part::3]]) for part in range(3))
        return Splits(train, val, {"test": test})

    def _shrink(self, path: Path) -> Tensor:
        """Returns the middle of an image, made small: (3, side, side) uint8."""
        middle = resize_and_center(read_pixels(path, READ_SIDE), READ_SIDE, READ_CROP, READ_CROP)[None].float()
        # bilinear without averaging, as torch's own at the time of the paper
        small = F.interpolate(middle, size=(self.side, self.side), mode="bilinear", align_corners=False)
        return small[0].round().clamp(0, 255).byte()

    @property
    def provenance(self) -> dict[str, Any]:
        """Counts for results.json."""
        return skipped_files(self.skipped)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Puts each image, normalized, at its position on black."""
        pixels = normalize(batch.image, self.mean, self.std)
        size = self.input_shape[1]
        canvas = pixels.new_zeros(len(pixels), size, size, pixels.shape[3])
        first = batch.target == 0
        canvas[first, : self.side, : self.side] = pixels[first]
        canvas[~first, size - self.side :, size - self.side :] = pixels[~first]
        return batch._replace(image=canvas.permute(0, 3, 1, 2))


def _in_both_places(images: Tensor) -> ImageSet:
    target = torch.arange(2 * len(images)) % 2
    return ImageSet(images.repeat_interleave(2, dim=0), target)
