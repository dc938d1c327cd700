"""The image rolled so that the pixel of the largest score lies in the middle: the same for every circular shift."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tinv.errors import TinvError
from tinv.nn.tokens import first_largest
from tinv.select.scores import LocalScore, Score, make_score, map_of, rounding_of
from tinv.select.selection import Selection, check_images


class CircularCanonical(Selection):
    """Shows a network each image rolled so that the pixel with the largest score lies in the middle.

    Rolled images give the same rolled image, so that the output of any network is the same to the last bit for every
    circular shift. What it costs is accuracy on unmoved images, whose border comes to lie in their middle.

    Of equal scores the first by rows is taken, which does not follow the content: an image with two equal maxima has no
    certificate.

    Args:
        network: Any callable that takes images (N, C, H, W).
        score: A `ScoreName`, or a callable that maps images to scores (N, 1, H', W'). Where its map is smaller than the
            image, the image is wrapped around by the difference first; one that is as large has to wrap around itself.

    Raises:
        TinvError: For an unknown score, and later for images that are smaller than its window.

    Shape:
        (N, C, H, W) -> what the network returns; the network sees (N, C, H, W).

    Source:
        The choice by a maximum: Shifman & Weiss, ECCV 2024, arXiv 2404.07153.

    Examples:
        >>> stable = CircularCanonical(torch.nn.Flatten())
        >>> images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> bool((stable(images) == stable(images.roll((5, -2), (2, 3)))).all())
        True
    """

    def __init__(self, network: Callable[[Tensor], Any], score: Score = "random") -> None:
        super().__init__(network)
        self.score = make_score(score)

    def position(self, images: Tensor) -> Tensor:
        """Returns the row and column of each image that become the first: (N, 2)."""
        check_images(images, type(self).__name__)
        middle = torch.tensor([images.shape[2] // 2, images.shape[3] // 2], device=images.device)
        sizes = torch.tensor([images.shape[2], images.shape[3]], device=images.device)
        return (first_largest(self.scores(images)[:, 0]) - middle) % sizes

    def scores(self, images: Tensor) -> Tensor:
        """Returns the score of every pixel of images (N, C, H, W), wrapped around: (N, 1, H, W)."""
        images = images.detach()
        if isinstance(self.score, LocalScore):
            margins = (self.score.margin, self.score.margin)
        else:
            found, margins = map_of(self.score, images)
            if not any(margins):
                return found
        if any(margin > size for margin, size in zip(margins, images.shape[2:], strict=True)):
            raise TinvError(
                f"the score sees {2 * margins[0] + 1}x{2 * margins[1] + 1} pixels, too many for images of "
                f"{images.shape[2]}x{images.shape[3]}; take a smaller filter"
            )
        wrapped = F.pad(images, (margins[1], margins[1], margins[0], margins[0]), mode="circular")
        return map_of(self.score, wrapped)[0]

    @torch.no_grad()
    def certificate(self, images: Tensor) -> Tensor:
        """Returns how far each image may move, wrapped around, while the network surely sees the same pixels.

        That is every circular shift by whole pixels, which are those by up to half of the larger side, unless two
        scores are equal to rounding.

        Args:
            images: Images (N, C, H, W).

        Returns:
            (N,) integers, pixels: max(H, W) // 2 where the maximum is unique, else 0.
        """
        check_images(images, type(self).__name__)
        scores = self.scores(images)
        largest = scores.flatten(1).topk(2).values
        unique = largest[:, 0] - largest[:, 1] > rounding_of(self.score, images, scores)
        return (max(images.shape[2:]) // 2 * unique).long()
