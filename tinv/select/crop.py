"""The window of an image that its content says, and how far the image may move while it stays the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tinv.errors import TinvError
from tinv.nn.pad_widths import to_ntuple
from tinv.nn.tokens import first_largest
from tinv.select.scores import LocalScore, Score, make_score, map_of, rounding_of
from tinv.select.selection import Selection, check_images
from tinv.utils.arguments import Checked, NonNegativeInt


class CenterCrop(Selection):
    """Shows a network the middle of each image: what `CropSelect` is compared with.

    Args:
        network: Any callable that takes images (N, C, H, W).
        crop: Pixels that it sees, one number or (H, W).

    Raises:
        TinvError: For a crop that is no size in pixels, and later for images that are smaller.

    Examples:
        >>> CenterCrop(lambda images: images.mean((2, 3)), 4)(torch.ones(2, 3, 6, 6)).shape
        torch.Size([2, 3])
    """

    def __init__(self, network: Callable[[Tensor], Any], crop: int | Sequence[int]) -> None:
        super().__init__(network)
        self.crop = _size(crop)

    def size(self, images: Tensor) -> tuple[int, int]:
        """Returns the pixels (H, W) of the crop."""
        return self.crop

    def position(self, images: Tensor) -> Tensor:
        """Returns the first row and column of the crop of each image: (N, 2)."""
        self.positions(images.shape)
        corner = [(have - crop) // 2 for have, crop in zip(images.shape[2:], self.crop, strict=True)]
        return torch.tensor(corner, device=images.device).expand(images.shape[0], 2)

    def positions(self, shape: Sequence[int]) -> tuple[int, int]:
        """Returns how many positions the crop has along both axes of images of a shape (N, C, H, W).

        Raises:
            TinvError: If the crop is larger than the images.
        """
        found = shape[2] - self.crop[0] + 1, shape[3] - self.crop[1] + 1
        if min(found) < 1:
            raise TinvError(
                f"{type(self).__name__} cuts {self.crop[0]}x{self.crop[1]} pixels, and the images have "
                f"{shape[2]}x{shape[3]}; give larger images or a smaller crop"
            )
        return found

    def extra_repr(self) -> str:
        return f"crop={self.crop[0]}x{self.crop[1]}"


class CropSelect(CenterCrop, Checked):
    """Shows a network the crop of each image whose centre has the largest score, of all crops that the image holds.

    When the image moves under the window that the module is given, the scores move with it. As long as the same pixel
    keeps the largest score, the same crop is cut and the network's input is the same to the last bit. What a move
    brings is either that the maximum leaves the range of positions, or that a larger score enters it.

    Maxima crowd at the border of the range, where the score often rises further outside: the next pixel then enters and
    is the larger one. With `suppress` only pixels count whose score is the largest within so many pixels, as seen on
    pixels of the image inside and outside of the range. If there is none in the range, the largest score is taken.

    Of equal scores the first by rows is taken. Whatever is chosen among equal scores does not follow the content.

    Args:
        network: Any callable that takes images (N, C, h, w), (h, w) the size of the crop.
        crop: Pixels that the network sees, one number or (h, w).
        score: A `ScoreName`, or a callable that maps images to scores (N, 1, H', W'), such as `RandomFilter(size=7)`.
        suppress: Radius in pixels within which a chosen score is the largest; 0 takes the largest score of the range.

    Raises:
        TinvError: For an unknown score, a filter or a radius that reaches beyond the crop, and later for images that
            are smaller than the crop.

    Shape:
        (N, C, H, W) -> what the network returns. There are (H - h + 1) x (W - w + 1) positions; `range_for` says how
        many are needed.

    Source:
        Shifman & Weiss, ECCV 2024, arXiv 2404.07153. The suppression is tinv's.

    Examples:
        >>> stable = CropSelect(lambda images: images.mean((2, 3)), crop=24)
        >>> scene = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(3))
        >>> stable.certificate(scene, window=34)
        tensor([3])
        >>> bool((stable(scene[:, :, 3:37, 3:37]) == stable(scene[:, :, 0:34, 1:35])).all())
        True
    """

    def __init__(
        self,
        network: Callable[[Tensor], Any],
        crop: int | Sequence[int],
        score: Score = "random",
        suppress: NonNegativeInt = 4,
    ) -> None:
        super().__init__(network, crop)
        self.score, self.suppress = make_score(score), suppress
        if isinstance(self.score, LocalScore):
            self._check_reach((self.score.margin, self.score.margin))

    def position(self, images: Tensor) -> Tensor:
        """Returns the first row and column of the chosen crop of each image: (N, 2)."""
        check_images(images, type(self).__name__)
        self.positions(images.shape)
        return first_largest(self._candidates(self.scores(images)))

    def scores(self, images: Tensor) -> Tensor:
        """Returns the score of every crop of images (N, C, H, W), and of `suppress` positions more on each side.

        Returns:
            (N, 1, H - h + 1 + 2 * suppress, W - w + 1 + 2 * suppress), in float32 or better.
        """
        images = images.detach()
        counts = [count + 2 * self.suppress for count in self.positions(images.shape)]
        first = [crop // 2 - self.suppress for crop in self.crop]
        if isinstance(self.score, LocalScore):  # of the image only what the scores see
            rows, columns = (
                slice(start - self.score.margin, start + count + self.score.margin)
                for start, count in zip(first, counts, strict=True)
            )
            return map_of(self.score, images[:, :, rows, columns])[0]
        found, margins = map_of(self.score, images)
        self._check_reach(margins)
        rows, columns = (
            slice(start - margin, start - margin + count)
            for start, margin, count in zip(first, margins, counts, strict=True)
        )
        return found[:, :, rows, columns]

    @torch.no_grad()
    def certificate(self, images: Tensor, window: int | Sequence[int]) -> Tensor:
        """Returns how far each image may move under the window while the network surely sees the same crop.

        The images hold more than the window that the module is given, since what enters at its border decides: of the
        window alone nothing but 0 pixels could be said. It covers every shift by up to d whole pixels along both axes
        at once, in both directions, of real pixels: neither shifts by parts of a pixel nor what resizing, noise or
        compression do. It speaks of the network's input; an answer may stay the same far beyond it. It holds for
        scores that see the pixels near them alone, see `Score`.

        For the chosen pixel p it is the least of: the distance of p to the border of the range, what is left of the
        image around the window, and the distance from the range to the nearest pixel whose score is at least that of p,
        less 1. This is exact but for rounding: scores that differ by less than rounding may count as equal.

        Args:
            images: Images (N, C, H, W), larger than the window, which lies in their middle (with the smaller margin
                above and to the left).
            window: Pixels that the module is given, one number or (H, W).

        Returns:
            (N,) integers, pixels, 0 to the smallest margin around the window.

        Raises:
            TinvError: If the window is larger than the images, or smaller than the crop.
        """
        check_images(images, type(self).__name__)
        size = _size(window, "window")
        self.positions((*images.shape[:2], *size))
        corner = [(have - seen) // 2 for have, seen in zip(images.shape[2:], size, strict=True)]
        if min(corner) < 0:
            raise TinvError(
                f"window {size[0]}x{size[1]} is larger than the images of {images.shape[2]}x{images.shape[3]}"
            )
        room = min(corner)
        rows, columns = (slice(c - room, c + seen + room) for c, seen in zip(corner, size, strict=True))
        scene = images[:, :, rows, columns]
        scores = self.scores(scene)
        return self._certificate(scores, rounding_of(self.score, scene, scores), room)

    def _certificate(self, scores: Tensor, rounding: Tensor, room: int) -> Tensor:
        """Returns the certificate (N,) from scores of all windows up to `room` pixels around the given one."""
        everyone = torch.arange(len(scores), device=scores.device)
        inner = scores[:, :, room : scores.shape[2] - room, room : scores.shape[3] - room]
        row, column = first_largest(self._candidates(inner)).T
        counts = [pixels - 2 * self.suppress for pixels in inner.shape[2:]]
        least, s = rounding[:, None, None], self.suppress
        others = scores.clone()
        others[everyone, 0, room + row + s, room + column + s] = -torch.inf
        mine = self._within(scores)[everyone, row + room, column + room]
        is_peak = mine > self._around(others)[everyone, row + room, column + room] + rounding
        may_win = self._within(scores) >= mine[:, None, None] - least
        may_be_peak = self._within(scores) >= self._around(scores) - least
        rival = torch.where(is_peak[:, None, None], may_win & may_be_peak, may_win | may_be_peak)
        rival[everyone, row + room, column + room] = False
        away = _distance(counts, room, scores.device)
        nearest = away.masked_fill(~rival, room + 1).flatten(1).amin(1) - 1
        inside = torch.stack([row, counts[0] - 1 - row, column, counts[1] - 1 - column]).amin(0)
        found = torch.minimum(nearest, inside).clamp(0, room)
        return found.where(scores.flatten(1).isfinite().all(1), 0)

    def _within(self, scores: Tensor) -> Tensor:
        """Returns scores (N, h, w) without the `suppress` positions around the range."""
        s = self.suppress
        return scores[:, 0, s : scores.shape[2] - s, s : scores.shape[3] - s]

    def _around(self, scores: Tensor) -> Tensor:
        """Returns the largest score within `suppress` pixels of every position of the range: (N, h, w)."""
        side = 2 * self.suppress + 1  # along one axis, then along the other: the cost of a line, not of a square
        return F.max_pool2d(F.max_pool2d(scores, (side, 1), 1), (1, side), 1)[:, 0]

    def _candidates(self, scores: Tensor) -> Tensor:
        """Returns the scores (N, h, w) of the range, -inf where another one close by is larger."""
        if not self.suppress:
            return scores[:, 0]
        within = self._within(scores)
        peaks = within >= self._around(scores)
        # without a peak in the range: the largest
        peaks = peaks | ~peaks.flatten(1).any(1)[:, None, None]
        return within.masked_fill(~peaks, -torch.inf)

    def _check_reach(self, margins: tuple[int, int]) -> None:
        for crop, margin in zip(self.crop, margins, strict=True):
            if self.suppress + margin > (crop - 1) // 2:
                raise TinvError(
                    f"a score of {2 * margin + 1} pixels with suppress={self.suppress} sees beyond a crop of {crop} "
                    "pixels; take a smaller filter, a smaller suppress or a larger crop"
                )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, suppress={self.suppress}"


def _distance(counts: Sequence[int], room: int, device: torch.device) -> Tensor:
    """Returns for each position how many pixels it lies outside of the range, along the axis where that is more."""
    places = [torch.arange(-room, count + room, device=device) for count in counts]
    axes = [(at - at.clamp(0, count - 1)).abs() for at, count in zip(places, counts, strict=True)]
    return torch.maximum(axes[0][:, None], axes[1][None])[None]


def _size(pixels: int | Sequence[int], name: str = "crop") -> tuple[int, int]:
    """Returns (H, W) of one number or two.

    Raises:
        TinvError: For anything else.
    """
    sizes = to_ntuple(pixels, 2)
    if len(sizes) != 2 or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise TinvError(f"{name} must be a size in pixels such as 224 or (224, 320), not {pixels}")
    return sizes[0], sizes[1]
