"""Views of an image that differ by a shift, and measures that look at several of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tinv.deprecation import renamed
from tinv.errors import TinvError
from tinv.metrics.base import InvarianceMetric, Unit
from tinv.translation import (
    CAMERA_SCALE,
    CANVASES,
    WINDOWS,
    ShiftMode,
    crop_each,
    fourier_shift,
    reduce_camera,
    translate,
)
from tinv.utils.arguments import NonNegativeInt, PositiveInt, Seed

UNLABELLED = -1
"""Class number of an image whose class is not known."""

RESAMPLES = 1000


def shifted_views(images: Tensor, offsets: Tensor, offset_range: int, mode: ShiftMode) -> Tensor:
    """Returns one view of each image.

    Args:
        images: (N, C, H, W); for `crop` larger than the views by offset_range pixels an axis, for `camera` larger and
            of `CAMERA_SCALE` times the resolution.
        offsets: (N, 2) pixels (x, y) from 0 to offset_range, whole ones but for `camera` and `fractional`. The view of
            `crop` and `camera` begins there; the others move the image by the offset less half of offset_range, so that
            both directions are as likely.
        offset_range: Largest offset in pixels.
        mode: How views differ, see `tinv.translation.ShiftMode`.

    Returns:
        (N, C, H - offset_range, W - offset_range) for `crop`, so many pixels after reduction for `camera`, else
        (N, C, H, W); channels last in memory.

    Raises:
        TinvError: If the image is too small for the crop, or an offset is finer than the mode allows.
    """
    offsets = _in_pixels(offsets, mode)
    if mode == "fractional" and offsets.is_floating_point():
        return fourier_shift(images, offsets - offset_range // 2).contiguous(memory_format=torch.channels_last)
    if mode in WINDOWS:
        return _windows(images, offsets, offset_range, mode)
    moves = offsets - offset_range // 2
    if mode == "mean":
        # the mean of the whole image, of each channel
        colour = images.mean(dim=(2, 3), keepdim=True)
        return translate(images - colour, moves, "zero") + colour
    return translate(images, moves, "zero" if mode == "zero" else "circular")


def _in_pixels(offsets: Tensor, mode: ShiftMode) -> Tensor:
    """Returns offsets as integers wherever they are whole; for `camera` in pixels of the larger image."""
    scale = CAMERA_SCALE if mode == "camera" else 1
    scaled = offsets * scale
    if not scaled.is_floating_point():
        return scaled
    whole = scaled.round()
    if torch.equal(whole, scaled):
        return whole.long()
    if mode != "fractional":
        finest = "half pixels" if mode == "camera" else "whole pixels"
        raise TinvError(f"mode {mode} moves images by {finest} alone; use mode fractional for other parts of a pixel")
    return scaled


def _windows(images: Tensor, offsets: Tensor, offset_range: int, mode: ShiftMode) -> Tensor:
    room = offset_range * (CAMERA_SCALE if mode == "camera" else 1)
    height, width = (size - room for size in images.shape[2:])
    if min(height, width) < 1:
        raise TinvError(
            f"offset_range={offset_range} leaves nothing of images of {images.shape[2]}x{images.shape[3]} pixels; use "
            "a smaller offset_range or larger images"
        )
    rows = images.permute(0, 2, 3, 1).contiguous()
    views = crop_each(rows, offsets[:, 1], offsets[:, 0], height, width)
    return reduce_camera(views) if mode == "camera" else views


def trim(images: Tensor, room: int, mode: ShiftMode) -> Tensor:
    """Takes pixels off images that are larger than is needed: `room` in all along each axis, half on each side.

    Args:
        images: (N, C, H, W), as `shifted_views` takes them.
        room: Pixels of the view.
        mode: How views differ; only windows are larger than the views.
    """
    if mode not in WINDOWS:
        return images
    scale = CAMERA_SCALE if mode == "camera" else 1
    begin = room // 2 * scale
    height, width = (size - room * scale for size in images.shape[-2:])
    return images[..., begin : begin + height, begin : begin + width]


def center_view(images: Tensor, offset_range: int, mode: ShiftMode) -> Tensor:
    """Returns the view in the middle: (N, C, h, w) as `shifted_views` does."""
    middle = trim(images, offset_range, mode)
    return reduce_camera(middle) if mode == "camera" else middle


class ViewMetric(InvarianceMetric):
    """Base of the measures that look at several views of each image and store numbers of every image.

    Numbers of single images give bootstrap intervals: the 2.5th and 97.5th percentile of 1,000 means over images drawn
    with replacement, seeded, and independent of the order in which images came.

    Args:
        offset_range: Largest offset of a view in pixels; a view has an offset from 0 on in x and in y.
        mode: How views differ, see `tinv.translation.ShiftMode`.
        seed: Seed of the offsets and of the bootstrap.
        name: Name under which results are reported.
        fields: Names of the numbers stored of every image.
        step: Pixels from one offset to the next, for measures that look at all of them.

    Raises:
        TinvError: For an offset_range below 0, an unknown mode, or a step that does not divide offset_range.
    """

    unit: Unit | None = "percent"
    higher_is_better = True
    shift_argument = "offset_range"

    @renamed(max_shift="offset_range", motion="mode", columns="fields")
    def __init__(
        self,
        offset_range: NonNegativeInt,
        mode: ShiftMode,
        seed: Seed,
        name: str,
        fields: tuple[str, ...],
        step: PositiveInt = 1,
    ) -> None:
        super().__init__()
        if offset_range % step:
            raise TinvError(f"offset_range={offset_range} must be a multiple of step={step}")
        self.offset_range, self.mode, self.seed, self.name, self.fields = offset_range, mode, seed, name, fields
        self.offsets = range(0, offset_range + 1, step)
        self.canvas_margin = offset_range - offset_range // 2 if mode in CANVASES else 0
        self.crop_margin = offset_range if mode in WINDOWS else 0
        self.add_rows("index", "rows")

    def store(self, index: Tensor, *fields: Tensor) -> None:
        """Adds the numbers of some images: index (N,), and (N,) for each of the fields."""
        self.append(index=index, rows=torch.stack([field.double() for field in fields], dim=1))

    def per_image(self) -> np.ndarray:
        """Returns the stored numbers (images, fields), in order of the sample indices."""
        return self.ordered("rows")

    def with_intervals(self, statistics: dict[str, Callable[[np.ndarray], float]]) -> dict[str, Tensor]:
        """Returns each statistic of the fields' means, with its bootstrap interval as NAME_low and NAME_high."""
        rows = self.per_image()
        means = bootstrap_means(rows, self.seed)
        found: dict[str, Tensor] = {}
        for key, statistic in statistics.items():
            found |= with_ends(key, statistic(rows.mean(axis=0)), np.array([statistic(row) for row in means]))
        return found


def with_ends(key: str, value: float, draws: np.ndarray) -> dict[str, Tensor]:
    """Returns a number with the ends of its bootstrap interval, as KEY, KEY_low and KEY_high.

    Args:
        key: Name of the number.
        value: The number over all images.
        draws: The number over each of the draws, (draws,); NaN where a draw leaves it undefined.
    """
    # undefined where a draw holds no right answer
    defined = draws[~np.isnan(draws)]
    none = not len(defined) or np.isnan(value)
    low, high = (np.nan, np.nan) if none else np.percentile(defined, [2.5, 97.5])
    ends = (("", value), ("_low", low), ("_high", high))
    return {f"{key}{end}": torch.tensor(float(number), dtype=torch.float64) for end, number in ends}


def bootstrap_means(rows: np.ndarray, seed: int) -> np.ndarray:
    """Returns the fields' means over rows (N, fields) drawn with replacement, 1,000 times: (1000, fields)."""
    count = len(rows)
    draw = np.random.default_rng(seed)
    return np.stack(
        [np.bincount(draw.integers(count, size=count), minlength=count) @ rows / count for _ in range(RESAMPLES)]
    )
