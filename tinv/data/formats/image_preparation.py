"""How an image file becomes the pixels of a batch: whole or its middle, and what training changes at random."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from tinv.data.formats.images import read_pixels, resize, resize_and_center, resize_shorter
from tinv.errors import TinvError

AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
"""Of a random crop: its share of the image, and width over height (Szegedy et al., CVPR 2015)."""
ATTEMPTS = 10


class Resize:
    """The whole image, not larger than it need be.

    Args:
        shorter_side: Shorter side in pixels that a larger image is resized to; None leaves it.
    """

    def __init__(self, shorter_side: int | None = None) -> None:
        self.shorter_side = shorter_side
        self.name = f"upright, whole, shorter side at most {shorter_side}"

    def __call__(self, path: Path) -> Tensor:
        """Returns (3, H, W) uint8."""
        pixels = read_pixels(path, self.shorter_side)
        if self.shorter_side is None or min(pixels.shape[1:]) <= self.shorter_side:
            return pixels
        return resize_shorter(pixels, self.shorter_side)


class ResizeCenterCrop:
    """The middle of the resized image.

    Args:
        shorter_side: Shorter side in pixels to which the image is resized first.
        height: Height in pixels of what is cut out.
        width: Width in pixels of what is cut out.
    """

    def __init__(self, shorter_side: int, height: int, width: int) -> None:
        self.shorter_side, self.height, self.width = shorter_side, height, width
        self.name = f"upright, shorter side {shorter_side}, middle {height}x{width}"

    def __call__(self, path: Path) -> Tensor:
        """Returns (3, height, width) uint8."""
        return resize_and_center(read_pixels(path, self.shorter_side), self.shorter_side, self.height, self.width)


class Augmentation(Protocol):
    """Changes an image at random.

    Attributes:
        seed: Seed of the random numbers.
        draws: Number of random numbers that one image takes.
    """

    seed: int
    draws: int

    def __call__(self, pixels: Tensor, draws: list[float]) -> Tensor:
        """Returns what an image (3, H, W) uint8 becomes, given numbers in [0, 1): (3, h, w) uint8."""


class RandomResizedCrop:
    """A random part of the image, resized to a square, flipped half of the time: the recipe of ImageNet's networks.

    The part is that of torchvision's RandomResizedCrop: 8 to 100% of the area, 3:4 to 4:3.

    Args:
        size: Side in pixels.
        seed: Seed of the crop and the flip.
    """

    draws = 4 * ATTEMPTS + 1

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed

    def __call__(self, pixels: Tensor, draws: list[float]) -> Tensor:
        """Returns (3, size, size) uint8."""
        top, left, height, width = self.part(pixels.shape[1], pixels.shape[2], draws)
        resized = resize(pixels[:, top : top + height, left : left + width], self.size, self.size)
        if draws[-1] < 0.5:
            # of rows of pixels, which lie one after the other in memory
            resized = resized.permute(1, 2, 0).flip(1).permute(2, 0, 1)
        return resized

    @staticmethod
    def part(height: int, width: int, draws: list[float]) -> tuple[int, int, int, int]:
        """Returns (top, left, height, width) of the part, from numbers in [0, 1), four for each attempt."""
        low, high = math.log(RATIO[0]), math.log(RATIO[1])
        for first in range(0, 4 * ATTEMPTS, 4):
            area, ratio, down, right = draws[first : first + 4]
            pixels = height * width * (AREA[0] + area * (AREA[1] - AREA[0]))
            slant = math.exp(low + ratio * (high - low))
            w, h = round(math.sqrt(pixels * slant)), round(math.sqrt(pixels / slant))
            if 0 < w <= width and 0 < h <= height:
                return int(down * (height - h + 1)), int(right * (width - w + 1)), h, w
        # of an image too long for any: its middle
        w = min(width, round(height * RATIO[1]))
        h = min(height, round(width / RATIO[0]))
        return (height - h) // 2, (width - w) // 2, h, w


class Transforms:
    """Any chain of torchvision's v2 transforms, with its random numbers drawn for each image and epoch.

    Args:
        modules: Transforms, applied one after the other; must end in images of one size.
        seed: Seed of their random numbers.
    """

    draws = 1

    def __init__(self, modules: Sequence[nn.Module], seed: int) -> None:
        self.modules, self.seed = list(modules), seed

    def __call__(self, pixels: Tensor, draws: list[float]) -> Tensor:
        """Returns (3, h, w) uint8."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(draws[0] * 2**53))
            for module in self.modules:
                pixels = module(pixels)
        if pixels.dtype != torch.uint8:
            raise TinvError(
                "data.init_args.train_transforms must end in uint8 images: leave ToDtype and Normalize out, tinv "
                "normalizes whole batches"
            )
        return pixels
