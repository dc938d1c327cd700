"""Two images of one patch: can a network tell in which corner it lies?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tinv.data.in_memory import ImageSet, InMemoryData, Splits
from tinv.utils.arguments import PositiveInt


class Rook(InMemoryData):
    """Two 32x32 gray images of the same 16x13 rook: flush with the top-left corner (class 0) or the bottom-right (1).

    Train, validation and test are the same two images (Kayhan & van Gemert 2020): the question is whether
    a network can tell the corners apart at all.

    Args:
        batch_size: Images a step, 1 in the paper.
        shuffle: Whether training images are shuffled, not in the paper.
        **kwargs: See InMemoryData.
    """

    num_classes = 2

    def __init__(self, batch_size: PositiveInt = 1, shuffle: bool = False, **kwargs: Any) -> None:
        super().__init__(batch_size=batch_size, shuffle=shuffle, **kwargs)

    def load(self) -> Splits:
        """Puts the patch into the two corners."""
        patch = rook_patch()
        image = np.zeros((2, 32, 32, 1), dtype=np.uint8)
        image[0, :16, :13, 0] = patch
        image[1, 16:, 19:, 0] = patch
        images = ImageSet(torch.from_numpy(image), torch.tensor([0, 1]))
        return Splits(images, images, {"test": images})


def rook_patch() -> np.ndarray:
    """Draws a rook, 16 rows by 13 columns, uint8: a textured silhouette on black that touches all four sides."""
    silhouette = [
        "##..#####..##",
        "##..#####..##",
        "#############",
        "#############",
        ".###########.",
        "..#########..",
        "...#######...",
        "...#######...",
        "...#######...",
        "...#######...",
        "...#######...",
        "..#########..",
        "..#########..",
        ".###########.",
        "#############",
        "#############",
    ]
    shape = np.array([[pixel == "#" for pixel in row] for row in silhouette])
    row, column = np.mgrid[0:16, 0:13]
    # a wall of stones, 3 rows by 4 columns with joints, each course shifted by half a stone; no two stones are alike
    course = row // 3
    across = column + 2 * (course % 2)
    joint = (row % 3 == 2) | (across % 4 == 3)
    stone = 140 + 11.5 * ((7 * course + 3 * (across // 4)) * 37 % 11) + 2 * row - 3 * column
    return np.where(shape, np.clip(np.rint(np.where(joint, 20, stone)), 20, 255), 0).astype(np.uint8)
