"""What the border of a map does to shifts: windows, padding and the positions that are missing there."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import cast

from tinv.graph.grid import AxisGrid, Folded, Lost, Prefixed
from tinv.graph.operations import Operation
from tinv.graph.state import Case, State
from tinv.graph.windows import Window
from tinv.nn.subsampling import Subsampler

_REPEATS = ("circular", "reflect", "replicate", "symmetric")
"""Padding modes that repeat the map: the border of a constant map is the same constant."""


def border_problem(
    mode: str, blank: State, axis: int, kind: str = "conv", counts: bool = True, rectified: bool = False
) -> str:
    """Returns why a border differs from what a larger blank canvas would show there; empty if it does not."""
    if mode == "background":
        return "" if blank.uniform[axis] else "a blank image gives different values from position to position here"
    if mode == "constant":
        return "pads with a number that a blank image does not give"
    if mode == "partial":
        return "partial padding weighs positions by how much of the map they see"
    if mode != "zeros":
        known = mode in _REPEATS
        return f"{mode} padding " + ("repeats content at the border" if known else "is not known to tinv")
    if kind == "average" and not counts:
        return "the average leaves out the padding, so that content weighs more at the border"
    if not blank.zero[axis]:
        return (
            "pads with zeros, but a blank image gives other values here (biases, or norms); full_background pads with "
            "those"
        )
    if kind == "max" and not (blank.not_negative or rectified):
        return "the maximum leaves out the padding, but values here may be negative"
    return ""


def check_padding(case: Case, axis: int, left: int, right: int) -> None:
    """Checks padding of one axis that is read as content like any other."""
    before = case.state.before
    assert before is not None
    assert case.state.pads is not None
    low, high = case.source.state.content.get(axis, (0, 0))
    if left or right:
        case.breaks([axis], "pads where no window follows that could take it into account", ["circular"])
    if max(left, right) > 0:
        problem = border_problem(case.state.pads.mode_of(axis + 2, len(case.source.grid)), before, axis)
        if problem:
            case.breaks([axis], problem, ["zero_canvas"])
    case.moves_content(axis, low + left, high + left)


def check_window(case: Case, rectified: Callable[[], bool]) -> None:
    """Checks a convolution, pool, blur or adaptive layer on every axis it slides over.

    Args:
        case: The layer.
        rectified: Says whether all that read its output set negative values to zero.
    """
    window, source = case.op.window, case.source
    if window is None:
        case.breaks(case.every_axis(), "takes patches in a way that tinv cannot follow")
        return
    first = len(source.grid) - len(window.kernel)
    summed = source.axes_in(range(first)) if case.op.kind == "conv" else set()
    case.breaks(summed, "sums over positions")
    for axis, entry in enumerate(source.grid[first:]):
        if isinstance(entry, AxisGrid):
            _check_axis(case, window, axis, entry, rectified)
        elif isinstance(entry, (Folded, Prefixed, Lost)) and not window.is_trivial(axis):
            axes = source.axes_in([first + axis])
            case.breaks(axes, "slides over positions that are not in their order")


def _check_axis(case: Case, window: Window, number: int, axis_grid: AxisGrid, rectified: Callable[[], bool]) -> None:
    source, op, axis = case.source, case.op, axis_grid.axis
    dim = len(source.grid) - len(window.kernel) + number
    pads = source.state.pads
    blank = source.state.before or source.state
    added = pads.of(dim, len(source.grid)) if pads is not None else (0, 0)
    out, stride = case.axis_grid(axis), window.stride[number]
    effective = window.effective_kernel_size(number)
    positions = case.shape[dim] if op.kind != "patches" else window.output_size(number, axis_grid.size)
    if out is None:
        return
    size = axis_grid.size - sum(added)
    left, right = window.widths(number, axis_grid.size)
    # what the last window of ceil_mode sees beyond the map
    overhang = (positions - 1) * stride + effective - axis_grid.size - left - right
    sees_all = stride > 1 and getattr(op.module, "sees_all", False)
    if op.kind == "polyphase" or sees_all:
        overhang = 0
    if (positions, left, right, added) == (1, 0, 0, (0, 0)) and effective == size and op.kind in ("max", "average"):
        # one number for all positions, whatever their order
        case.state.content[axis] = (0, 0)
        return
    mode, added_mode = window.mode_of(number), pads.mode_of(dim, len(source.grid)) if pads else "zeros"
    fills = {added_mode} if any(added) else set()
    fills |= {mode} if left or right or overhang > 0 else set()
    problem = circular_problem(op, fills, size, stride, positions)
    if sees_all and not problem:
        problem = cast(Subsampler, op.module).circular_problem(size, stride)
    if problem:
        case.breaks([axis], problem, ["circular"])
    problem = ""
    if any(added):
        problem = border_problem(added_mode, blank, axis) if max(added) > 0 else ""
        low, high = blank.content.get(axis, (0, 0))
        if low + added[0] < 0 or high > size - 1 + added[1]:
            problem = "positions at the border are cropped"
    blurred = axis_grid.size + left + right - effective + 1
    short = op.kind == "polyphase" and blurred % stride
    if not problem and (left or right or overhang > 0 or short):
        # a maximum and the rectifier that follows it may change places
        problem = border_problem(mode, blank, axis, op.kind, window.count_include_pad, rectified())
    if not problem and overhang > 0 and op.kind == "average":
        problem = "the last window averages over fewer positions"
    if problem:
        case.breaks([axis], problem, ["zero_canvas"], keeps_blank=bool(fills) and fills <= set(_REPEATS))
    low, high = blank.content.get(axis, (0, 0))
    before = left + added[0]
    # any of the first `stride` positions may be the first that an adaptive layer keeps
    seen_before = effective - 1 + (stride - 1 if op.kind == "polyphase" else 0)
    if sees_all:
        case.state.content[axis] = (0, positions - 1)
    else:
        case.moves_content(axis, math.ceil(Fraction(low + before - seen_before, stride)), (high + before) // stride)
    if stride > 1 and op.kind != "polyphase":
        between = getattr(op.module, "between", "")
        case.times(axis, abs(out.stride.numerator), f"stride {stride}" + (f"; {between}" if between else ""))
    elif stride > 1:
        if ties := getattr(op.module, "ties", ""):
            case.times(axis, abs(out.stride.numerator), ties)
        case.state.steps[axis] = math.lcm(case.state.steps.get(axis, 1), abs(out.stride.numerator))


def circular_problem(op: Operation, fills: set[str], size: int, stride: int, positions: int) -> str:
    """Returns why windows do not go round a ring of `size` positions in even steps; empty if they do."""
    if fills - {"circular"}:
        kinds = " and ".join(sorted(fills - {"circular"}))
        if kinds == "zeros" and op.kind == "average" and op.window and not op.window.count_include_pad:
            return "leaves its padding out of the average"
        return f"pads with {'-inf' if kinds == 'zeros' and op.kind == 'max' else kinds}"
    if size % stride:
        return f"{size} positions are not a multiple of its stride {stride}"
    if positions * stride != size:
        return "loses positions at the border" if positions * stride < size else "repeats positions at the seam"
    return ""
