"""The network of the stride and kernel size grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from tinv.errors import TinvError, unknown
from tinv.models.plain import Head, PlainBuilder, PlainNetwork
from tinv.nn.padding import check_padding
from tinv.policies.cards import Padding, Subsampling

StrideOrder = Literal["first", "last"]
PoolKind = Literal["max", "average"]


def pooling_cnn(
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    input_size: tuple[int, ...] = (50, 50),
    padding: Padding = "keep",
    subsampling: Subsampling = "keep",
    kernel_size: int = 2,
    subsampling_factor: int = 8,
    stride_order: StrideOrder = "first",
    pool_kind: PoolKind = "max",
    pool_padding: Padding = "same_zero",
    channels: Sequence[int] = (16, 32, 64),
    head: Literal["flatten", "gap"] = "flatten",
    antialias: int | None = None,
) -> PlainNetwork:
    """Three 3x3 convolutions, each followed by a k x k pool; the pools' strides multiply to the factor (Mouton 2020).

    What the paper leaves open is an option here: stride order, pool padding, channels.

    Args:
        num_classes: numbers in the output vector.
        in_channels: of the image.
        input_size: (H, W) in pixels.
        padding: policy of the convolutions; `keep` is `same_zero`.
        subsampling: policy of the pools that have a stride.
        kernel_size: of the pools in pixels, 2 to 5 in the paper.
        subsampling_factor: product of the three pool strides: 1, 2, 4 or 8.
        stride_order: whether the `first` pools or the `last` get the strides; `last` costs 3 to 10 times more.
        pool_kind: what the pools take of their window.
        pool_padding: policy of the pools; `same_zero` makes the map's size independent of the kernel's.
        channels: of the three convolutions.
        head: `flatten` keeps positions apart, `gap` is global average pooling.
        antialias: size (1 to 7) of a blur after every pool, which is then dense; None for no blur.

    Raises:
        TinvError: for a factor other than 1, 2, 4 or 8, other than three channel counts, or an unknown name.
    """
    if subsampling_factor not in (1, 2, 4, 8):
        raise TinvError(f"subsampling_factor must be 1, 2, 4 or 8, not {subsampling_factor}")
    if not isinstance(kernel_size, int) or kernel_size < 1:
        raise TinvError(f"kernel_size must be a whole number of pixels from 1 on, not {kernel_size!r}")
    if len(channels) != 3:
        raise TinvError(f"channels must be three numbers, one a convolution, not {list(channels)}")
    if stride_order not in get_args(StrideOrder):
        raise unknown("stride_order", stride_order, get_args(StrideOrder))
    if pool_kind not in get_args(PoolKind):
        raise unknown("pool_kind", pool_kind, get_args(PoolKind))
    if head not in ("flatten", "gap"):
        raise unknown("head", head, ("flatten", "gap"))
    check_padding(pool_padding)
    if antialias is not None and subsampling != "keep":
        raise TinvError(f"antialias={antialias} already replaces the pools' strides; leave subsampling at keep")
    strides = [2] * (subsampling_factor.bit_length() - 1)
    ones = [1] * (3 - len(strides))
    strides = strides + ones if stride_order == "first" else ones + strides
    builder = PlainBuilder(in_channels, padding, subsampling)
    for number, (width, stride) in enumerate(zip(channels, strides, strict=True), start=1):
        builder.conv(f"conv{number}", width, kernel_size=3)
        builder.pool(f"pool{number}", kernel_size, stride, pool_kind, pool_padding, antialias)
    network: Head = head
    return PlainNetwork(builder.build(), network, num_classes, (in_channels, *input_size))
