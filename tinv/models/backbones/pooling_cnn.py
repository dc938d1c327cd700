"""The network of the stride and kernel size grids."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, get_args

from torch import nn

from tinv.errors import TinvError, unknown
from tinv.models.trunk_and_head import PlainNetwork
from tinv.nn.pooling import Pool
from tinv.nn.subsampling import BlurPool
from tinv.policies.cards import Padding
from tinv.policies.conversion import ConversionPolicy
from tinv.policies.padding import padding_policy
from tinv.utils.arguments import PositiveInt

StrideOrder = Literal["first", "last"]
PoolKind = Literal["max", "average"]


def pooling_cnn(
    *,
    num_classes: PositiveInt = 10,
    in_channels: int = 3,
    policy: ConversionPolicy | None = None,
    kernel_size: PositiveInt = 2,
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
        num_classes: Output classes.
        in_channels: Channels of the image.
        policy: Policy that the network will be under.
        kernel_size: Kernel size of the pools in pixels, 2 to 5 in the paper.
        subsampling_factor: Product of the three pool strides: 1, 2, 4 or 8.
        stride_order: Whether the `first` pools or the `last` get the strides; `last` costs 3 to 10 times more.
        pool_kind: What the pools take of their window.
        pool_padding: Padding of the pools; `same_zero` makes the map's size independent of the kernel's. Under a
            circular or background policy of the convolutions the pools' border holds the same as theirs, as in every
            converted network; how wide it is stays what this option says.
        channels: Channels of the three convolutions.
        head: `flatten` keeps positions apart, `gap` is global average pooling.
        antialias: Size (1 to 7) of a blur after every pool, which is then dense; None for no blur.

    Raises:
        TinvError: For a factor other than 1, 2, 4 or 8, other than three channel counts, or an unknown name.
    """
    if subsampling_factor not in (1, 2, 4, 8):
        raise TinvError(f"subsampling_factor must be 1, 2, 4 or 8, not {subsampling_factor}")
    if not isinstance(kernel_size, int) or kernel_size < 1:
        raise TinvError(f"kernel_size must be an integer number of pixels from 1 on, not {kernel_size!r}")
    if len(channels) != 3:
        raise TinvError(f"channels must be three numbers, one a convolution, not {list(channels)}")
    choices = {"stride_order": get_args(StrideOrder), "pool_kind": get_args(PoolKind), "head": ("flatten", "gap")}
    for (key, known), value in zip(choices.items(), (stride_order, pool_kind, head), strict=True):
        if value not in known:
            raise unknown(key, value, known)
    if antialias is not None and policy is not None and policy.subsampling.treats_strides:
        raise TinvError(f"antialias={antialias} already replaces the pools' strides; leave subsampling at keep")
    own = padding_policy("same_zero" if pool_padding == "keep" else pool_padding)
    strides = [2] * (subsampling_factor.bit_length() - 1)
    ones = [1] * (3 - len(strides))
    strides = strides + ones if stride_order == "first" else ones + strides
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    before = in_channels
    for number, (width, stride) in enumerate(zip(channels, strides, strict=True), start=1):
        layers[f"conv{number}"] = nn.Conv2d(before, width, 3, padding=1)
        layers[f"conv{number}_relu"] = nn.ReLU()
        pool_stride = stride if antialias is None else 1
        layers[f"pool{number}"] = Pool(pool_kind, kernel_size, pool_stride, own.amount, padding_mode=own.mode)
        if antialias is not None:
            layers[f"pool{number}_blur"] = BlurPool(antialias, stride)
        before = width
    return PlainNetwork(nn.Sequential(layers), head, num_classes)
