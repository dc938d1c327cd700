"""Max and average pooling of any kernel and stride, with the padding policies of convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinv.deprecation import renamed
from tinv.errors import TinvError
from tinv.nn.pad_widths import (
    Amount,
    PadWidths,
    axis_modes,
    effective_kernel_size,
    to_ntuple,
    window_count,
    window_widths,
)
from tinv.nn.padding import CONVOLUTIONS, check_axes, check_kernel_fits, pad, standard_padding, to_f_pad_order

Kind = Literal["max", "average"]
AVERAGES: tuple[Callable[..., Tensor], ...] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
"""Torch's average pool of one, two and three spatial axes."""


class Pool(nn.Module):
    """Pools each channel over a window, under a padding policy.

    Zero padding adds nothing to a maximum, which is padded with minus infinity. An average counts the zeros of
    full padding, whose canvas extends beyond the border, so that an object weighs the same there as inside; it does
    not count those of any other. The other padding modes (circular, reflect, replicate, background) give real pixels,
    which count.

    Args:
        kind: `max` or `average`.
        kernel_size: Pixels, one number for all axes or one for each.
        stride: Pixels; 1 keeps the resolution.
        padding: `valid`, `same` or `full`, or pixels: one number, one for each axis, or a pair (left, right) for each.
        dilation: Pixels between the pixels of the window.
        padding_mode: What the border holds: `zeros`, `circular`, `circular_width`, `reflect`, `replicate`,
            `symmetric`, a tuple of one of them for each axis, or the dotted path of a function of your own.
        ceil_mode: Adds a last window that begins inside the map and ends outside of it, as in torch.
        count_include_pad: Whether an average counts zeros; None: under `full` padding alone.

    Shape:
        (N, C, *spatial) -> (N, C, *spatial'), one to three spatial axes.

    Raises:
        TinvError: When run, if the kernel is larger than the padded map, or if a window holds nothing but padding.
    """

    @renamed(amounts="padding", count_padding="count_include_pad")
    def __init__(
        self,
        kind: Kind,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: Amount | int | Sequence[int] | PadWidths | str = "valid",
        dilation: int | Sequence[int] = 1,
        *,
        padding_mode: str | Sequence[str] = "zeros",
        ceil_mode: bool = False,
        count_include_pad: bool | None = None,
    ) -> None:
        super().__init__()
        self.kind, self.kernel_size, self.stride, self.dilation = kind, kernel_size, stride, dilation
        given = "valid" if padding == "keep" else padding
        self.padding, self.padding_mode = standard_padding(given, padding_mode, "Pool")
        self.ceil_mode = ceil_mode
        self.count_include_pad = self.padding == "full" if count_include_pad is None else count_include_pad

    def pad_widths(self, kernel_size: Sequence[int], dilation: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Returns the pixels (left, right) that are added on each axis."""
        return window_widths(self.padding, kernel_size, dilation)

    def forward(self, images: Tensor, background: Tensor | None = None) -> Tensor:
        # the window says how many axes there are, unless it is one number for all
        axes = images.dim() - 2 if isinstance(self.kernel_size, int) else len(self.kernel_size)
        check_axes(f"{self.kind} pool", images, min(max(axes, 1), 3))
        kernel, stride, dilation = (to_ntuple(v, axes) for v in (self.kernel_size, self.stride, self.dilation))
        widths: PadWidths = self.pad_widths(kernel, dilation)
        effective = effective_kernel_size(kernel, dilation)
        sizes = [size + left + right for size, (left, right) in zip(images.shape[2:], widths, strict=True)]
        check_kernel_fits(f"{self.kind} pool", effective, sizes)
        ceil_mode, mode = self.ceil_mode, self.padding_mode
        if mode == "circular_width" or "+" in mode:
            if ceil_mode:
                axes_of_map = zip(images.shape[2:], widths, effective, stride, strict=True)
                widths = [(pair[0], pair[1] + _missing(size, pair, e, s)) for size, pair, e, s in axes_of_map]
            # real pixels first; zeros are left to what follows, since not all of them count
            zeros = [own == "zeros" for own in axis_modes(mode, axes)]
            images = pad(
                images, [(0, 0) if z else pair for z, pair in zip(zeros, widths, strict=True)], mode, background
            )
            widths = [pair if z else (0, 0) for z, pair in zip(zeros, widths, strict=True)]
            ceil_mode, mode = False, "zeros"
        if mode == "zeros" and (self.kind == "max" or not self.count_include_pad):
            self._check_windows(images.shape[2:], widths, kernel, stride, dilation)
        native = all(left == right <= k // 2 for (left, right), k in zip(widths, kernel, strict=True)) and (
            self.kind == "max" or all(d == 1 for d in dilation)
        )
        if mode != "zeros" or not native:
            if ceil_mode:
                axes_of_map = zip(images.shape[2:], widths, effective, stride, strict=True)
                widths = [(pair[0], pair[1] + _missing(size, pair, e, s)) for size, pair, e, s in axes_of_map]
                ceil_mode = False
            if mode != "zeros":
                images, widths = pad(images, widths, mode, background), [(0, 0)] * axes
            elif self.kind == "max":
                images, widths = F.pad(images, to_f_pad_order(widths), value=float("-inf")), [(0, 0)] * axes
        inside = [left for left, _ in widths]
        if self.kind == "max":
            pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[axes - 1]
            return pool(images, kernel, stride, inside, dilation, ceil_mode)
        if native:
            return AVERAGES[axes - 1](images, kernel, stride, inside, ceil_mode, self.count_include_pad)
        mean = _window_mean(pad(images, widths), kernel, stride, dilation)
        if self.count_include_pad or not any(map(any, widths)):
            return mean
        return mean / _window_mean(pad(torch.ones_like(images[:1, :1]), widths), kernel, stride, dilation)

    def _check_windows(
        self,
        sizes: Sequence[int],
        widths: PadWidths,
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
    ) -> None:
        """Raises TinvError if a window holds no pixel of the map, which has then no maximum and no mean."""
        for size, (left, right), k, s, d in zip(sizes, widths, kernel, stride, dilation, strict=True):
            if size >= d:  # no window can step over the map
                continue
            for first in range(-left, size + right - d * (k - 1), s):
                if not any(0 <= first + d * tap < size for tap in range(k)):
                    raise TinvError(
                        f"{self.kind} pool: its map of {'x'.join(map(str, sizes))} is smaller than the dilation {d}, "
                        "so that some windows hold padding only; use a larger image, or strides in place of dilation"
                    )

    def extra_repr(self) -> str:
        padding = f"padding={self.padding}, padding_mode={self.padding_mode}"
        return f"{self.kind}, kernel_size={self.kernel_size}, stride={self.stride}, {padding}" + (
            ", ceil_mode=True" if self.ceil_mode else ""
        )


def _missing(size: int, widths: tuple[int, int], effective: int, stride: int) -> int:
    """Returns the pixels that torch's ceil_mode adds on the right: its last window begins inside the map."""
    windows = window_count(size, widths, effective, stride, ceil_mode=True)
    return max(0, (windows - 1) * stride + effective - (size + sum(widths)))


def _window_mean(images: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> Tensor:
    """Returns the mean over each window, padding included."""
    if all(d == 1 for d in dilation):
        return AVERAGES[len(kernel) - 1](images, kernel, stride)
    channels = images.shape[1]
    weight = images.new_full((channels, 1, *kernel), 1 / math.prod(kernel))
    return CONVOLUTIONS[len(kernel) - 1](images, weight, stride=stride, dilation=dilation, groups=channels)
