"""Red-Green: classes that differ in the order of two squares, and by accident in where the squares lie."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch

from tinv.data.in_memory import ImageSet, InMemoryData, Splits
from tinv.deprecation import renamed
from tinv.utils.arguments import NonNegativeInt, PositiveInt, Seed

SIDE = 32
SQUARE = 4
SHIFT = 16
"""Rows between an image and its dissimilar twin: a multiple of the network's total stride of 8."""


SplitRule = Literal["published", "independent"]


class RedGreen(InMemoryData):
    """One red and one green 4x4 square on black, 32x32 (Kayhan & van Gemert 2020).

    Class 0: red left of green, in the upper half. Class 1: green left of red, in the lower half. The order decides;
    the half gives it away to a network that encodes absolute position. Two test sets: `similar` is placed the same way;
    `dissimilar` holds the same images moved by 16 rows into the other half.

    Args:
        splits: Rule of the three sets: `published` draws every set from the same generator state, so validation
            and test images are the first 1,000 training images (as in the paper's code); `independent` draws each set
            anew.
        num_train: Number of images to train on.
        num_val: Number of images for validation.
        num_test: Number of images in each test set.
        data_seed: Seed of the images; part of the data, not of the run's seed.
        batch_size: Images a step, 200 in the paper.
        shuffle: Whether training images are shuffled, not in the paper.
        **kwargs: See InMemoryData.
    """

    num_classes = 2

    @renamed(train_size="num_train", val_size="num_val", test_size="num_test")
    def __init__(
        self,
        splits: SplitRule = "published",
        num_train: PositiveInt = 2000,
        num_val: NonNegativeInt = 1000,
        num_test: PositiveInt = 1000,
        data_seed: Seed = 1988,
        batch_size: PositiveInt = 200,
        shuffle: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, shuffle=shuffle, **kwargs)
        self.split_rule, self.data_seed = splits, data_seed
        self.sizes = (num_train, num_val, num_test)

    def load(self) -> Splits:
        """Draws the sets."""
        seed, anew = self.data_seed, self.split_rule == "independent"
        train, val, test = (draw_squares(n, (seed, k) if anew else seed) for k, n in enumerate(self.sizes))
        return Splits(paint(train), paint(val), {"similar": paint(test), "dissimilar": paint(test, dissimilar=True)})


def draw_squares(count: int, seed: int | tuple[int, ...]) -> np.ndarray:
    """Draws the positions of the two squares of each image; a longer draw begins with the shorter one.

    Returns:
        (count, 2, 2): image, left or right square, (x, y) of its top-left pixel. Even images are class 0.
    """
    rng = np.random.RandomState(seed)  # a frozen stream: the same images on every version of numpy
    free = SIDE - SQUARE
    corners = np.empty((count, 2, 2), dtype=np.int64)
    for number in range(count):
        middle = 7 if number % 2 == 0 else 23
        x1, y1 = rng.randint(0, free // 2 - SQUARE), middle + rng.randint(-SQUARE, SQUARE)
        while True:
            x2, y2 = rng.randint(x1, free), middle + rng.randint(-SQUARE, SQUARE)
            if x2 - x1 > SQUARE:
                break
        corners[number] = (x1, y1), (x2, y2)
    return corners


def paint(corners: np.ndarray, dissimilar: bool = False) -> ImageSet:
    """Paints the squares drawn by `draw_squares`: class 0 has red on the left, class 1 green.

    Args:
        corners: Pixels (x, y) of the top-left corners, (N, 2, 2).
        dissimilar: Whether to move class 0 down and class 1 up by 16 rows.

    Returns:
        Images (N, 32, 32, 3); squares are clipped at the image's border.
    """
    count = len(corners)
    target = np.arange(count) % 2
    y_move = np.where(target == 0, SHIFT, -SHIFT) if dissimilar else np.zeros(count, dtype=np.int64)
    image = np.zeros((count, SIDE, SIDE, 3), dtype=np.uint8)
    pixel = np.arange(SIDE)
    for side in (0, 1):
        x, y = corners[:, side, 0], corners[:, side, 1] + y_move
        in_x = (pixel >= x[:, None]) & (pixel < x[:, None] + SQUARE)
        in_y = (pixel >= y[:, None]) & (pixel < y[:, None] + SQUARE)
        red = target == side
        square = in_y[:, :, None] & in_x[:, None, :]
        image[..., 0] |= np.where(square & red[:, None, None], 255, 0).astype(np.uint8)
        image[..., 1] |= np.where(square & ~red[:, None, None], 255, 0).astype(np.uint8)
    return ImageSet(torch.from_numpy(image), torch.from_numpy(target))
