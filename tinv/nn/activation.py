"""Activations between a finer grid and an ideal low-pass filter, which make few or no frequencies too high for the map.

A map of n pixels an axis holds wavenumbers up to n / 2. A function of each pixel makes higher ones, which fold back
onto lower ones (aliasing), so that a shift by parts of a pixel changes the output in other ways than by a shift. Here
the map is upsampled first, by continuing its spectrum with zeros, and low-passed to its own band after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from tinv.errors import TinvError
from tinv.nn.frequency import along, subsampling_matrix, upsampling_matrix
from tinv.nn.subsampling import ShiftKind


class BandLimitedActivation(nn.Module):
    """Base of activations that run on a finer grid: upsampled, a function of each value, low-passed, subsampled.

    An axis of n pixels becomes one of `factor` * n positions by a discrete Fourier transform of which the Nyquist
    frequency is halved between both sides. Of the result the wavenumbers |k| <= (n - 1) // 2 are kept, without the
    Nyquist frequency, and n pixels. An axis of one pixel, which has the wavenumber 0 alone, is left as it is.

    Args:
        axes: Axes of the tensor that hold positions, counted as torch counts them; None for all but the first two.
            (-2, -1) leaves the time of clips (N, C, T, H, W) alone, (1, 2) is for maps (N, H, W, C).
        factor: Positions of the finer grid for each pixel, 2 or more.

    Attributes:
        exact: Kinds of circular shift that the layer follows; the verdict of a network counts on it.

    Shape:
        (N, C, *spatial) -> the same. Half precision is computed in float32.

    Raises:
        TinvError: For another factor, and when run, for a map without one of the axes.
    """

    exact: frozenset[ShiftKind] = frozenset({"circular"})
    reason = ""
    """Why fractional shifts are not followed, for the verdict; empty if they are."""

    def __init__(self, axes: Sequence[int] | None = None, factor: int = 2) -> None:
        super().__init__()
        if not isinstance(factor, int) or factor < 2:
            raise TinvError(f"the factor of {type(self).__name__} is an integer of 2 or more, not {factor}")
        self.axes, self.factor = None if axes is None else tuple(axes), factor

    def pointwise(self, images: Tensor, *parameters: Tensor) -> Tensor:
        """Returns a function of each value of a map; it may overwrite what it is given."""
        # not abstract: a torch module cannot be made an abstract class without a second metaclass
        raise NotImplementedError(f"{type(self).__name__} does not say which function it applies")

    def treated(self, shape: Sequence[int]) -> list[int]:
        """Returns the axes of a map of a shape that are upsampled: those named, of more than one pixel."""
        rank = len(shape)
        axes = range(2, rank) if self.axes is None else self.axes
        if any(not -rank <= axis < rank for axis in axes):
            sizes = "x".join(map(str, shape))
            raise TinvError(f"{type(self).__name__}: a map of {sizes} does not have the axes {self.axes}; change axes")
        return [axis % rank for axis in axes if shape[axis] > 1]

    def forward(self, images: Tensor, *parameters: Tensor) -> Tensor:
        treated = self.treated(images.shape)
        channels_last = images.dim() == 4 and images.is_contiguous(memory_format=torch.channels_last)
        # autocast would run the products in half precision, and knows no shapes without values
        with nullcontext() if images.is_meta else torch.autocast(images.device.type, enabled=False):
            found = images if images.dtype == torch.double else images.float()
            for axis in treated:
                matrix = upsampling_matrix(images.shape[axis], self.factor, images.device)
                found = along(found, matrix.to(found.dtype), axis)
            found = self.pointwise(found, *(p.to(found.dtype) for p in parameters))
            for axis in treated:
                matrix = subsampling_matrix(images.shape[axis], self.factor, images.device)
                found = along(found, matrix.to(found.dtype), axis)
            found = found.to(images.dtype)
        return found.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)

    def extra_repr(self) -> str:
        return ", ".join(
            [*([] if self.axes is None else [f"axes={self.axes}"]), *([f"factor={self.factor}"] * (self.factor != 2))]
        )


class UpsampledActivation(BandLimitedActivation):
    """Any activation on a finer grid, where most of the frequencies it makes are filtered (Michaeli et al., CVPR 2023).

    The function is the network's own, so that trained weights keep their meaning. A shift of a band-limited map by
    parts of a pixel is followed in part: a ReLU or GELU makes frequencies beyond any grid. On white noise of standard
    deviation 0.5 a shift by (0.3, 0.2) pixels gives a relative error of 0.05 for a ReLU and 0.005 for a GELU, where the
    activation alone has 0.40 and 0.36; at deviation 1 that of a GELU is 0.02. Shifts by whole pixels on a circle are
    followed exactly.

    Args:
        activation: Function of each value, a module or a function; further arguments of the call are handed on to it.
        axes: Axes of the tensor that hold positions; None for all but the first two.
        factor: Positions of the finer grid for each pixel, 2 or more.

    Raises:
        TinvError: For another factor, and when run, for a map without one of the axes.

    Source:
        Michaeli et al., Alias-Free Convnets, CVPR 2023, arXiv 2303.08085.

    Examples:
        >>> layer = UpsampledActivation(nn.GELU())
        >>> images = torch.randn(2, 3, 8, 9)
        >>> torch.testing.assert_close(layer(images.roll(1, 2)), layer(images).roll(1, 2))
    """

    reason = "makes frequencies beyond its finer grid"

    def __init__(self, activation: Callable[..., Tensor], axes: Sequence[int] | None = None, factor: int = 2) -> None:
        super().__init__(axes, factor)
        self.activation = activation

    def pointwise(self, images: Tensor, *parameters: Tensor) -> Tensor:
        """Returns the activation of a map."""
        return self.activation(images, *parameters)


class PolynomialActivation(BandLimitedActivation):
    """A polynomial of degree 2 for each channel on a grid of twice the pixels (Michaeli et al., CVPR 2023).

    With trainable a0, a1 and a2 of each channel and a fixed scale s, a value x becomes s (a0 + a1 x/s + a2 (x/s)^2).
    A square doubles the frequencies of a map, which is what twice the pixels hold: a band-limited map, without its
    Nyquist frequency, is followed exactly under every circular shift, by parts of a pixel too.

    a0, a1, a2 begin at 0.01694, 0.5 and 0.3078, the quadratic that is closest to GELU on about -1.4 to 1.4. The scale
    moves the value from which on outputs are larger than inputs, 1.6 at s = 1, to 11.1 at s = 7: without it values grow
    beyond all bounds in deep networks.

    Args:
        channels: Channels C of the map.
        axes: Axes of the tensor that hold positions; None for all but the first two.
        channel_axis: Axis of the tensor that holds the channels.
        scale: Values that stand for 1 in the polynomial, above 0.
        device: Device of the coefficients.
        dtype: Type of the coefficients.

    Attributes:
        coefficients: a0, a1 and a2 of each channel, (3, C).

    Raises:
        TinvError: For a scale that is not above 0, and when run, for a map without one of the axes.

    Source:
        Michaeli et al., Alias-Free Convnets, CVPR 2023, arXiv 2303.08085. The scale of the output is tinv's.

    Examples:
        >>> layer = PolynomialActivation(3, scale=1.0)
        >>> layer(torch.full((1, 3, 4, 4), 2.0))[0, 0, 0]
        tensor([2.2481, 2.2481, 2.2481, 2.2481], grad_fn=<SelectBackward0>)
    """

    exact: frozenset[ShiftKind] = frozenset({"circular", "fractional"})

    def __init__(
        self,
        channels: int,
        axes: Sequence[int] | None = None,
        channel_axis: int = 1,
        scale: float = 7.0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(axes)
        if not scale > 0:
            raise TinvError(f"the scale of PolynomialActivation is a number above 0, not {scale}")
        self.channels, self.channel_axis, self.scale = channels, channel_axis, scale
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.coefficients = nn.Parameter(torch.empty(3, channels, **made))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Sets all channels to the polynomial that training begins with."""
        for number, value in enumerate((0.01694, 0.5, 0.3078)):
            self.coefficients[number] = value

    def pointwise(self, images: Tensor, *parameters: Tensor) -> Tensor:
        """Returns the polynomial of each value of a map.

        Raises:
            TinvError: If the map has another number of channels.
        """
        if images.shape[self.channel_axis] != self.channels:
            raise TinvError(
                f"PolynomialActivation is for {self.channels} channels; axis {self.channel_axis} of its map has "
                f"{images.shape[self.channel_axis]}"
            )
        by_channel = [1] * images.dim()
        by_channel[self.channel_axis] = -1
        constant, slope, square = self.coefficients.to(images).view(3, *by_channel)
        found: Tensor = self.scale * constant + images * (slope + images * (square / self.scale))
        return found

    def extra_repr(self) -> str:
        return ", ".join(filter(None, (f"{self.channels}, scale={self.scale:g}", super().extra_repr())))


class FunctionActivation(nn.Module):
    """Calls a function with fixed arguments, such as the slope of a leaky ReLU, as a module.

    Args:
        function: Function of a map, of further tensors, and of the fixed arguments.
        *args: Fixed arguments that stand behind the tensors.
        **kwargs: Fixed arguments by name.

    Shape:
        As the function.
    """

    def __init__(self, function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.function, self.args, self.kwargs = function, args, kwargs

    def forward(self, images: Tensor, *parameters: Tensor) -> Tensor:
        found: Tensor = self.function(images, *parameters, *self.args, **self.kwargs)
        return found

    def extra_repr(self) -> str:
        named = [f"{key}={value}" for key, value in self.kwargs.items()]
        return ", ".join([getattr(self.function, "__name__", str(self.function)), *map(str, self.args), *named])
