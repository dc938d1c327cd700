"""Where the positions of a node's output sit over the image, given where those of its inputs do: one rule a kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from tinv.graph.contractions import contracted
from tinv.graph.grid import AxisGrid, Entry, Folded, Grid, Lost, Prefixed, Uniform, holds_positions, prefixed
from tinv.graph.operations import reduced_axes
from tinv.graph.rearrangements import REARRANGEMENTS
from tinv.graph.step import Step, unknown
from tinv.nn.activation import BandLimitedActivation
from tinv.nn.token_layers import TokenLayer


def grid_after(step: Step) -> Grid:
    """Returns the grid of a node's output, one entry for each of its axes."""
    grid = _RULES.get(step.op.kind, unknown)(step)
    if len(grid) != len(step.shape):
        grid = unknown(step)
    # an axis whose size is not what the rule says was treated in a way we do not know
    sizes = zip(grid, step.shape, strict=True)
    return tuple(Lost() if isinstance(p, AxisGrid) and p.size != size else p for p, size in sizes)


def _window(step: Step) -> Grid:
    window, grid, rank = step.op.window, step.first.grid, len(step.shape)
    if window is None or len(grid) != rank:
        return _patches_of_tensor(step) if step.op.kind == "patches" else unknown(step)
    first = rank - len(window.kernel)
    out: list[Entry] = list(grid[:first])
    if step.op.kind == "conv" and first:
        # summed over
        out[-1] = None
    for axis, entry in enumerate(grid[first:]):
        if isinstance(entry, AxisGrid):
            entry = _after_window(step, entry, axis, step.shape[first + axis])
        elif isinstance(entry, Uniform):
            entry = entry if not any(window.widths(axis, step.first.shape[first + axis])) else None
        elif entry is not None and not window.is_trivial(axis):
            entry = Lost()
        out.append(entry)
    return tuple(out)


def _after_window(step: Step, axis_grid: AxisGrid, axis: int, size: int) -> AxisGrid:
    window = step.op.window
    assert window is not None
    left, _ = window.widths(axis, axis_grid.size)
    stride = window.stride[axis]
    if stride > 1 and getattr(step.op.module, "sees_all", False):
        # a stride that does not divide the size stands for a little less: branches of other sizes still meet
        return axis_grid.seeing_all().translated(0, size, stride)
    moved = axis_grid.after_window(window.effective_kernel_size(axis), left, stride, size)
    if step.op.kind == "polyphase" and stride > 1:
        # any of the first `stride` positions may be the first one: what is seen is what any of them may see
        name = getattr(step.op.module, "phase_group", "") or str(step.node.target)
        moved = replace(moved, high=moved.high + axis_grid.stride * (stride - 1), choices=(*axis_grid.choices, name))
    return moved


def _patches(step: Step) -> Grid:
    window, source = step.op.window, step.first
    if window is None:
        return _patches_of_tensor(step)
    parts: list[AxisGrid | int] = []
    for axis, entry in enumerate(source.grid[2:]):
        positions = window.output_size(axis, source.shape[2 + axis])
        if isinstance(entry, (Folded, Lost)):
            return (*step.nowhere[:-1], Lost())
        parts.append(_after_window(step, entry, axis, positions) if isinstance(entry, AxisGrid) else positions)
    if not any(isinstance(part, AxisGrid) for part in parts):
        return step.nowhere
    return (*step.nowhere[:-1], Folded(tuple(parts)))


def _patches_of_tensor(step: Step) -> Grid:
    grid = step.first.grid
    dim, size, by = (step.op.argument(i, key) for i, key in enumerate(("dimension", "size", "step"), start=1))
    entry = grid[dim]
    dim %= len(grid)
    if isinstance(entry, AxisGrid):
        entry = entry.after_window(size, 0, by, step.shape[dim])
    elif entry is not None:
        entry = Lost()
    return (*grid[:dim], entry, *grid[dim + 1 :], None)


def _pad(step: Step) -> Grid:
    pads, grid = step.op.pads, step.first.grid
    assert pads is not None
    out: list[Entry] = []
    for dim, entry in enumerate(grid):
        left, right = pads.of(dim, len(grid))
        if isinstance(entry, AxisGrid):
            entry = entry.translated(-left, step.shape[dim])
        elif (left or right) and entry is not None:
            entry = None if isinstance(entry, Uniform) else Lost()
        out.append(entry)
    return tuple(out)


def _pad_or_crop(step: Step) -> Grid:
    sizes = zip(step.first.grid, step.shape, strict=True)
    return tuple(replace(p, size=s) if isinstance(p, AxisGrid) else p for p, s in sizes)


def _pointwise(step: Step) -> Grid:
    grid = step.first.grid
    if isinstance(step.op.module, nn.Linear) or step.op.name == "linear":
        # mixes the last axis
        grid = (*grid[:-1], None)
    if len(grid) != len(step.shape):
        return step.nowhere
    changed = zip(grid, step.first.shape, step.shape, strict=True)
    return tuple(Lost() if holds_positions(p) and s != t else p for p, s, t in changed)


def _resampled(step: Step) -> Grid:
    treated = cast(BandLimitedActivation, step.op.module).treated(step.first.shape)
    grid = step.first.grid
    return tuple(p.seeing_all() if dim in treated and isinstance(p, AxisGrid) else p for dim, p in enumerate(grid))


def _tokens(step: Step) -> Grid:
    layer = cast(TokenLayer, step.op.module)
    out = list(step.first.grid)
    for dim, by in zip(layer.token_axes, layer.step, strict=True):
        entry = out[dim]
        if isinstance(entry, AxisGrid) and by > 1:
            moved = entry.after_window(by, 0, by, step.shape[dim])
            high = moved.high + entry.stride * (by - 1)
            out[dim] = replace(moved, high=high, choices=(*entry.choices, str(step.node.target)))
        elif isinstance(entry, AxisGrid):
            out[dim] = entry.seeing_all()
        elif holds_positions(entry):
            out[dim] = Lost()
    return tuple(out)


def together(first: Entry, second: Entry) -> Entry:
    """Returns where positions sit that are computed from two maps, index by index."""
    if not holds_positions(first) or not holds_positions(second):
        known = first if holds_positions(first) else second if holds_positions(second) else None
        return Uniform() if known is None and first == second == Uniform() else known
    if isinstance(first, AxisGrid) and isinstance(second, AxisGrid):
        if (first.axis, first.stride) != (second.axis, second.stride):
            return Lost()
        choices = tuple(dict.fromkeys((*first.choices, *second.choices)))
        return replace(first, low=min(first.low, second.low), high=max(first.high, second.high), choices=choices)
    if isinstance(first, Folded) and isinstance(second, Folded) and len(first.parts) == len(second.parts):
        parts: list[AxisGrid | int] = []
        for part, other in zip(first.parts, second.parts, strict=True):
            if isinstance(part, int) or isinstance(other, int):
                met: Any = part if part == other else None
            else:
                met = together(part, other)
            if not isinstance(met, (AxisGrid, int)):
                return Lost()
            parts.append(met)
        return Folded(tuple(parts))
    if isinstance(first, Prefixed) and isinstance(second, Prefixed) and first.count == second.count:
        return prefixed(first.count, together(first.rest, second.rest))
    return Lost()


def _merge(step: Step) -> Grid:
    out: list[Entry] = list(step.nowhere)
    seen = [False] * len(out)
    for source in step.sources:
        for dim, entry in enumerate(source.grid, start=len(out) - len(source.grid)):
            size = source.shape[dim - len(out)]
            if size == 1 and not holds_positions(entry) and step.shape[dim] != 1:
                # broadcast
                entry = Uniform()
            if not holds_positions(entry) and not holds_positions(out[dim]):
                out[dim] = entry if not seen[dim] or out[dim] == entry else None
            else:
                out[dim] = together(out[dim], entry)
            seen[dim] = True
    return tuple(out)


def _concatenate(step: Step) -> Grid:
    rank = len(step.shape)
    dim = int(step.op.argument(1, "dim", step.op.kwargs.get("axis", 0))) % rank
    merged = list(_merge(step))
    merged[dim] = _behind_another([(source.grid[dim], source.shape[dim]) for source in step.sources])
    return tuple(merged)


def _behind_another(along: Sequence[tuple[Entry, int]]) -> Entry:
    """Returns what axes, each with its size, make behind one another: positions behind class tokens can be told."""
    *before, (last, _) = along
    if any(holds_positions(entry) for entry, _ in before):
        return Lost()
    count = sum(size for _, size in before)
    if not holds_positions(last):
        return None
    return prefixed(count, last) if count else last


def _stack(step: Step) -> Grid:
    dim = int(step.op.argument(1, "dim", 0)) % len(step.shape)
    shape = [size for axis, size in enumerate(step.shape) if axis != dim]
    merged = _merge(replace(step, shape=shape))
    return (*merged[:dim], None, *merged[dim:])


def _reduce(step: Step) -> Grid:
    grid = step.first.grid
    if step.op.name in ("cosine_similarity", "pairwise_distance"):
        shape = torch.broadcast_shapes(*(tuple(s.shape) for s in step.sources))  # type: ignore[no-untyped-call]
        grid = _merge(replace(step, shape=shape))
    gone = set(reduced_axes(step.op, len(grid)))
    if len(step.shape) == len(grid):
        return tuple(None if dim in gone else entry for dim, entry in enumerate(grid))
    return tuple(entry for dim, entry in enumerate(grid) if dim not in gone)


def _product(step: Step) -> Grid:
    found = contracted(step.op, [(s.grid, s.shape) for s in step.sources], step.number)
    return unknown(step) if found is None else found.grid


_RULES: dict[str, Callable[[Step], Grid]] = {
    **REARRANGEMENTS,
    **dict.fromkeys(("conv", "max", "average", "blur", "polyphase", "subsample"), _window),
    **dict.fromkeys(("pointwise", "over_axes", "norm", "scan"), _pointwise),
    **dict.fromkeys(("reduce", "locate"), _reduce),
    "patches": _patches,
    "resampled": _resampled,
    "tokens": _tokens,
    "anchor": lambda step: step.nowhere,
    "merge": _merge,
    "concatenate": _concatenate,
    "stack": _stack,
    "pad": _pad,
    "pad_or_crop": _pad_or_crop,
    **dict.fromkeys(("contract", "attention"), _product),
}
