"""How a convolution treats the border of its input: which pixels it invents, and how many.

Amounts follow Kayhan & van Gemert (CVPR 2020), "Convolution types".
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from tinv.errors import TinvError, unknown

PaddingMode = Literal["zeros", "circular", "reflect", "replicate", "background"]
Content = str
"""One of `PaddingMode`, or the dotted path of a function of the user's own."""
Amounts = Sequence[tuple[int, int]]
"""Pixels to add (left, right), a pair for every spatial axis, first axis first."""


Amount = Literal["valid", "same", "full"]


def same_widths(kernel_size: Sequence[int], dilation: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Returns the pixels (left, right) of each axis that keep its size: d(k-1) in all, an odd one more on the right."""
    totals = [d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def window_widths(
    padding: Amount | str | int | Sequence[int] | Amounts, kernel_size: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """Returns the pixels (left, right) that a layer adds on each axis.

    Args:
        padding: `valid`, `same` or `full`, or pixels: one number for all axes, one for each, or a pair for each.
        kernel_size: k of each axis.
        dilation: d of each axis.

    Raises:
        TinvError: for another word.
    """
    if padding == "valid":
        return ((0, 0),) * len(kernel_size)
    if padding == "same":
        return same_widths(kernel_size, dilation)
    if padding == "full":
        return tuple((d * (k - 1),) * 2 for k, d in zip(kernel_size, dilation, strict=True))
    if isinstance(padding, str):
        raise unknown("padding", padding, get_args(Amount))
    if isinstance(padding, int):
        return ((padding, padding),) * len(kernel_size)
    return tuple((p, p) if isinstance(p, int) else (p[0], p[1]) for p in padding)


def of_policy_name(given: Any, mode: str, owner: str) -> tuple[Any, str]:
    """Returns padding and mode of a layer that is given the name of a policy, as it once was."""
    if not isinstance(given, str) or (given in get_args(Amount) and mode != "zeros"):
        return given, mode
    amount, underscore, rest = given.partition("_")
    if amount not in get_args(Amount) or (underscore and rest not in ("zero", *get_args(PaddingMode)[1:])):
        raise unknown("padding", given, get_args(Amount))
    if not underscore:
        return given, mode
    found = "zeros" if rest == "zero" else rest
    warnings.warn(
        f"{owner}({given!r}) is now {owner}(padding={amount!r}, padding_mode={found!r})",
        DeprecationWarning,
        stacklevel=3,
    )
    return amount, found


def pad(images: Tensor, amounts: Amounts, content: Content = "zeros", background: Tensor | None = None) -> Tensor:
    """Pads the spatial axes of a batch.

    Unlike `torch.nn.functional.pad`, circular and reflect padding may be larger than the map: the map is then wrapped
    or mirrored as often as needed.

    Args:
        images: (N, C, *spatial), one to three spatial axes.
        amounts: pixels (left, right) of each spatial axis; a negative number takes pixels away.
        content: what the new pixels hold.
        background: (1 or N, C, 1, ...) the constant of each channel, for content `background`.

    Returns:
        (N, C, *padded).
    """
    if any(left < 0 or right < 0 for left, right in amounts):
        inside = [
            slice(max(0, -left), size - max(0, -right))
            for size, (left, right) in zip(images.shape[2:], amounts, strict=True)
        ]
        images = images[(slice(None), slice(None), *inside)]
        amounts = [(max(0, left), max(0, right)) for left, right in amounts]
    if not any(left or right for left, right in amounts):
        return images
    if content in ("zeros", "zero"):
        return F.pad(images, flat(amounts))
    if "." in content:
        return _own_function(content)(images, amounts)
    if content == "background":
        if background is None:
            # a walk over shapes alone, before the background is known
            assert images.is_meta, "background padding needs the response to a blank image"
            return F.pad(images, flat(amounts))
        memory_format, constant = _memory_format(images), background.to(images.dtype)
        for axis, (left, right) in enumerate(amounts, start=2):
            if left or right:
                strips = [constant.expand(*images.shape[:axis], n, *images.shape[axis + 1 :]) for n in (left, right)]
                images = torch.cat([strips[0], images, strips[1]], dim=axis)
        return images.contiguous(memory_format=memory_format)
    furthest = [max(pair) for pair in amounts]
    if content == "replicate" or (
        content == "reflect" and all(f < size for f, size in zip(furthest, images.shape[2:], strict=True))
    ):
        return F.pad(images, flat(amounts), mode=content)
    for axis, (left, right) in enumerate(amounts, start=2):
        size = images.shape[axis]
        if not left and not right:
            continue
        if content == "circular" and left <= size and right <= size:
            # three narrow views and one copy: 1.6x faster on a CPU than padding_mode="circular"
            images = torch.cat(
                [images.narrow(axis, size - left, left), images, images.narrow(axis, 0, right)], dim=axis
            )
        else:
            images = images.index_select(axis, _source_index(size, left, right, content).to(images.device))
    return images


def _own_function(path: str) -> Callable[[Tensor, Amounts], Tensor]:
    """Returns the user's function that fills a border."""
    module, _, name = path.rpartition(".")
    try:
        found: Callable[[Tensor, Amounts], Tensor] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise TinvError(f"padding mode {path}: there is no such function ({error})") from error
    return found


def fit(images: Tensor, like: Tensor, content: Content = "zeros", background: Tensor | None = None) -> Tensor:
    """Pads or crops a map at the end of its spatial axes to the size of another.

    Args:
        images: (N, C, *spatial).
        like: (N, C', *spatial').
        content: what new pixels hold.
        background: (1 or N, C, 1, ...) the constant of each channel, for content `background`.

    Returns:
        (N, C, *spatial'); `images` itself where the sizes agree.
    """
    if images.shape[2:] == like.shape[2:]:
        return images
    more = [wanted - size for size, wanted in zip(images.shape[2:], like.shape[2:], strict=True)]
    return pad(images, [(0, m) for m in more], content, background)


def _source_index(size: int, left: int, right: int, content: Content) -> Tensor:
    """Returns, for every pixel of a padded axis, the pixel of the unpadded axis (of `size` pixels) it repeats."""
    index = torch.arange(-left, size + right)
    if content == "circular":
        return index.remainder(size)
    if content == "reflect":
        period = max(2 * (size - 1), 1)
        return (size - 1) - (index.remainder(period) - (size - 1)).abs()
    assert content == "replicate"
    return index.clamp(0, size - 1)


def each_axis(value: int | Sequence[int], axes: int) -> list[int]:
    """Returns one number for each of `axes` axes."""
    return [value] * axes if isinstance(value, int) else list(value)


def flat(amounts: Amounts) -> list[int]:
    """Returns amounts in the order of torch.nn.functional.pad: last axis first."""
    return [pixels for pair in reversed(amounts) for pixels in pair]


def _memory_format(images: Tensor) -> torch.memory_format:
    if images.dim() == 4 and images.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


class PaddedConv(_ConvNd):
    """A convolution with any padding; weights are those of torch's own layer.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: one number, or one for each axis.
        padding: `valid`, `same` or `full`, or pixels as torch takes them, or a pair (left, right) for each axis.
        padding_mode: what the border holds: `zeros`, `circular`, `reflect`, `replicate`, or the dotted path of a
            function of your own. Circular and reflect padding may be larger than the map.
        padding_policy: old name of both together, such as `same_circular`.
        **kwargs: stride, dilation, groups, bias, ... as in torch.

    Shape:
        (N, C, *spatial) -> (N, out_channels, *spatial').

    Raises:
        TinvError: when built, for an unknown word; when run, for a map smaller than the (dilated) kernel, or without
            the batch axis.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        padding: Amount | int | Sequence[int] | Amounts | str = "same",
        padding_mode: Content = "zeros",
        padding_policy: str | None = None,
        **kwargs: Any,
    ) -> None:
        padding, mode = of_policy_name(padding_policy or padding, padding_mode, type(self).__name__)
        no_padding: Any = 0  # one number to the layers below, a tuple to the type of their base
        super().__init__(in_channels, out_channels, kernel_size, padding=no_padding, **kwargs)
        self.padding_content = mode
        self.padding_amounts = window_widths(padding, self.kernel_size, self.dilation)

    def forward(self, images: Tensor, background: Tensor | None = None) -> Tensor:
        check_axes("convolution", images, len(self.kernel_size))
        # symmetric zeros are left to the convolution itself, which needs no copy of the map
        if self.padding_content == "zeros" and all(left == right for left, right in self.padding_amounts):
            self._check_size(images, self.padding_amounts)
            return self._convolve(images, tuple(left for left, _ in self.padding_amounts))
        padded = pad(images, self.padding_amounts, self.padding_content, background)
        self._check_size(padded, [(0, 0)] * len(self.padding_amounts))
        return self._convolve(padded, 0)

    def _reach(self) -> list[int]:
        return [d * (k - 1) + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True)]

    def _check_size(self, images: Tensor, amounts: Amounts) -> None:
        sizes = [size + left + right for size, (left, right) in zip(images.shape[2:], amounts, strict=True)]
        check_kernel_fits("convolution", self._reach(), sizes)

    def _convolve(self, images: Tensor, padding: int | tuple[int, ...]) -> Tensor:
        raise AssertionError("one of PaddedConv1d, PaddedConv2d, PaddedConv3d is meant")

    def extra_repr(self) -> str:
        own: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{own}, padding={self.padding_amounts}, padding_mode={self.padding_content}"


class PaddedConv1d(PaddedConv, nn.Conv1d):
    """`torch.nn.Conv1d` under a padding policy: (N, C, L) -> (N, out_channels, L')."""

    def _convolve(self, images: Tensor, padding: Any) -> Tensor:
        return F.conv1d(images, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class PaddedConv2d(PaddedConv, nn.Conv2d):
    """`torch.nn.Conv2d` under a padding policy: (N, C, H, W) -> (N, out_channels, H', W')."""

    def _convolve(self, images: Tensor, padding: Any) -> Tensor:
        return F.conv2d(images, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class PaddedConv3d(PaddedConv, nn.Conv3d):
    """`torch.nn.Conv3d` under a padding policy: (N, C, T, H, W) -> (N, out_channels, T', H', W')."""

    def _convolve(self, images: Tensor, padding: Any) -> Tensor:
        return F.conv3d(images, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


def check_axes(layer: str, images: Tensor, axes: int) -> None:
    """Raises TinvError if a map is not (N, C, *spatial) with so many spatial axes."""
    if images.dim() != axes + 2:
        names = ", ".join(("N", "C", *("L", "H, W", "T, H, W")[axes - 1].split(", ")))
        raise TinvError(
            f"{layer}: takes maps ({names}), not of shape {tuple(images.shape)}; is the batch axis missing?"
        )


def check_kernel_fits(layer: str, kernel: Sequence[int], sizes: Sequence[int]) -> None:
    """Raises TinvError if a kernel of `kernel` pixels does not fit a (padded) map of `sizes` pixels."""
    if any(size < k for size, k in zip(sizes, kernel, strict=True)):
        raise TinvError(
            f"{layer}: its kernel of {'x'.join(map(str, kernel))} is larger than the map of {'x'.join(map(str, sizes))}"
            " it runs on; use a smaller kernel, fewer strides, more padding or a larger image"
        )
