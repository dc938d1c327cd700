"""How a convolution treats the border of its input: what it adds there, as wide as `tinv.nn.pad_widths` says."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from tinv.deprecation import moved, renamed
from tinv.errors import TinvError, unknown
from tinv.nn.circular_pad import circular_pad
from tinv.nn.pad_widths import (
    ZERO_MODES,
    Amount,
    PaddingMode,
    PadWidths,
    axis_modes,
    effective_kernel_size,
    joined_modes,
    window_widths,
)


def standard_padding(given: Any, mode: str | Sequence[str], owner: str) -> tuple[Any, str]:
    """Returns padding and padding mode of a layer that may be given them by their old names.

    Args:
        given: `padding` of the layer, or the name of a policy, such as `same_circular`, which was its old form.
        mode: `padding_mode` of the layer, one for each axis or one for all, or `zero`, the old word for `zeros`.
        owner: Name of the layer.

    Raises:
        TinvError: For a word that is none of these.
    """
    mode = joined_modes(mode)
    padding, standard = given, mode
    if isinstance(given, str):
        padding, underscore, rest = given.partition("_")
        if padding not in get_args(Amount) or (underscore and rest not in ("zero", *get_args(PaddingMode)[1:])):
            raise unknown("padding", given, get_args(Amount))
        standard = rest or mode
    standard = "zeros" if standard == "zero" else standard
    if (padding, standard) != (given, mode):
        text = f"{owner}({given!r}, {mode!r}) is now {owner}(padding={padding!r}, padding_mode={standard!r})"
        warnings.warn(text, DeprecationWarning, stacklevel=3)
    return padding, standard


CONVOLUTIONS: tuple[Callable[..., Tensor], ...] = (F.conv1d, F.conv2d, F.conv3d)
"""Torch's convolution of one, two and three spatial axes."""


@renamed(amounts="widths", content="padding_mode")
def pad(
    images: Tensor, widths: PadWidths, padding_mode: str | Sequence[str] = "zeros", background: Tensor | None = None
) -> Tensor:
    """Pads the spatial axes of a batch.

    Unlike `torch.nn.functional.pad`, circular, reflect and symmetric padding may be larger than the map: the map is
    then wrapped or mirrored as often as needed.

    Args:
        images: (N, C, *spatial), one to three spatial axes.
        widths: Pixels (left, right) of each spatial axis; a negative number takes pixels away.
        padding_mode: What the new pixels hold: a `PaddingMode`, one for each axis (a tuple, or joined as in
            `zeros+circular`), or the dotted path of a function of your own.
        background: (1 or N, C, 1, ...) the constant of each channel, for the mode `background`.

    Returns:
        (N, C, *padded).

    Raises:
        TinvError: For an unknown mode, if there are several and not as many as axes, and for `background` without it.

    Examples:
        >>> pad(torch.tensor([[[[1.0, 2.0]]]]), [(0, 1), (1, 1)], ("zeros", "circular"))
        tensor([[[[2., 1., 2., 1.],
                  [0., 0., 0., 0.]]]])
    """
    padding_mode = joined_modes(padding_mode)
    if any(left < 0 or right < 0 for left, right in widths):
        sizes = zip(images.shape[2:], widths, strict=True)
        inside = [slice(max(0, -left), size - max(0, -right)) for size, (left, right) in sizes]
        images = images[(slice(None), slice(None), *inside)]
        widths = [(max(0, left), max(0, right)) for left, right in widths]
    if not any(left or right for left, right in widths):
        return images
    order = to_f_pad_order(widths)
    if padding_mode in ("zero", *ZERO_MODES):
        return F.pad(images, order)
    if "." in padding_mode:
        return _own_function(padding_mode)(images, widths)
    if padding_mode == "circular_width" or "+" in padding_mode:
        modes = axis_modes(padding_mode, len(widths))
        # the order is of no matter: corners of any two of these modes come out alike
        for mode in dict.fromkeys(modes):
            images = pad(
                images,
                [pair if own == mode else (0, 0) for own, pair in zip(modes, widths, strict=True)],
                mode,
                background,
            )
        return images
    if padding_mode == "background":
        return _pad_with(images, widths, background)
    reaches_across = any(max(pair) >= size for pair, size in zip(widths, images.shape[2:], strict=True))
    if padding_mode == "replicate" or (padding_mode == "reflect" and not reaches_across):
        return F.pad(images, order, mode=padding_mode)
    for axis, (left, right) in enumerate(widths, start=2):
        size = images.shape[axis]
        if not left and not right:
            continue
        if padding_mode == "circular" and left <= size and right <= size:
            images = circular_pad(images, axis, left, right)
        else:
            images = images.index_select(axis, _source_index(size, left, right, padding_mode).to(images.device))
    return images


def _pad_with(images: Tensor, widths: PadWidths, background: Tensor | None) -> Tensor:
    if background is None:
        # a run over shapes alone, before the background is known
        if not images.is_meta:
            raise TinvError("padding mode background needs the response to an image of zeros; give it as `background`")
        return F.pad(images, to_f_pad_order(widths))
    channels_last = images.dim() == 4 and images.is_contiguous(memory_format=torch.channels_last)
    constant = background.to(images.dtype)
    for axis, (left, right) in enumerate(widths, start=2):
        if left or right:
            strips = [constant.expand(*images.shape[:axis], n, *images.shape[axis + 1 :]) for n in (left, right)]
            images = torch.cat([strips[0], images, strips[1]], dim=axis)
    return images.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _own_function(path: str) -> Callable[[Tensor, PadWidths], Tensor]:
    """Returns the user's function that fills a border."""
    module, _, name = path.rpartition(".")
    try:
        found: Callable[[Tensor, PadWidths], Tensor] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise TinvError(f"padding mode {path}: there is no such function ({error})") from error
    return found


def pad_or_crop_like(
    images: Tensor, like: Tensor, padding_mode: str = "zeros", background: Tensor | None = None
) -> Tensor:
    """Pads or crops a map at the end of its spatial axes to the size of another.

    Args:
        images: (N, C, *spatial).
        like: (N, C', *spatial').
        padding_mode: What new pixels hold, see `pad`.
        background: (1 or N, C, 1, ...) the constant of each channel, for the mode `background`.

    Returns:
        (N, C, *spatial'); `images` itself where the sizes agree.
    """
    more = [wanted - size for size, wanted in zip(images.shape[2:], like.shape[2:], strict=True)]
    return pad(images, [(0, m) for m in more], padding_mode, background)


def _source_index(size: int, left: int, right: int, padding_mode: str) -> Tensor:
    """Returns, for every pixel of a padded axis, the pixel of the unpadded axis (of `size` pixels) it repeats."""
    index = torch.arange(-left, size + right)
    if padding_mode == "circular":
        return index.remainder(size)
    if padding_mode == "symmetric":
        index = index.remainder(2 * size)
        return torch.minimum(index, 2 * size - 1 - index)
    if padding_mode != "reflect":
        raise unknown("padding mode", padding_mode, get_args(PaddingMode))
    period = max(2 * (size - 1), 1)
    return (size - 1) - (index.remainder(period) - (size - 1)).abs()


def padding_inside(widths: PadWidths, padding_mode: str) -> tuple[int, ...] | None:
    """Returns the pixels a side that a convolution of torch adds itself, without a copy of the map; None if it cannot.

    It adds zeros, as many on the left of an axis as on its right.
    """
    symmetric = padding_mode == "zeros" and all(left == right for left, right in widths)
    return tuple(left for left, _ in widths) if symmetric else None


def to_f_pad_order(widths: PadWidths) -> list[int]:
    """Returns widths in the order of torch.nn.functional.pad: last axis first."""
    return [pixels for pair in reversed(widths) for pixels in pair]


class PaddedConv(_ConvNd):
    """A convolution with any padding; weights are those of torch's own layer.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: One number, or one for each axis.
        padding: `valid`, `same` or `full`, or pixels as torch takes them, or a pair (left, right) for each axis.
        padding_mode: What the border holds: `zeros`, `circular`, `circular_width`, `reflect`, `replicate`,
            `symmetric`, a tuple of one of them for each axis, such as `("zeros", "circular")`, or the dotted path of a
            function of your own. Circular, reflect and symmetric padding may be
            larger than the map. `partial` pads zeros and multiplies each sum by k / (real pixels in its window) before
            the bias is added (Liu et al., arXiv 1811.11718). `random` splits the zeros of each axis at random between
            its two sides, anew in each training step, and as `zeros` in evaluation (arXiv 2302.08682).
        padding_policy: Old name of both together, such as `same_circular`.
        **kwargs: Stride, dilation, groups, bias, ... as in torch.

    Shape:
        (N, C, *spatial) -> (N, out_channels, *spatial').

    Raises:
        TinvError: When built, for an unknown word, and for modes that are not as many as axes; when run, for a map
            smaller than the (dilated) kernel, or without the batch axis.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        padding: Amount | int | Sequence[int] | PadWidths | str = "same",
        padding_mode: str | Sequence[str] = "zeros",
        padding_policy: str | None = None,
        **kwargs: Any,
    ) -> None:
        padding, mode = standard_padding(padding_policy or padding, padding_mode, type(self).__name__)
        super().__init__(in_channels, out_channels, kernel_size, padding=0, **kwargs)  # type: ignore[arg-type]
        axis_modes(mode, len(self.kernel_size))
        # torch's type allows torch's modes alone
        self.padding_mode = mode  # type: ignore[assignment]
        self.pad_widths = window_widths(padding, self.kernel_size, self.dilation)

    def forward(self, images: Tensor, background: Tensor | None = None) -> Tensor:
        check_axes("convolution", images, len(self.kernel_size))
        widths, mode = self.pad_widths, str(self.padding_mode)
        if mode == "random" and self.training:
            widths = tuple((left := int(torch.randint(sum(pair) + 1, ())), sum(pair) - left) for pair in widths)
        unpadded = images.shape[2:]
        inside = padding_inside(widths, "zeros" if mode in ZERO_MODES else mode)
        if inside is None:
            images, inside = pad(images, widths, mode, background), (0,) * len(self.kernel_size)
        sizes = [size + 2 * padding for size, padding in zip(images.shape[2:], inside, strict=True)]
        check_kernel_fits("convolution", effective_kernel_size(self.kernel_size, self.dilation), sizes)
        convolve = CONVOLUTIONS[len(self.kernel_size) - 1]
        if mode == "partial":
            sums = convolve(images, self.weight, None, self.stride, inside, self.dilation, self.groups)
            sums = sums * self._ratio(unpadded, sums)
            return sums if self.bias is None else sums + self.bias.view(-1, *(1 for _ in unpadded)).to(sums.dtype)
        return convolve(images, self.weight, self.bias, self.stride, inside, self.dilation, self.groups)

    def _ratio(self, sizes: Sequence[int], sums: Tensor) -> Tensor:
        """Returns pixels of the window over real pixels in it, for every position of the output: (*spatial')."""
        ratio = torch.ones((), dtype=torch.double, device=sums.device)
        axes = zip(sizes, sums.shape[2:], self.kernel_size, self.stride, self.dilation, self.pad_widths, strict=True)
        for size, count, kernel, stride, dilation, (left, _) in axes:
            first = torch.arange(count, device=sums.device) * stride - left
            seen = first[:, None] + torch.arange(kernel, device=sums.device) * dilation
            real = ((seen >= 0) & (seen < size)).sum(1)
            # a window without a real pixel has a sum of zero
            ratio = ratio.unsqueeze(-1) * (kernel / real.clamp(min=1).double())
        return ratio.to(sums.dtype)

    def extra_repr(self) -> str:
        own: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{own}, padding={self.pad_widths}"


def padded_conv(conv: _ConvNd, widths: PadWidths, padding_mode: str) -> PaddedConv:
    """Returns a convolution of torch as a `PaddedConv` with its weights, by reference."""
    made: PaddedConv = PADDED[len(conv.kernel_size) - 1].__new__(PADDED[len(conv.kernel_size) - 1])
    made.__dict__.update(conv.__dict__)
    made.padding, made.padding_mode = (0,) * len(conv.kernel_size), padding_mode  # type: ignore[assignment]
    made._reversed_padding_repeated_twice = [0] * (2 * len(conv.kernel_size))
    made.pad_widths = tuple((left, right) for left, right in widths)
    return made


class PaddedConv1d(PaddedConv, nn.Conv1d):
    """`torch.nn.Conv1d` under a padding policy: (N, C, L) -> (N, out_channels, L')."""


class PaddedConv2d(PaddedConv, nn.Conv2d):
    """`torch.nn.Conv2d` under a padding policy: (N, C, H, W) -> (N, out_channels, H', W')."""


class PaddedConv3d(PaddedConv, nn.Conv3d):
    """`torch.nn.Conv3d` under a padding policy: (N, C, T, H, W) -> (N, out_channels, T', H', W')."""


PADDED: tuple[type[PaddedConv], ...] = (PaddedConv1d, PaddedConv2d, PaddedConv3d)
"""The classes for one, two and three spatial axes."""


def check_axes(layer: str, images: Tensor, axes: int) -> None:
    """Raises TinvError if a map is not (N, C, *spatial) with so many spatial axes."""
    if images.dim() != axes + 2:
        names = ", ".join(("N", "C", *("L", "H, W", "T, H, W")[axes - 1].split(", ")))
        shape = tuple(images.shape)
        raise TinvError(f"{layer}: takes maps ({names}), not of shape {shape}; is the batch axis missing?")


def check_kernel_fits(layer: str, kernel: Sequence[int], sizes: Sequence[int]) -> None:
    """Raises TinvError if a kernel of `kernel` pixels does not fit a (padded) map of `sizes` pixels."""
    if any(size < k for size, k in zip(sizes, kernel, strict=True)):
        raise TinvError(
            f"{layer}: its kernel of {'x'.join(map(str, kernel))} is larger than the map of {'x'.join(map(str, sizes))}"
            " it runs on; use a smaller kernel, fewer strides, more padding or a larger image"
        )


__getattr__ = moved(__name__, {"fit": f"{__name__}:pad_or_crop_like"})
