"""Views of an image that differ by a shift, and measures that look at several of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from tinv.errors import TinvError, unknown
from tinv.metrics.base import InvarianceMetric
from tinv.translation import crop_each, translate

Motion = Literal["crop", "zero", "circular"]
"""crop: windows of a larger image, which see real content come in; zero, circular: see tinv.translation.translate."""

UNLABELLED = -1
"""Class number of an image whose class is not known."""

RESAMPLES = 1000


def take_views(images: Tensor, offsets: Tensor, max_shift: int, motion: Motion) -> Tensor:
    """Returns one view of each image.

    Args:
        images: (N, C, H, W); for `crop` larger than the views by max_shift pixels an axis.
        offsets: (N, 2) whole numbers (x, y) from 0 to max_shift. The view of `crop` begins there; the others move the
            image by the offset less half of max_shift, so that both directions are as likely.
        max_shift: the largest offset.
        motion: how views come about.

    Returns:
        (N, C, H - max_shift, W - max_shift) for `crop`, else (N, C, H, W); channels last in memory.

    Raises:
        TinvError: if the image has no room for the crop.
    """
    if motion != "crop":
        return translate(images, offsets - max_shift // 2, motion)
    height, width = (size - max_shift for size in images.shape[2:])
    if min(height, width) < 1:
        raise TinvError(
            f"max_shift={max_shift} leaves nothing of images of {images.shape[2]}x{images.shape[3]} pixels; use a "
            "smaller max_shift or larger images"
        )
    rows = images.permute(0, 2, 3, 1).contiguous()
    return crop_each(rows, offsets[:, 1], offsets[:, 0], height, width)


def centre_view(images: Tensor, max_shift: int, motion: Motion) -> Tensor:
    """Returns the view in the middle: (N, C, h, w) as `take_views` does."""
    if motion != "crop":
        return images
    begin = max_shift // 2
    height, width = (size - max_shift for size in images.shape[2:])
    return images[:, :, begin : begin + height, begin : begin + width]


class ViewMetric(InvarianceMetric):
    """Base of the measures that look at several views of each image and keep numbers of every image.

    Numbers of single images give bootstrap intervals: the 2.5th and 97.5th percentile of 1,000 means over images drawn
    with replacement, seeded, and independent of the order in which images came.

    Args:
        max_shift: the largest offset of a view in pixels.
        motion: `crop`, `zero` or `circular`.
        seed: of the offsets and of the bootstrap.
        name: under which results are reported.
        columns: names of the numbers kept of every image.

    Raises:
        TinvError: for a max_shift below 0, or an unknown motion.
    """

    higher_is_better = True

    def __init__(self, max_shift: int, motion: Motion, seed: int, name: str, columns: tuple[str, ...]) -> None:
        super().__init__()
        if max_shift < 0:
            raise TinvError(f"max_shift must be 0 pixels or more, not {max_shift}")
        if motion not in get_args(Motion):
            raise unknown("motion", motion, get_args(Motion))
        self.max_shift, self.motion, self.seed, self.name, self.columns = max_shift, motion, seed, name, columns
        self.margin = max_shift - max_shift // 2 if motion == "zero" else 0
        self.room = max_shift if motion == "crop" else 0
        self.add_state("index", [], dist_reduce_fx="cat")
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.index: list[Tensor] | Tensor
        self.rows: list[Tensor] | Tensor

    def keep(self, index: Tensor, *columns: Tensor) -> None:
        """Adds the numbers of some images: index (N,) and as many columns (N,) as were named."""
        assert isinstance(self.index, list)
        assert isinstance(self.rows, list)
        self.index.append(index)
        self.rows.append(torch.stack([column.double() for column in columns], dim=1))

    def table(self) -> np.ndarray:
        """Returns (images, columns), in order of the images' numbers."""
        index, rows = dim_zero_cat(self.index), dim_zero_cat(self.rows)
        ordered: np.ndarray = rows[index.argsort()].cpu().numpy()
        return ordered

    def with_intervals(self, statistics: dict[str, Callable[[np.ndarray], float]]) -> dict[str, Tensor]:
        """Returns each statistic of the columns' means, with its bootstrap interval as NAME_low and NAME_high."""
        table = self.table()
        means = bootstrap_means(table, self.seed)
        found = {}
        for key, statistic in statistics.items():
            values = np.array([statistic(row) for row in means])
            # undefined where a draw holds no right answer
            defined = values[~np.isnan(values)]
            low, high = np.percentile(defined, [2.5, 97.5]) if len(defined) else (np.nan, np.nan)
            whole = statistic(table.mean(axis=0))
            if np.isnan(whole):
                low = high = np.nan
            for end, value in (("", whole), ("_low", low), ("_high", high)):
                found[f"{key}{end}"] = torch.tensor(float(value), dtype=torch.float64)
        return found


def bootstrap_means(table: np.ndarray, seed: int) -> np.ndarray:
    """Returns the columns' means over rows drawn with replacement, 1,000 times: (1000, columns)."""
    count = len(table)
    draw = np.random.default_rng(seed)
    return np.stack(
        [np.bincount(draw.integers(count, size=count), minlength=count) @ table / count for _ in range(RESAMPLES)]
    )
