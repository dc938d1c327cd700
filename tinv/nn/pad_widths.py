"""How many pixels a layer with a window adds at the border of its input, and how many it covers; without torch.

Amounts follow Kayhan & van Gemert (CVPR 2020), "Convolution types".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from tinv.errors import TinvError, unknown

Amount = Literal["valid", "same", "full"]
_Mirror = Literal["reflect", "replicate", "symmetric"]
_ByLayer = Literal["partial", "random"]
PaddingMode = Literal["zeros", "circular", "circular_width", _Mirror, _ByLayer, "background"]
"""What the border holds, in torch's words. `circular_width` is circular along the last axis and zeros along the others,
`symmetric` mirrors the map with the edge pixel repeated, and `background` is the response of the layers before to an
image of zeros. `partial` and `random` are zeros that a `PaddedConv` treats in its own way."""
MixedMode = Literal["zeros", "circular", _Mirror, "background"]
"""Padding modes that one axis can have while another axis has another."""
_MIXED = ", ".join(get_args(MixedMode))
ZERO_MODES = ("zeros", *get_args(_ByLayer))
"""Padding modes whose border holds zeros."""
PadWidths = Sequence[tuple[int, int]]
"""Pixels to add (left, right), a pair for every spatial axis, first axis first."""


def to_ntuple(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """Returns one number for each of `axes` axes."""
    return (value,) * axes if isinstance(value, int) else tuple(value)


def joined_modes(padding_mode: str | Sequence[str]) -> str:
    """Returns a padding mode, or one for each axis, as the one word by which layers keep it: `zeros+circular`.

    Raises:
        TinvError: For a mode that cannot stand beside others, naming it, and for an unknown one.

    Examples:
        >>> joined_modes(("zeros", "circular"))
        'zeros+circular'
        >>> joined_modes("reflect")
        'reflect'
    """
    modes = padding_mode.split("+") if isinstance(padding_mode, str) else list(padding_mode)
    if len(modes) > 1 or not isinstance(padding_mode, str):
        for mode in modes:
            if mode in get_args(PaddingMode) and mode not in get_args(MixedMode):
                raise TinvError(f"padding mode {mode!r} treats all axes alike; one axis can have {_MIXED}")
            if mode not in get_args(MixedMode):
                raise unknown("padding mode of one axis", str(mode), get_args(MixedMode))
        if not modes:
            raise TinvError(f"no padding mode was given; name one for each axis, of {_MIXED}")
    return "+".join(modes)


def axis_modes(padding_mode: str | Sequence[str], axes: int) -> tuple[str, ...]:
    """Returns the padding mode of each of `axes` spatial axes, first axis first.

    Args:
        padding_mode: A `PaddingMode`, which is that of every axis, or one for each axis: several, or joined by `+`.
        axes: How many.

    Raises:
        TinvError: If there are several modes, and not as many as axes.
    """
    if padding_mode == "circular_width":
        return (*("zeros",) * (axes - 1), "circular")
    modes = tuple(padding_mode.split("+")) if isinstance(padding_mode, str) else tuple(padding_mode)
    if len(modes) == 1:
        return modes * axes
    if len(modes) != axes:
        have = "1 spatial axis" if axes == 1 else f"{axes} spatial axes"
        raise TinvError(f"padding mode {'+'.join(modes)} is of {len(modes)} spatial axes, but the map has {have}")
    return modes


def fills_pools(padding_mode: str) -> bool:
    """Returns whether a padding mode fills the border of pools too, whose own border would break what it keeps."""
    return bool({"circular", "circular_width", "background"} & set(padding_mode.split("+")))


def needs_background(padding_mode: str) -> bool:
    """Returns whether an axis is padded with the response of the layers before to an image of zeros."""
    return "background" in padding_mode.split("+")


def effective_kernel_size(kernel_size: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    """Returns the pixels that a window covers on each axis: d(k-1) + 1 for kernel size k and dilation d."""
    return tuple(d * (k - 1) + 1 for k, d in zip(kernel_size, dilation, strict=True))


def window_widths(
    padding: Amount | str | int | Sequence[int] | PadWidths, kernel_size: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """Returns the pixels (left, right) that a layer adds on each axis.

    Args:
        padding: `valid` (none), `same` (d(k-1) in all, an odd one more on the right), `full` (d(k-1) a side), or
            pixels: one number for all axes, one for each, or a pair for each.
        kernel_size: K of each axis.
        dilation: D of each axis.

    Raises:
        TinvError: For another word.
    """
    totals = [size - 1 for size in effective_kernel_size(kernel_size, dilation)]
    if padding == "valid":
        return ((0, 0),) * len(totals)
    if padding == "same":
        return tuple((total // 2, total - total // 2) for total in totals)
    if padding == "full":
        return tuple((total, total) for total in totals)
    if isinstance(padding, str):
        raise unknown("padding", padding, get_args(Amount))
    if isinstance(padding, int):
        return ((padding, padding),) * len(totals)
    return tuple((p, p) if isinstance(p, int) else (p[0], p[1]) for p in padding)


def window_count(size: int, widths: tuple[int, int], effective: int, stride: int, ceil_mode: bool) -> int:
    """Returns how many windows there are on an axis of a map.

    Args:
        size: Pixels of the axis.
        widths: Pixels (left, right) that are added to it.
        effective: Pixels that a window covers.
        stride: Pixels from one window to the next.
        ceil_mode: Whether the last window may end outside of the map, as in torch.
    """
    free = size + sum(widths) - effective
    if not ceil_mode:
        return free // stride + 1
    windows = -(-free // stride) + 1
    # torch drops a last window that would begin in the padding on the right
    return windows - 1 if (windows - 1) * stride >= size + widths[0] else windows
