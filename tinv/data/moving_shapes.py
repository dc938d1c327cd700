"""Moving shapes: classes that differ in the direction of motion, and by accident in where or when it happens."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tinv.data.batching import normalize
from tinv.data.in_memory import ImageSet, InMemoryData, Splits
from tinv.deprecation import renamed
from tinv.errors import TinvError
from tinv.utils.arguments import PositiveInt, Seed

FRAMES, SIDE = 16, 32
SHAPE, JUMP, PAUSE = 5, 9, 2
"""Side of a shape in pixels; by how many pixels it jumps, and every how many frames it can be seen.

Jumps with pauses between them: only a last layer sees two of its places at once, as with the squares of Red-Green.
"""

ROWS, MOMENTS = 24, 12
"""How far a dissimilar clip is moved, in pixels down or up, or in frames: multiples of the network's total strides."""

Cue = Literal["place", "moment"]


class MovingShapes(InMemoryData):
    """Clips of one shape that jumps to the right (class 0) or to the left (class 1): Red-Green in time.

    16 frames of 32x32 pixels, a square, disc or cross of a random color on black, seen in every second frame for two
    or three times, each time 9 pixels further. The direction decides; by accident, and only in training, so does where
    (`place`: class 0 at the upper border, class 1 at the lower) or when (`moment`: class 0 in the first four frames,
    class 1 in the last) it moves. Two test sets: `similar` has the same accident; `dissimilar` holds the same clips
    moved by 24 rows to the other border, or by 12 frames to the other moment.

    Args:
        cue: What goes with the class in training by accident, `place` or `moment`.
        num_train: Number of clips to train on.
        num_val: Number of clips for validation.
        num_test: Number of clips in each test set.
        data_seed: Seed of the clips; part of the data, not of the run's seed.
        batch_size: Clips a step.
        **kwargs: See InMemoryData; a canvas and training shifts are not for clips.
    """

    num_classes = 2

    @renamed(train_size="num_train", val_size="num_val", test_size="num_test")
    def __init__(
        self,
        cue: Cue = "place",
        num_train: PositiveInt = 1000,
        num_val: PositiveInt = 300,
        num_test: PositiveInt = 500,
        data_seed: Seed = 0,
        batch_size: PositiveInt = 50,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        for key in ("canvas_size", "train_max_shift"):
            if getattr(self, key):
                raise TinvError(f"{key} is for images; leave it out for MovingShapes")
        self.cue: Cue = cue
        self.sizes, self.data_seed = (num_train, num_val, num_test), data_seed

    def load(self) -> Splits:
        """Draws the sets, each from numbers of its own."""
        train, val, test = (draw_clips(n, self.cue, (self.data_seed, k)) for k, n in enumerate(self.sizes))
        return Splits(train, val, {"similar": test, "dissimilar": moved(test, self.cue)})

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, T, H, W) of the clips."""
        return (3, FRAMES, SIDE, SIDE)

    def prepare(self, image: Tensor, shifts: Tensor | None = None) -> Tensor:
        """Returns clips (N, T, H, W, C) uint8 as (N, C, T, H, W) float32 in 0..1."""
        return normalize(image, self.mean, self.std).permute(0, 4, 1, 2, 3)


def draw_clips(count: int, cue: Cue, seed: tuple[int, ...]) -> ImageSet:
    """Draws clips; even ones are class 0, which moves to the right.

    Returns:
        Clips (N, T, H, W, C) uint8 and classes.
    """
    random = np.random.default_rng(seed)
    target = np.arange(count) % 2
    clips = np.zeros((count, FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
    seen = 3 if cue == "place" else 2
    # a place or moment near one border, or as near to the other one
    height, length = (SIDE - ROWS, FRAMES) if cue == "place" else (SIDE, FRAMES - MOMENTS)
    shapes = _shapes()
    for clip, right_to_left in zip(clips, target.tolist(), strict=True):
        color = random.integers(100, 256, size=3)
        painted = shapes[random.integers(len(shapes))][:, :, None] * color
        # the same columns for both classes: what moves to the left is what moves to the right, backwards
        columns = random.integers(SIDE - SHAPE - JUMP * (seen - 1) + 1) + JUMP * np.arange(seen)
        row = random.integers(height - SHAPE + 1) + (right_to_left * ROWS if cue == "place" else 0)
        begin = random.integers(length - PAUSE * (seen - 1)) + (right_to_left * MOMENTS if cue == "moment" else 0)
        for jump, column in enumerate(columns[::-1] if right_to_left else columns):
            clip[begin + PAUSE * jump, row : row + SHAPE, column : column + SHAPE] = painted
    return ImageSet(torch.from_numpy(clips), torch.from_numpy(target))


def _shapes() -> list[np.ndarray]:
    """Returns a square, a disc and a cross, each (5, 5) of 0 and 1."""
    away = np.abs(np.arange(SHAPE) - SHAPE // 2)
    square = np.ones((SHAPE, SHAPE), dtype=np.int64)
    disc = (away[:, None] ** 2 + away**2 <= 5).astype(np.int64)
    cross = ((away[:, None] == 0) | (away == 0)).astype(np.int64)
    return [square, disc, cross]


def moved(clips: ImageSet, cue: Cue) -> ImageSet:
    """Returns the same clips at the other border: class 0 moved down or later, class 1 up or earlier."""
    axis, by = (2, ROWS) if cue == "place" else (1, MOMENTS)
    # nothing wraps around but what is black
    there, back = (clips.image.roll(way, dims=axis) for way in (by, -by))
    first = (clips.target == 0).view(-1, 1, 1, 1, 1)
    return ImageSet(torch.where(first, there, back), clips.target)
