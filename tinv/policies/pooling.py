"""Max and average pooling of any kernel and stride, with the padding policies of convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinv.policies.cards import Padding
from tinv.policies.padding import check_kernel_fits, check_padding, flat, pad, padding_amounts, padding_content

Kind = Literal["max", "average"]


class Pool(nn.Module):
    """Pools each channel over a window, under a padding policy.

    Zero padding adds nothing to a pool: a maximum is padded with minus infinity, an average does not count the padded
    pixels. The other contents (circular, reflect, replicate, background) are real pixels and count.

    Args:
        kind: `max` or `average`.
        kernel_size: pixels, one number for all axes or one for each.
        stride: pixels; 1 is dense pooling, which keeps the resolution.
        padding_policy: any padding name but `keep`.
        dilation: pixels between the pixels of the window.

    Shape:
        (N, C, *spatial) -> (N, C, *spatial'), one to three spatial axes.

    Raises:
        TinvError: when run, if the kernel is larger than the padded map.
    """

    def __init__(
        self,
        kind: Kind,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding_policy: Padding = "valid",
        dilation: int | Sequence[int] = 1,
    ) -> None:
        super().__init__()
        self.kind, self.kernel_size, self.stride, self.dilation = kind, kernel_size, stride, dilation
        self.padding_policy = check_padding(padding_policy)
        self.padding_content = padding_content(self.padding_policy)

    def forward(self, images: Tensor, background: Tensor | None = None) -> Tensor:
        axes = images.dim() - 2
        kernel, stride, dilation = (_each_axis(v, axes) for v in (self.kernel_size, self.stride, self.dilation))
        amounts = padding_amounts(self.padding_policy, kernel, dilation)
        reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        sizes = [size + left + right for size, (left, right) in zip(images.shape[2:], amounts, strict=True)]
        check_kernel_fits(f"{self.kind} pool", reach, sizes)
        if self.kind == "max":
            pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[axes - 1]
            if self.padding_content != "zero":
                images = pad(images, amounts, self.padding_content, background)
            elif all(left == right <= k // 2 for (left, right), k in zip(amounts, kernel, strict=True)):
                return pool(images, kernel, stride, [left for left, _ in amounts], dilation)
            else:
                images = F.pad(images, flat(amounts), value=float("-inf"))
            return pool(images, kernel, stride, 0, dilation)
        if self.padding_content != "zero":
            return self._window_mean(pad(images, amounts, self.padding_content, background), kernel, stride, dilation)
        counted = self._window_mean(F.pad(torch.ones_like(images[:1, :1]), flat(amounts)), kernel, stride, dilation)
        return self._window_mean(F.pad(images, flat(amounts)), kernel, stride, dilation) / counted

    @staticmethod
    def _window_mean(images: Tensor, kernel: list[int], stride: list[int], dilation: list[int]) -> Tensor:
        """Returns the mean over each window, padding included."""
        if all(d == 1 for d in dilation):
            return (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[images.dim() - 3](images, kernel, stride)
        channels = images.shape[1]
        weight = images.new_full((channels, 1, *kernel), 1 / math.prod(kernel))
        conv = (F.conv1d, F.conv2d, F.conv3d)[images.dim() - 3]
        return conv(images, weight, stride=stride, dilation=dilation, groups=channels)

    def blank_response(self, background: Tensor) -> Tensor:
        """Returns this layer's output for an image that is `background` everywhere: the same constant."""
        return background

    def extra_repr(self) -> str:
        return (
            f"{self.kind}, kernel_size={self.kernel_size}, stride={self.stride}, padding_policy={self.padding_policy}"
        )


def _each_axis(value: int | Sequence[int], axes: int) -> list[int]:
    return [value] * axes if isinstance(value, int) else list(value)
