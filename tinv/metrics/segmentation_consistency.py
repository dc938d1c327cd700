"""Share of pixels that keep their class when the image moves, after the move is undone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tinv.errors import TinvError
from tinv.metrics.answers import undefined_unless_finite
from tinv.metrics.base import first_of
from tinv.metrics.views import ViewMetric, shifted_views
from tinv.translation import WINDOWS, ShiftMode, draw_offsets
from tinv.utils.arguments import NonNegativeInt, PositiveInt, Seed


class SegmentationConsistency(ViewMetric):
    """Percentage of pixels that get one class in two views of an image, once both moves are undone (mASSC).

    For networks that give a class for every pixel or position: a map (N, classes, h, w), or a dictionary that holds it
    as `out`, as those of torchvision. Under `circular` all positions are compared, under the other modes those that
    both views show. The number has its bootstrap interval over images (`_low`, `_high`).

    Reported:
        - `NAME` (percent, 0 to 100): share of compared positions with one class in both views, mean over pairs and
          images.

    Formula:
        `100 / (N P) * sum over images x, pairs of shifts T, S of the share of positions p with
        argmax (T^-1 f(T x))[p] = argmax (S^-1 f(S x))[p]`, for the class scores f, N images and P pairs.

    Source:
        Rojas-Gomez et al., NeurIPS 2022, section 5.2 (mean average segmentation shift consistency, circular); the
        overlap of crops is tinv's.

    Args:
        offset_range: Largest offset of a view in pixels.
        mode: How views differ: `circular`, `crop`, `zero` or `mean`; parts of a pixel cannot be undone.
        stride: Pixels of the image for each position of the output; shifts are multiples of it, which alone can be
            undone by whole positions.
        passes: Number of pairs of views of each image.
        max_images: Number of images that are used, the first of the set; None for all.
        seed: Seed of the offsets and of the bootstrap.
        name: Name under which the result is reported.

    Raises:
        TinvError: For another mode, a stride that does not divide offset_range, and an output that is no map of a
            position for each `stride` pixels.

    Examples:
        >>> images, metric = torch.rand(4, 3, 16, 16), SegmentationConsistency(8, "circular")
        >>> network = nn.Conv2d(3, 5, 3, padding=1, padding_mode="circular")
        >>> metric.update(network, images, network(images), torch.zeros(4), torch.arange(4))
        >>> float(metric.compute()["segmentation_consistency"])
        100.0
    """

    def __init__(
        self,
        offset_range: NonNegativeInt = 32,
        mode: ShiftMode = "circular",
        stride: PositiveInt = 1,
        passes: PositiveInt = 5,
        max_images: PositiveInt | None = None,
        seed: Seed = 0,
        name: str = "segmentation_consistency",
    ) -> None:
        if mode in ("camera", "fractional"):
            raise TinvError(f"mode {mode} moves by parts of a pixel, which no position undoes; use circular or crop")
        if offset_range % stride:
            raise TinvError(f"offset_range={offset_range} must be a multiple of stride={stride}")
        super().__init__(offset_range, mode, seed, name, ("same",), stride)
        self.stride, self.passes, self.max_images = stride, passes, max_images

    @property
    def views(self) -> int:
        """Passes through the network that an image costs."""
        return 2 * self.passes

    def update(self, network: nn.Module, images: Tensor, logits: Any, targets: Tensor, index: Tensor) -> None:
        """Adds a batch, see InvarianceMetric.update; logits and targets are not looked at."""
        images, index = first_of(self.max_images, index, images, index)
        sums = torch.zeros(len(images), dtype=torch.float64, device=images.device)
        for turn in range(self.passes if len(images) else 0):
            offsets, scores = [], []
            for view in (0, 1):
                steps = draw_offsets(index, self.offset_range // self.stride + 1, self.seed, 2 * turn + view)
                offsets.append(steps)
                shown = shifted_views(images, steps * self.stride, self.offset_range, self.mode)
                scores.append(class_scores(network(shown), shown.shape[2:], self.stride))
            same = self._same(*(each.argmax(dim=1) for each in scores), *offsets)
            sums += undefined_unless_finite(same, *(each.flatten(1) for each in scores))
        self.store(index, sums / self.passes)

    def _same(self, first: Tensor, second: Tensor, one: Tensor, other: Tensor) -> Tensor:
        """Returns the share of equal classes (N,) of two views (N, h, w) at offsets (N, 2), x and y, in positions."""
        found = []
        for a, b, (x, y), (u, v) in zip(first, second, one.tolist(), other.tolist(), strict=True):
            if self.mode == "circular":
                equal = a.roll((-y, -x), (0, 1)) == b.roll((-v, -u), (0, 1))
            else:
                # a window that begins further on shows its content further back
                down, right = (v - y, u - x) if self.mode not in WINDOWS else (y - v, x - u)
                equal = _overlap(a, -down, -right) == _overlap(b, down, right)
            found.append(equal.double().mean())
        return torch.stack(found)

    def compute(self) -> dict[str, Tensor]:
        """Returns the percentage."""
        return self.with_intervals({self.name: lambda row: float(100 * row[0])})


def _overlap(classes: Tensor, down: int, right: int) -> Tensor:
    """Returns the part of a map (h, w) that one moved by so many positions shows too."""
    height, width = classes.shape
    return classes[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)]


def class_scores(output: Any, image_size: Sequence[int], stride: int) -> Tensor:
    """Returns the class scores (N, classes, h, w) that a network gives for images.

    Args:
        output: What the network gave.
        image_size: (H, W) of the images.
        stride: Pixels for each position.

    Raises:
        TinvError: If it is no map with a position for each `stride` pixels.
    """
    scores = output.get("out") if isinstance(output, Mapping) else output
    expected = tuple(-(-size // stride) for size in image_size)
    if isinstance(scores, Tensor) and scores.dim() == 4 and tuple(scores.shape[2:]) == expected:
        return scores
    what = f"{tuple(scores.shape)}" if isinstance(scores, Tensor) else f"a {type(output).__name__}"
    raise TinvError(
        f"the network returns {what}, not class scores (N, classes, {expected[0]}, {expected[1]}) for images of "
        f"{'x'.join(map(str, image_size))} pixels at stride {stride}; give the stride of its output, or choose a "
        "network that segments"
    )
