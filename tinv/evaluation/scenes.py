"""Scenes: photographs with more around them than a measure shows, for larger cuts around the same views."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as T

from tinv.data.formats.images import read_pixels, resize_and_center, size_with_shorter
from tinv.evaluation.images import ImageLayout

Margin = tuple[int, int]


@dataclass
class SceneLayout(ImageLayout):
    """An `ImageLayout` for crops that keeps more of the photograph, at the same scale and in the same place.

    What lies beyond the photograph's edge is mirrored. It belongs to the scene, so that it moves with the photograph.

    Attributes:
        margins: Pixels more than `kept` at the (top, bottom) and at the (left, right).
    """

    margins: tuple[Margin, Margin] = ((0, 0), (0, 0))

    def lay_out(self, path: Path) -> Tensor:
        """Returns a photograph with its margins: (C, h, w) uint8."""
        side = max(self.resize or 0, *self.kept)
        pixels = read_pixels(path, side)
        whole = size_with_shorter(pixels, side)
        # of a long photograph only what the scene shows is resized
        there = [min(have, kept + 2 * max(m)) for have, kept, m in zip(whole, self.kept, self.margins, strict=True)]
        pixels = resize_and_center(pixels, side, there[0], there[1])
        for axis, (have, got, kept, margin) in enumerate(zip(whole, there, self.kept, self.margins, strict=True)):
            # where torchvision's center_crop begins
            first = round((have - kept) / 2) - round((have - got) / 2)
            pixels = pixels.index_select(axis + 1, mirrored(first - margin[0], kept + sum(margin), got))
        return T.rgb_to_grayscale(pixels) if len(self.mean) == 1 else pixels


def mirrored(first: int, count: int, size: int) -> Tensor:
    """Returns which of `size` pixels lie at the positions from `first` on, mirrored at its ends, none repeated.

    Args:
        first: First position; below 0 before the first pixel.
        count: Number of positions.
        size: Number of pixels.

    Examples:
        >>> mirrored(-2, 8, 3)
        tensor([2, 1, 0, 1, 2, 1, 0, 1])
    """
    if size == 1:
        return torch.zeros(count, dtype=torch.long)
    period = 2 * (size - 1)
    at = torch.arange(first, first + count) % period
    return torch.minimum(at, period - at)
