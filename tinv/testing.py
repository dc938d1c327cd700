"""Assertions for test suites of your own: a network is invariant, or a layer equivariant, to shifts.

They work on any callable. `tinv.verify` finds the layer that breaks a shift, where a network can be traced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from tinv.errors import TinvError, unknown

ShiftSet = Literal["circular", "zero_canvas"]
Shift = tuple[int, ...]
Shifts = ShiftSet | Sequence[Shift]


def assert_invariant(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    shifts: Shifts = "circular",
    *,
    up_to: int = 8,
    multiples_of: int = 1,
    atol: float = 1e-5,
    rtol: float = 1e-4,
) -> None:
    """Checks that the output of a network is the same for moved images.

    Args:
        network: Takes images and returns one tensor. A module is run in evaluation mode and left in its own.
        images: One batch (N, C, *spatial), one to three spatial axes; float64 tells rounding from change best.
        shifts: `circular` rolls the images; `zero_canvas` moves content on images of zeros, as far as it stays inside.
            Both try all axes alone and together, forwards and backwards. Or a list of shifts in pixels, one number for
            each axis, positive down and to the right, by which the images are rolled.
        up_to: Largest shift in pixels of the two names.
        multiples_of: Shifts that are tried are multiples of so many pixels, of the two names.
        atol: Largest difference of two numbers that counts as none.
        rtol: The same, as a part of the largest number of the output.

    Raises:
        AssertionError: Naming the worst shift, how much the output changes and where, and how many shifts break it.
        TinvError: For an unknown name, or where no shift is left to try.

    Examples:
        >>> network = nn.Sequential(
        ...     nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        ... )
        >>> assert_invariant(network, torch.randn(2, 3, 8, 8))
    """
    _check(network, images, _shifts(images, shifts, up_to, multiples_of), None, atol, rtol)


def assert_equivariant(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    shifts: Shifts = "circular",
    *,
    stride: int | Sequence[int] = 1,
    up_to: int = 8,
    multiples_of: int | None = None,
    atol: float = 1e-5,
    rtol: float = 1e-4,
) -> None:
    """Checks that the map that a layer or a network returns moves with its images, by one position for each stride.

    Args:
        network: Takes images and returns one map (N, C', *spatial').
        images: One batch (N, C, *spatial).
        shifts: See `assert_invariant`. Shifts in a list must be multiples of the stride.
        stride: Pixels for each position of the map, one number for all axes or one for each.
        up_to: Largest shift in pixels of the two names.
        multiples_of: Shifts that are tried are multiples of so many pixels; None takes the least that the strides
            divide.
        atol: Largest difference of two numbers that counts as none.
        rtol: The same, as a part of the largest number of the map.

    Raises:
        AssertionError: Naming the worst shift, how much the map changes and where, and how many shifts break it.
        TinvError: For an unknown name, or where no shift is left to try.

    Examples:
        >>> conv = nn.Conv2d(3, 4, 3, stride=2, padding=1, padding_mode="circular")
        >>> assert_equivariant(conv, torch.randn(2, 3, 8, 8), stride=2)
    """
    axes = images.dim() - 2
    strides = (stride,) * axes if isinstance(stride, int) else tuple(stride)
    if len(strides) != axes or min(strides) < 1:
        raise TinvError(f"stride={stride}: give a number above 0, or one for each of the {axes} axes of the images")
    tried = _shifts(images, shifts, up_to, multiples_of or math.lcm(*strides))
    uneven = next((shift for shift in tried if any(p % s for p, s in zip(shift, strides, strict=True))), None)
    if uneven is not None:
        raise TinvError(f"a shift by {_text(uneven)} pixels is no multiple of the stride {stride}")
    _check(network, images, tried, strides, atol, rtol)


def _shifts(images: Tensor, shifts: Shifts, up_to: int, step: int) -> list[Shift]:
    axes, sizes = images.dim() - 2, images.shape[2:]
    if not isinstance(shifts, str):
        if wrong := next((shift for shift in shifts if len(shift) != axes), None):
            raise TinvError(f"shift {tuple(wrong)}: images with {axes} spatial axes need {axes} numbers of pixels")
        found = [tuple(shift) for shift in shifts]
    elif shifts == "circular":
        found = list(_grid([(-min(up_to, size - 1), min(up_to, size - 1)) for size in sizes], step))
    elif shifts == "zero_canvas":
        found = list(_grid([_free(images, axis, up_to) for axis in range(axes)], step))
    else:
        raise unknown("shifts", shifts, ("circular", "zero_canvas"))
    if not found:
        room = "; leave more zeros around their content" if shifts == "zero_canvas" else ""
        raise TinvError(f"no shift of up to {up_to} pixels by multiples of {step} fits these images{room}")
    return found


def _grid(ranges: Sequence[tuple[int, int]], step: int) -> Iterator[Shift]:
    """Yields shifts along each axis alone, and along all axes by as much."""
    least, most = max(low for low, _ in ranges), min(high for _, high in ranges)
    for axis, (low, high) in enumerate(ranges):
        for pixels in _steps(low, high, step):
            yield tuple(pixels if number == axis else 0 for number in range(len(ranges)))
    if len(ranges) > 1:
        for pixels in _steps(least, most, step):
            yield (pixels,) * len(ranges)


def _steps(low: int, high: int, step: int) -> list[int]:
    return [pixels for pixels in range(-(-low // step) * step, high + 1, step) if pixels]


def _free(images: Tensor, axis: int, up_to: int) -> tuple[int, int]:
    """Returns how far the content of all images can move along an axis without leaving them."""
    others = [dim for dim in range(images.dim()) if dim != 2 + axis]
    lines = images.ne(0).any(dim=others[-1])
    for dim in reversed(others[:-1]):
        lines = lines.any(dim=dim)
    there = lines.nonzero().flatten().tolist() or [0]
    return max(-up_to, -there[0]), min(up_to, images.shape[2 + axis] - 1 - there[-1])


def _check(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    shifts: Sequence[Shift],
    strides: Sequence[int] | None,
    atol: float,
    rtol: float,
) -> None:
    dims = tuple(range(2, images.dim()))
    before = _output(network, images)
    if not bool(before.isfinite().all()):
        raise AssertionError("the output of the images as they are holds numbers that are not finite")
    bound = atol + rtol * float(before.abs().max())
    worst, broken = (0.0, shifts[0], 0), 0
    for shift in shifts:
        after = _output(network, images.roll(shift, dims))
        wanted = before
        if strides is not None:
            wanted = before.roll([pixels // stride for pixels, stride in zip(shift, strides, strict=True)], dims)
        if after.shape != wanted.shape:
            raise AssertionError(f"the shape of the output depends on the shift: {tuple(after.shape)} after {shift}")
        change = (after - wanted).abs().flatten(1).amax(1)
        # not a number is no small difference
        largest = float(change.nan_to_num(nan=float("inf")).max())
        broken += largest > bound
        worst = max(worst, (largest, shift, int(change.nan_to_num(nan=float("inf")).argmax())))
    if broken:
        what = "the output changes" if strides is None else "the map does not move with the images"
        allowed = f"allowed: {bound:.3g}, of values up to {float(before.abs().max()):.3g}"
        raise AssertionError(
            f"{what} under {broken} of {len(shifts)} shifts tried; the worst is by {_text(worst[1])} pixels, by up to "
            f"{worst[0]:.3g} in image {worst[2]} ({allowed})"
        )


@torch.no_grad()
def _output(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    modes = [module.training for module in modules]
    try:
        for module in modules[:1]:
            module.eval()
        output = network(images)
    finally:
        for module, training in zip(modules, modes, strict=True):
            module.training = training
    if not isinstance(output, Tensor):
        raise TinvError(f"the network returns {type(output).__name__}, not one tensor; wrap it in a function that does")
    return output.detach()


def _text(shift: Shift) -> str:
    return f"({', '.join(map(str, shift))})"
