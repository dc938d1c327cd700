"""Max and average pooling of any kernel and stride, with the padding policies of convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinv.errors import TinvError
from tinv.nn.padding import (
    Amount,
    Amounts,
    Content,
    check_axes,
    check_kernel_fits,
    each_axis,
    flat,
    of_policy_name,
    pad,
    window_widths,
)

Kind = Literal["max", "average"]


class Pool(nn.Module):
    """Pools each channel over a window, under a padding policy.

    Zero padding adds nothing to a maximum, which is padded with minus infinity. An average counts the zeros of
    full padding, whose canvas extends beyond the border, so that an object weighs the same there as inside; it does
    not count those of any other. The other contents (circular, reflect, replicate, background) are real pixels and
    count.

    Args:
        kind: `max` or `average`.
        kernel_size: pixels, one number for all axes or one for each.
        stride: pixels; 1 is dense pooling, which keeps the resolution.
        padding: `valid`, `same` or `full`, or pixels: one number, one for each axis, or a pair (left, right) for each.
        dilation: pixels between the pixels of the window.
        padding_mode: what the border holds: `zeros`, `circular`, `reflect`, `replicate`, or the dotted path of a
            function of your own.
        amounts: old name of `padding` as a pair for each axis.
        ceil_mode: adds a last window that begins inside the map and ends outside of it, as in torch.
        count_padding: whether an average counts zeros; None: under `full` padding alone.

    Shape:
        (N, C, *spatial) -> (N, C, *spatial'), one to three spatial axes.

    Raises:
        TinvError: when run, if the kernel is larger than the padded map, or if a window holds nothing but padding.
    """

    def __init__(
        self,
        kind: Kind,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: Amount | int | Sequence[int] | Amounts | str = "valid",
        dilation: int | Sequence[int] = 1,
        *,
        padding_mode: Content = "zeros",
        amounts: Amounts | None = None,
        ceil_mode: bool = False,
        count_padding: bool | None = None,
    ) -> None:
        super().__init__()
        self.kind, self.kernel_size, self.stride, self.dilation = kind, kernel_size, stride, dilation
        self.padding, mode = of_policy_name("valid" if padding == "keep" else padding, padding_mode, "Pool")
        self.padding = self.padding if amounts is None else amounts
        self.padding_content = mode
        self.ceil_mode = ceil_mode
        self.count_padding = self.padding == "full" if count_padding is None else count_padding

    def widths(self, kernel_size: Sequence[int], dilation: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Returns the pixels (left, right) that are added on each axis."""
        return window_widths(self.padding, kernel_size, dilation)

    def forward(self, images: Tensor, background: Tensor | None = None) -> Tensor:
        # the window says how many axes there are, unless it is one number for all
        axes = images.dim() - 2 if isinstance(self.kernel_size, int) else len(self.kernel_size)
        check_axes(f"{self.kind} pool", images, min(max(axes, 1), 3))
        kernel, stride, dilation = (each_axis(v, axes) for v in (self.kernel_size, self.stride, self.dilation))
        amounts: Amounts = self.widths(kernel, dilation)
        reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        sizes = [size + left + right for size, (left, right) in zip(images.shape[2:], amounts, strict=True)]
        check_kernel_fits(f"{self.kind} pool", reach, sizes)
        if self.padding_content == "zeros" and (self.kind == "max" or not self.count_padding):
            self._check_windows(images.shape[2:], amounts, kernel, stride, dilation)
        ceil_mode = self.ceil_mode
        native = all(left == right <= k // 2 for (left, right), k in zip(amounts, kernel, strict=True)) and (
            self.kind == "max" or all(d == 1 for d in dilation)
        )
        if self.padding_content != "zeros" or not native:
            if ceil_mode:
                amounts = [
                    (left, right + _missing(size, left, right, r, s))
                    for size, (left, right), r, s in zip(images.shape[2:], amounts, reach, stride, strict=True)
                ]
                ceil_mode = False
            if self.padding_content != "zeros":
                images = pad(images, amounts, self.padding_content, background)
                amounts = [(0, 0)] * axes
            elif self.kind == "max":
                images = F.pad(images, flat(amounts), value=float("-inf"))
                amounts = [(0, 0)] * axes
        if self.kind == "max":
            pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[axes - 1]
            return pool(images, kernel, stride, [left for left, _ in amounts], dilation, ceil_mode)
        if native or not any(left or right for left, right in amounts):
            if all(d == 1 for d in dilation):
                average = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1]
                return average(images, kernel, stride, [left for left, _ in amounts], ceil_mode, self.count_padding)
            return _window_mean(images, kernel, stride, dilation)
        mean = _window_mean(F.pad(images, flat(amounts)), kernel, stride, dilation)
        if self.count_padding:
            return mean
        return mean / _window_mean(F.pad(torch.ones_like(images[:1, :1]), flat(amounts)), kernel, stride, dilation)

    def _check_windows(
        self, sizes: Sequence[int], amounts: Amounts, kernel: list[int], stride: list[int], dilation: list[int]
    ) -> None:
        """Raises TinvError if a window holds no pixel of the map, which has then no maximum and no mean."""
        for size, (left, right), k, s, d in zip(sizes, amounts, kernel, stride, dilation, strict=True):
            if size >= d:  # no window can step over the map
                continue
            for first in range(-left, size + right - d * (k - 1), s):
                if not any(0 <= first + d * tap < size for tap in range(k)):
                    raise TinvError(
                        f"{self.kind} pool: its map of {'x'.join(map(str, sizes))} is smaller than the dilation {d}, "
                        "so that some windows hold padding only; use a larger image, or strides in place of dilation"
                    )

    def extra_repr(self) -> str:
        padding = f"padding={self.padding}, padding_mode={self.padding_content}"
        return f"{self.kind}, kernel_size={self.kernel_size}, stride={self.stride}, {padding}" + (
            ", ceil_mode=True" if self.ceil_mode else ""
        )


def _missing(size: int, left: int, right: int, reach: int, stride: int) -> int:
    """Returns the pixels that torch's ceil_mode adds on the right: its last window begins inside the map."""
    windows = -(-(size + left + right - reach) // stride) + 1
    if (windows - 1) * stride >= size + left:
        windows -= 1
    return max(0, (windows - 1) * stride + reach - (size + left + right))


def _window_mean(images: Tensor, kernel: list[int], stride: list[int], dilation: list[int]) -> Tensor:
    """Returns the mean over each window, padding included."""
    if all(d == 1 for d in dilation):
        return (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[images.dim() - 3](images, kernel, stride)
    channels = images.shape[1]
    weight = images.new_full((channels, 1, *kernel), 1 / math.prod(kernel))
    conv = (F.conv1d, F.conv2d, F.conv3d)[images.dim() - 3]
    return conv(images, weight, stride=stride, dilation=dilation, groups=channels)
