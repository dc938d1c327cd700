"""How a map is thinned out: plain strides, dense (no thinning, dilation instead), or a blur before the stride."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinv.errors import TinvError, unknown
from tinv.policies.cards import SUBSAMPLINGS, Subsampling
from tinv.policies.padding import Content, check_kernel_fits, pad


def check_subsampling(policy: str) -> Subsampling:
    """Returns `policy` if it is the name of a subsampling policy, else raises TinvError naming the nearest ones."""
    if policy not in SUBSAMPLINGS:
        raise unknown("subsampling", policy, SUBSAMPLINGS)
    return policy


def blur_size(policy: Subsampling) -> int | None:
    """Returns the filter size of a `blur` policy, None for the others."""
    return int(policy.removeprefix("blur")) if policy.startswith("blur") else None


class BlurPool(nn.Module):
    """Low-pass filter, then stride: the anti-aliased subsampling of Zhang (ICML 2019).

    The filter is the outer product of the binomial row of `size` numbers ([1, 2, 1] / 4 for 3). Every stride and every
    map size gives ceil(size / stride) pixels. Even filters look half a pixel to the right (their extra padding pixel
    goes right), so 32 pixels become 16, never 17.

    Args:
        size: of the filter, 1 to 7; 1 is plain sampling.
        stride: pixels, one number for all axes or one for each.
        content: of the (size - 1) padding pixels an axis; `background` takes it from a PolicySequential.

    Shape:
        (N, C, *spatial) -> (N, C, *ceil(spatial / stride)), one to three spatial axes.

    Raises:
        TinvError: if the size is not 1 to 7.
    """

    def __init__(self, size: int, stride: int | Sequence[int] = 2, content: Content = "zero") -> None:
        super().__init__()
        if not 1 <= size <= 7:
            raise TinvError(f"blur filter size must be 1 to 7, not {size}")
        self.size, self.stride, self.padding_content = size, stride, content
        row = torch.tensor([comb(size - 1, i) for i in range(size)], dtype=torch.float64) / 2 ** (size - 1)
        # a constant, not part of the state dict: published weights must still load
        self.register_buffer("row", row.to(torch.get_default_dtype()), persistent=False)
        self.row: Tensor

    def forward(self, images: Tensor, background: Tensor | None = None) -> Tensor:
        axes = images.dim() - 2
        stride = [self.stride] * axes if isinstance(self.stride, int) else list(self.stride)
        if self.size == 1:
            return images[(slice(None), slice(None), *(slice(None, None, s) for s in stride))]
        reach = self.size - 1
        images = pad(images, [(reach // 2, reach - reach // 2)] * axes, self.padding_content, background)
        check_kernel_fits("blur", [self.size] * axes, images.shape[2:])
        return self._filter(images, stride)

    def _filter(self, images: Tensor, stride: list[int]) -> Tensor:
        channels, axes = images.shape[1], len(stride)
        row = self.row.to(images.dtype)
        kernel = row
        for _ in range(axes - 1):
            kernel = kernel.unsqueeze(-1) * row
        kernel = kernel.expand(channels, 1, *kernel.shape)
        conv = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
        return conv(images, kernel, stride=stride, groups=channels)

    def blank_response(self, background: Tensor) -> Tensor:
        """Returns this layer's output for an image that is `background` everywhere: the filter sums to one."""
        return background

    def extra_repr(self) -> str:
        return f"size={self.size}, stride={self.stride}, {self.padding_content}"
