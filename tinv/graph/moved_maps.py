"""Where a map has to be after its image has moved: by whole positions, or by parts of one in the band-limited sense."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import torch
from torch import Tensor

from tinv.graph.exact_invariance import Shift
from tinv.graph.grid import AxisGrid, Entry, Folded, Grid, Lost, axes_of


def fourier_shift(values: Tensor, dim: int, by: float) -> Tensor:
    """Moves the trigonometric polynomial through the values of an axis by any number of positions.

    The Nyquist frequency of an even size, of which half cannot be told from the other, moves as its real part does. By
    whole positions it is `torch.roll`.

    Args:
        values: Any shape.
        dim: Axis that is moved along.
        by: Positions, positive towards higher ones.

    Returns:
        The shape of `values`, in float64.

    Examples:
        >>> fourier_shift(torch.tensor([1.0, 0.0, -1.0, 0.0]), 0, 0.5)
        tensor([ 0.7071,  0.7071, -0.7071, -0.7071], dtype=torch.float64)
    """
    size = values.shape[dim]
    spectrum = torch.fft.rfft(values.double(), dim=dim)
    wavenumbers = torch.arange(size // 2 + 1, dtype=torch.double, device=values.device)
    turns = (wavenumbers * (by / size)).remainder(1.0)
    factors = torch.polar(torch.ones_like(turns), -2 * math.pi * turns)
    shape = [1] * values.dim()
    shape[dim] = -1
    moved: Tensor = torch.fft.irfft(spectrum * factors.view(shape), n=size, dim=dim)
    return moved


def on_canvas(image: Tensor, axis: int, room: int, at: int) -> Tensor:
    """Returns an image of zeros that holds all but the last `room` pixels of an axis of another, from pixel `at` on."""
    canvas, dim = torch.zeros_like(image), 2 + axis
    length = image.shape[dim] - room
    canvas.narrow(dim, at, length).copy_(image.narrow(dim, 0, length))
    return canvas


def moved_image(image: Tensor, kind: Shift | str, axis: int, pixels: float, room: int = 0) -> Tensor:
    """Returns an image moved along one axis.

    Args:
        image: (N, C, *spatial).
        kind: `circular`, `zero_canvas` (see `on_canvas`; `pixels` at most `room`), or `fractional`, where parts of a
            pixel are allowed.
        axis: Spatial axis, 0 for the first.
        pixels: How far.
        room: Pixels that the content leaves free on a zero canvas.
    """
    if kind == "zero_canvas":
        return on_canvas(image, axis, room, int(pixels))
    if kind == "fractional":
        return fourier_shift(image, 2 + axis, pixels)
    return image.roll(int(pixels), 2 + axis)


def moved_maps(values: Tensor, grid: Grid, axis: int, pixels: float, chosen: bool = False) -> Iterator[Tensor]:
    """Yields what a map may be after its image has moved along an axis, if it follows exactly.

    Args:
        values: The map of the unmoved image.
        grid: Where its positions sit, one entry an axis of the tensor.
        axis: Axis of the image.
        pixels: How far the image has moved; parts of a position are moved by `fourier_shift`.
        chosen: Whether the map may move by the whole positions next to that, where adaptive layers chose its positions.

    Yields:
        Nothing for a map whose positions are in an order that is not known.
    """
    if any(isinstance(entry, Lost) for entry in grid):
        return
    if axis not in axes_of(grid):
        yield values
        return
    places = [(dim, entry) for dim, entry in enumerate(grid) if axis in axes_of([entry])]
    dim, entry = places[0]
    if len(places) > 1 or sum(part.axis == axis for part in _parts(entry) if isinstance(part, AxisGrid)) > 1:
        return
    shape, parts = values.shape, _parts(entry)
    sizes = [part if isinstance(part, int) else part.size for part in parts]
    if math.prod(sizes) != shape[dim]:
        return
    number, place = next((i, p) for i, p in enumerate(parts) if isinstance(p, AxisGrid) and p.axis == axis)
    unfolded = values.reshape(*shape[:dim], *sizes, *shape[dim + 1 :])
    for by in _distances(place, pixels, chosen):
        yield _shifted(unfolded, dim + number, by).reshape(shape)


def _parts(entry: Entry) -> tuple[AxisGrid | int, ...]:
    return entry.parts if isinstance(entry, Folded) else (entry,) if isinstance(entry, AxisGrid) else ()


def _distances(place: AxisGrid, pixels: float, chosen: bool) -> list[Fraction]:
    by = Fraction(pixels) / place.stride
    if by.denominator > 1 and chosen and place.choices:
        return [Fraction(math.floor(by)), Fraction(math.ceil(by))]
    return [by]


def _shifted(values: Tensor, dim: int, by: Fraction) -> Tensor:
    if by.denominator == 1:
        return values.roll(int(by), dim)
    return fourier_shift(values, dim, float(by)) if values.is_floating_point() else values
