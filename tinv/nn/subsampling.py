"""How a map is subsampled: by strides, after a blur, or at the phase that its content says (adaptive)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import comb
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from tinv.deprecation import moved, renamed
from tinv.errors import TinvError, unknown
from tinv.nn.pad_widths import to_ntuple
from tinv.nn.padding import CONVOLUTIONS, check_kernel_fits, pad, padding_inside, standard_padding
from tinv.nn.phase import by_phase, channels_last, take_phase
from tinv.nn.precision import at_least_single, without_autocast

Norm = Literal[1, 2, "inf"]
"""Norms that tell how strong a polyphase component is: sum of magnitudes, Euclidean, largest magnitude."""
ShiftKind = Literal["circular", "zero_canvas", "fractional"]
"""Kinds of shift that a layer can follow: of rolled maps by whole positions, of content on zeros, and of rolled
band-limited maps by parts of a position."""


class Subsampler(nn.Module):
    """Base of layers that carry a stride: what geometry and verdict must know of one.

    Attributes:
        stride: Pixels, one number for all axes or one for each.
        padding_mode: Padding mode of its border.
        exact: Kinds of shift of its input, by multiples of the stride, that shift its output by whole positions and
            change nothing else; with `fractional`, every circular shift of a band-limited map, by parts of a pixel too,
            shifts its output by the shift over the stride. Empty where that is not known. The verdict of a network
            counts on it.
        sees_all: Whether every position of the output sees the whole map on axes with a stride, and its positions lie
            evenly over it.
        between: What becomes of other shifts, for the verdict.
        averages: Whether each value of its output is a weighted mean of values of its input, with weights that are not
            negative: a constant map stays that constant, and signs are kept.
        ceil_mode: Whether the last window may end outside of the map, as in torch's pools.
    """

    stride: int | Sequence[int]
    padding_mode: str = "zeros"
    exact: frozenset[ShiftKind] = frozenset()
    sees_all: bool = False
    between: str = ""
    averages: bool = False
    ceil_mode: bool = False

    _penalty: Tensor | None = None

    def keep_penalty(self, loss: Tensor) -> None:
        """Keeps the loss () of a forward pass in training until `penalty` reads it or the next takes its place."""
        self._penalty = loss

    def penalty(self) -> Tensor | None:
        """Returns the loss () of the last forward pass in training, once, which the task adds to its own.

        None where there is none: in evaluation, after it was read, and for layers that add no loss.
        """
        loss, self._penalty = self._penalty, None
        return loss if self.training else None

    def set_progress(self, progress: float) -> None:
        """Takes note of the share of the training that is done, 0 to 1; the task calls it before every step."""

    def __getstate__(self) -> dict[str, Any]:
        # what a loss was computed from can neither be copied nor pickled
        return {key: value for key, value in self.__dict__.items() if key != "_penalty"}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for old, new in (("padding_content", "padding_mode"), ("padding_amounts", "pad_widths")):
            if old in vars(cls):
                warnings.warn(f"{cls.__name__}.{old} is now {new}", DeprecationWarning, stacklevel=2)
                setattr(cls, new, vars(cls)[old])

    def circular_problem(self, size: int, stride: int) -> str:
        """Returns why the layer does not follow circular shifts of an axis of `size` pixels; empty if it does."""
        return ""

    def window(self, axes: int) -> tuple[int, ...]:
        """Returns the pixels that one position of the output sees along each of `axes` spatial axes."""
        return to_ntuple(self.stride, axes)

    def pad_widths(self, axes: int) -> list[tuple[int, int]]:
        """Returns the pixels (left, right) that are added to each of `axes` spatial axes."""
        return [(0, 0)] * axes


class BlurPool(Subsampler):
    """Low-pass filter, then stride: the anti-aliased subsampling of Zhang (ICML 2019).

    The filter is the outer product of the binomial row of `size` numbers ([1, 2, 1] / 4 for 3). With the padding of
    Zhang, (size - 1) / 2 a side, every stride and every map size gives ceil(size / stride) pixels. Even filters look
    half a pixel to the right (their extra padding pixel goes right), so 32 pixels become 16, never 17. With full
    padding, size - 1 a side, every filter value meets every pixel, as in the F+BlurPool networks of Kayhan & van Gemert
    (CVPR 2020): n pixels become floor((n + size - 2) / stride) + 1.

    Args:
        size: Size of the filter, 1 to 7, one number for all axes or one for each; 1 is plain sampling.
        stride: Pixels, one number for all axes or one for each.
        padding_mode: What the padding holds, a `PaddingMode` or a tuple of one for each axis; `background` in
            converted networks.
        full: Whether size - 1 pixels are added a side, not (size - 1) / 2.

    Shape:
        (N, C, *spatial) -> (N, C, *spatial'), one to three spatial axes; spatial' = ceil(spatial / stride) unless full.

    Raises:
        TinvError: If the size is not 1 to 7.
    """

    @renamed(content="padding_mode")
    def __init__(
        self,
        size: int | Sequence[int],
        stride: int | Sequence[int] = 2,
        padding_mode: str | Sequence[str] = "zeros",
        full: bool = False,
    ) -> None:
        super().__init__()
        sizes = [size] if isinstance(size, int) else list(size)
        if not all(1 <= s <= 7 for s in sizes):
            raise TinvError(f"blur filter size must be 1 to 7, not {size}")
        self.size, self.stride, self.full = size, stride, full
        _, self.padding_mode = standard_padding("same", padding_mode, "BlurPool")
        # constants, not part of the state dict: published weights must still load. One filter for inputs of any number
        # of axes, or the one filter there is
        for axes in (1, 2, 3) if isinstance(size, int) else (len(sizes),):
            # without the two axes of channels: `module.to(memory_format=...)` takes what has four or five axes
            kernel = torch.ones((), dtype=torch.float64)
            for s in to_ntuple(size, axes):
                row = torch.tensor([comb(s - 1, i) for i in range(s)], dtype=torch.float64) / 2 ** (s - 1)
                kernel = kernel.unsqueeze(-1) * row
            self.register_buffer(f"filter_{axes}d", kernel.to(torch.get_default_dtype()), persistent=False)

    def forward(self, images: Tensor, background: Tensor | None = None) -> Tensor:
        axes = images.dim() - 2
        size, stride = to_ntuple(self.size, axes), to_ntuple(self.stride, axes)
        if all(s == 1 for s in size):
            return images[(slice(None), slice(None), *(slice(None, None, s) for s in stride))]
        widths = self.pad_widths(axes)
        inside = padding_inside(widths, self.padding_mode)
        if inside is None:
            # of the padding after the map only what the last window reads
            widths = [
                (left, max(0, right - (n + left + right - s) % by))
                for (left, right), n, by, s in zip(widths, images.shape[2:], stride, size, strict=True)
            ]
            images = pad(images, widths, self.padding_mode, background)
            check_kernel_fits("blur", size, images.shape[2:])
        channels = images.shape[1]
        # one channel first: an expanded plane alone would pass for channels_last
        kernel = getattr(self, f"filter_{axes}d").to(images.dtype).view(1, 1, *size).expand(channels, 1, *size)
        return CONVOLUTIONS[axes - 1](images, kernel, stride=stride, padding=inside or 0, groups=channels)

    def window(self, axes: int) -> tuple[int, ...]:
        """Returns the size of the filter along each axis."""
        return to_ntuple(self.size, axes)

    def pad_widths(self, axes: int) -> list[tuple[int, int]]:
        """Returns the pixels (left, right) that are added to each of `axes` spatial axes."""
        sizes = to_ntuple(self.size, axes)
        return [(s - 1, s - 1) if self.full else ((s - 1) // 2, s // 2) for s in sizes]

    def extra_repr(self) -> str:
        full = ", full" if self.full else ""
        return f"size={self.size}, stride={self.stride}, {self.padding_mode}{full}"


class PolyphaseSampling(Subsampler):
    """Base of layers that keep, of all ways to take every s-th pixel, the one that a rule chooses for each image.

    A map of stride s has s polyphase components an axis: those that begin at pixel 0, 1, .., s-1. A circular shift of
    the map leaves the same set of components, shifted and in another order. A rule that gives the same component
    whatever their order and shift makes a network of circular convolutions and a global pool exactly invariant to
    every circular shift, before any training.

    Args:
        stride: Pixels, one number for all axes or one for each.
        blur: Size (1 to 7) of a binomial filter before the choice, one number or one for each axis; 1 for none.
        padding_mode: What the border of the filter holds, and the pixels added where a stride does not divide a size.
        full: Whether the filter's padding is full, see BlurPool.

    Attributes:
        ties: Why the choice may not follow the content although sizes and padding allow it; empty if it does.

    Shape:
        (N, C, *spatial) -> (N, C, *ceil(spatial' / stride)), one to three spatial axes; spatial' is spatial, or
        spatial + blur - 1 with a full blur.
    """

    ties: str = ""

    def __init__(
        self,
        stride: int | Sequence[int] = 2,
        blur: int | Sequence[int] = 1,
        padding_mode: str | Sequence[str] = "zeros",
        full: bool = False,
    ) -> None:
        super().__init__()
        self.blur = BlurPool(blur, 1, padding_mode, full)
        self.stride, self.padding_mode = stride, self.blur.padding_mode

    def forward(self, images: Tensor, background: Tensor | None = None) -> Any:
        return self.sample_with_choice(images, background)[0]

    def sample_with_choice(self, images: Tensor, background: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns the chosen component (N, C, *spatial') and the choice, see `choose`."""
        components = self.components(images, background)
        choice = self.choose(components)
        return self.select(components, choice), choice

    def components(self, images: Tensor, background: Tensor | None = None) -> Tensor:
        """Returns the components of the blurred map: (N, P, C, *ceil(spatial' / stride)), P the product of strides."""
        return polyphase_components(self.whole(images, background), self.stride)

    def whole(self, images: Tensor, background: Tensor | None = None) -> Tensor:
        """Returns the blurred map, padded at its end where a stride does not divide a size."""
        return padded_to_stride(self.blur(images, background), self.stride, self.padding_mode, background)

    def choose(self, components: Tensor) -> Tensor:
        """Returns the choice among components (N, P, C, ...): a number (N,) for each image, or weights (N, P)."""
        # not abstract: a torch module cannot be made an abstract class without a second metaclass
        raise NotImplementedError(f"{type(self).__name__} does not say which component it chooses")

    def window(self, axes: int) -> tuple[int, ...]:
        """Returns the size of the filter along each axis."""
        return self.blur.window(axes)

    def pad_widths(self, axes: int) -> list[tuple[int, int]]:
        """Returns the pixels (left, right) that the filter adds to each axis."""
        return self.blur.pad_widths(axes)

    @staticmethod
    def select(components: Tensor, choice: Tensor) -> Tensor:
        """Returns each image's chosen component (N, C, ...), or the weighted sum of all of them.

        Args:
            components: (N, P, C, ...).
            choice: A number (N,) or weights (N, P) for each image. Branches that meet again must share one choice.
        """
        if choice.dim() == 2:
            with without_autocast(components):
                return torch.einsum("np,np...->n...", choice.to(components.dtype), components)
        return components[torch.arange(choice.shape[0], device=choice.device), choice]

    def extra_repr(self) -> str:
        return f"stride={self.stride}"


def padded_to_stride(
    images: Tensor, strides: int | Sequence[int], padding_mode: str = "zeros", background: Tensor | None = None
) -> Tensor:
    """Returns a map (N, C, *spatial) padded at the end of each axis, so that the strides divide its sizes.

    Args:
        images: (N, C, *spatial).
        strides: Pixels, one number for all axes or one for each.
        padding_mode: What is added.
        background: (1 or N, C, 1, ...) the constant of each channel, for the mode `background`.
    """
    each = to_ntuple(strides, images.dim() - 2)
    missing = [(0, -size % s) for size, s in zip(images.shape[2:], each, strict=True)]
    return pad(images, missing, padding_mode, background)


def polyphase_components(images: Tensor, strides: int | Sequence[int]) -> Tensor:
    """Returns the polyphase components of a map, in the order of the pixels that they begin at.

    Args:
        images: (N, C, *spatial); the strides divide the sizes.
        strides: Pixels, one number for all axes or one for each.

    Returns:
        (N, P, C, *(spatial / stride)), P the product of the strides of all axes. Those of a map in channels_last are
        each in channels_last.
    """
    axes = images.dim() - 2
    split = by_phase(images, to_ntuple(strides, axes))
    if channels_last(images):
        return split.movedim(1 + axes, -1).flatten(1, axes).movedim(-1, 2)
    return split.flatten(1, axes)


class AdaptivePolyphaseSampling(PolyphaseSampling):
    """Keeps, of all ways to take every s-th pixel, the one of largest norm (Chaman & Dokmanic, CVPR 2021).

    Which polyphase component is the strongest moves with the content, so a circular shift of the map leaves the same
    set of pixels, shifted. The choice is made for each image by itself.

    Args:
        stride: Pixels, one number for all axes or one for each.
        blur: Size (1 to 7) of a binomial filter before the choice, one number or one for each axis; 1 for none.
        padding_mode: What the border of the filter holds, and the pixels added where a stride does not divide a size.
        full: Whether the filter's padding is full, see BlurPool.
        norm: Norm that is compared, 1, 2 or "inf". The largest magnitude often stands in several components, as after a
            max pool or a clipped activation, or where a picture is flat; the first of them is kept then, and the choice
            no longer follows the content.

    Raises:
        TinvError: For another norm.

    Shape:
        (N, C, *spatial) -> (N, C, *ceil(spatial' / stride)), one to three spatial axes; spatial' is spatial, or
        spatial + blur - 1 with a full blur.
    """

    @renamed(content="padding_mode")
    def __init__(
        self,
        stride: int | Sequence[int] = 2,
        blur: int | Sequence[int] = 1,
        padding_mode: str | Sequence[str] = "zeros",
        full: bool = False,
        norm: Norm = 2,
    ) -> None:
        super().__init__(stride, blur, padding_mode, full)
        if norm not in get_args(Norm):
            raise unknown("norm of adaptive subsampling", str(norm), [str(known) for known in get_args(Norm)])
        self.norm = norm
        if norm == "inf":
            self.ties = "largest magnitudes may tie, which leaves multiples of its stride"

    def sample_with_choice(self, images: Tensor, background: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns the chosen component (N, C, *spatial') and its number (N,)."""
        whole = self.whole(images, background)
        if not (torch.is_grad_enabled() and whole.requires_grad):
            components = polyphase_components(whole, self.stride)
            choice = self.choose(components)
            return self.select(components, choice), choice
        # a choice has no gradient: what is copied to make it is not part of the backward pass
        with torch.no_grad():
            choice = self.choose(polyphase_components(whole, self.stride))
        return take_phase(whole, self.stride, choice), choice

    def choose(self, components: Tensor) -> Tensor:
        """Returns the number (N,) of the component of largest norm, the first of equals."""
        # half precision would overflow, and doubles must not be rounded into ties
        exact = at_least_single(components)
        dims = tuple(range(2, components.dim()))
        if self.norm == 2:
            return exact.square().sum(dim=dims).argmax(dim=1)
        strength = exact.abs().sum(dim=dims) if self.norm == 1 else exact.abs().amax(dim=dims)
        return strength.argmax(dim=1)

    def extra_repr(self) -> str:
        return f"stride={self.stride}" + ("" if self.norm == 2 else f", norm={self.norm}")


class SharedPhaseSampling(PolyphaseSampling):
    """Takes the component (N, C, *spatial') that another branch has chosen; all branches of a block follow one choice.

    It has no parameters, whatever the choice is made with.

    Args:
        sampler: The layer whose place it takes.
        phase_group: Names the choice; all that follow it have the same.
    """

    def __init__(self, sampler: PolyphaseSampling, phase_group: str) -> None:
        super().__init__(sampler.stride, sampler.blur.size, sampler.padding_mode, sampler.blur.full)
        self.ties, self.phase_group = sampler.ties, phase_group

    def forward(  # type: ignore[override]
        self, images: Tensor, choice: Tensor, background: Tensor | None = None
    ) -> Tensor:
        if choice.dim() == 2:  # weights
            return self.select(self.components(images, background), choice)
        return take_phase(self.whole(images, background), self.stride, choice)


class PhaseSelector(SharedPhaseSampling):
    """Returns the chosen component (N, C, *spatial') and the choice, for the branches that follow it.

    Args:
        sampler: The layer whose place it takes, which chooses.
        phase_group: Names the choice; all that follow it have the same.
    """

    def __init__(self, sampler: PolyphaseSampling, phase_group: str) -> None:
        super().__init__(sampler, phase_group)
        self.sampler = sampler

    def forward(  # type: ignore[override]
        self, images: Tensor, background: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.sampler.sample_with_choice(images, background)


__getattr__ = moved(__name__, {"AdaptivePolyphase": f"{__name__}:AdaptivePolyphaseSampling"})
