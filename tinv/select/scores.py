"""Scores: one number for each pixel of an image, by its neighbourhood alone, whose maximum says where to look."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinv.errors import TinvError, unknown
from tinv.nn.precision import at_least_single, without_autocast
from tinv.utils.arguments import Checked, PositiveInt, Seed

ScoreName = Literal["random", "laplacian"]
"""random: the response to a random filter of zero mean; laplacian: the energy of the Laplacian."""

Score = ScoreName | Callable[[Tensor], Tensor]
"""A name, or what maps images (N, C, H, W) to scores (N, 1, H', W') of pixels. The map is centred on the image and
smaller by the same margin on both sides of an axis. A score has to depend on the pixels near it alone, and in the same
way everywhere, else the choice does not follow the content."""


class LocalScore(nn.Module):
    """Base of scores that see a window of 2 * margin + 1 pixels a side, and no padding.

    Attributes:
        margin: Pixels by which the map of scores is smaller than the image on each side.
    """

    margin: int

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Returns the scores (N, 1, H - 2 * margin, W - 2 * margin) of images (N, C, H, W)."""

    @abstractmethod
    def rounding(self, images: Tensor) -> Tensor:
        """Returns by how much two scores of the same pixels may differ through rounding: (N,), a bound for each image.

        A convolution may add its products in another order at another position of the image.
        """


class RandomFilter(LocalScore, Checked):
    """Response to one random filter of zero mean and unit norm, on the mean of the channels.

    Computed in float32, in float64 of images that are, also under autocast. On CUDA it is computed in float64, since
    convolutions in float32 may run in TF32 there.

    Args:
        size: Pixels a side of the filter, odd.
        seed: Seed of its weights, which are drawn from a normal distribution.

    Raises:
        TinvError: For an even size, and for one of 1, whose filter of zero mean would be 0.

    Source:
        Shifman & Weiss, ECCV 2024, arXiv 2404.07153.

    Examples:
        >>> RandomFilter(size=3)(torch.ones(2, 3, 8, 8)).shape
        torch.Size([2, 1, 6, 6])
    """

    kernel: Tensor

    def __init__(self, size: PositiveInt = 9, seed: Seed = 0) -> None:
        super().__init__()
        _check_odd(size, 3)
        self.size, self.seed, self.margin = size, seed, size // 2
        kernel = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        kernel = kernel - kernel.mean()
        # a constant, not part of the state dict, without the two axes of channels: as the filter of tinv.nn.BlurPool
        kernel = (kernel / kernel.norm()).to(torch.get_default_dtype())
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        with without_autocast(images):
            grey = _grey(images)
            return F.conv2d(grey, self._weight(grey)[None, None])

    def rounding(self, images: Tensor) -> Tensor:
        grey = _grey(images)
        largest = grey.abs().amax((1, 2, 3))
        return 2 * (self.size**2 + images.shape[1]) * _eps(grey) * self._weight(grey).abs().sum() * largest

    def _weight(self, grey: Tensor) -> Tensor:
        # centred once more: what the module holds is rounded, in half precision much
        kernel = self.kernel.to(grey.dtype)
        return kernel - kernel.mean()

    def extra_repr(self) -> str:
        return f"size={self.size}, seed={self.seed}"


class LaplacianEnergy(LocalScore, Checked):
    """Mean square of the Laplacian (four neighbours less four times the pixel) over a window around the pixel.

    It is large where there is fine detail. Channels and precision are treated as by `RandomFilter`.

    Args:
        size: Pixels a side of the window of the mean, odd.

    Raises:
        TinvError: For an even size.

    Examples:
        >>> image = torch.zeros(1, 1, 7, 7)
        >>> image[0, 0, 3, 3] = 1
        >>> LaplacianEnergy(size=1)(image)[0, 0, 2]
        tensor([ 0.,  1., 16.,  1.,  0.])
    """

    kernel: Tensor

    def __init__(self, size: PositiveInt = 9) -> None:
        super().__init__()
        _check_odd(size, 1)
        self.size, self.margin = size, size // 2 + 1
        kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(self._laplacian(images).square(), self.size, 1)

    def rounding(self, images: Tensor) -> Tensor:
        laplacian, grey = self._laplacian(images).abs().amax((1, 2, 3)), _grey(images)
        error = (5 + images.shape[1]) * _eps(grey) * 8 * grey.abs().amax((1, 2, 3))
        # the error of a square, and of the mean of squares
        return 2 * (2 * laplacian * error + error.square() + self.size**2 * _eps(grey) * laplacian.square())

    def _laplacian(self, images: Tensor) -> Tensor:
        with without_autocast(images):
            grey = _grey(images)
            return F.conv2d(grey, self.kernel.to(grey.dtype)[None, None])

    def extra_repr(self) -> str:
        return f"size={self.size}"


def make_score(score: Score) -> Callable[[Tensor], Tensor]:
    """Returns the score of a name, and any other score as it is.

    Raises:
        TinvError: For an unknown name, and for what cannot be called.
    """
    if callable(score):
        return score
    if not isinstance(score, str):
        raise TinvError(f"score is {score!r}; give a name or a callable that maps images to scores (N, 1, H', W')")
    if score not in get_args(ScoreName):
        raise unknown("score", score, get_args(ScoreName))
    return RandomFilter() if score == "random" else LaplacianEnergy()


def map_of(score: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Returns the scores of images, and by how many pixels their map is smaller on each side of both axes.

    Args:
        score: Maps images (N, C, H, W) to (N, 1, H', W').
        images: The images.

    Raises:
        TinvError: If it returns anything else, or a map that is not centred on the pixels.
    """
    with without_autocast(images):
        found = score(images)
    if not isinstance(found, Tensor) or found.dim() != 4 or found.shape[1] != 1:
        what = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise TinvError(f"the score returns {what} for images {tuple(images.shape)}, not one map (N, 1, H', W')")
    less = [have - got for have, got in zip(images.shape[2:], found.shape[2:], strict=True)]
    if any(pixels < 0 or pixels % 2 for pixels in less):
        raise TinvError(
            f"the score maps images of {images.shape[2]}x{images.shape[3]} pixels to {found.shape[2]}x{found.shape[3]} "
            "scores, which cannot be centred on pixels; let both sizes be as large, or smaller by an even number"
        )
    return at_least_single(found), (less[0] // 2, less[1] // 2)


def rounding_of(score: Callable[[Tensor], Tensor], images: Tensor, scores: Tensor) -> Tensor:
    """Returns by how much scores (N, 1, h, w) of the same pixels of images may differ through rounding: (N,)."""
    if isinstance(score, LocalScore):
        return score.rounding(images)
    # of a score that is not known: a thousand roundings of its largest value
    return 1000 * _eps(scores) * scores.abs().amax((1, 2, 3))


def _check_odd(size: int, least: int) -> None:
    if size % 2 == 0 or size < least:
        raise TinvError(f"size must be an odd number of pixels from {least} on, not {size}")


def _grey(images: Tensor) -> Tensor:
    images = images.double() if images.is_cuda else at_least_single(images)
    return images.mean(1, keepdim=True)


def _eps(values: Tensor) -> float:
    return torch.finfo(values.dtype).eps
