"""Where the positions of a map sit after it was resized, shuffled, rolled, permuted, reshaped, split or indexed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from tinv.graph.grid import (
    AxisGrid,
    Entry,
    Grid,
    Lost,
    Prefixed,
    Uniform,
    after_move,
    holds_positions,
    reshaped,
    without_prefix,
)
from tinv.graph.operations import Operation
from tinv.graph.step import Step


def _resized(step: Step, rule: Callable[[Entry, int, int], Entry]) -> Grid:
    """Returns the grid after a step that changes sizes: a rule says what becomes of an axis, given both its sizes."""
    sizes = zip(step.first.grid, step.first.shape, step.shape[len(step.shape) - len(step.first.shape) :], strict=True)
    return tuple(entry if before == after else rule(entry, before, after) for entry, before, after in sizes)


def _lost(entry: Entry) -> Entry:
    return Lost() if holds_positions(entry) else None


def _adapt(step: Step) -> Grid:
    def rule(entry: Entry, before: int, after: int) -> Entry:
        if isinstance(entry, AxisGrid) and before % after == 0 and after > 1:
            return entry.coarser(before // after)
        return _lost(entry) if after > 1 else None

    return _resized(step, rule)


def _resize(step: Step) -> Grid:
    mode, corners = resize_mode(step.op)

    def rule(entry: Entry, before: int, after: int) -> Entry:
        if before == 1 and not holds_positions(entry):
            return Uniform()
        if not isinstance(entry, AxisGrid):
            return _lost(entry)
        if after % before == 0 and (mode.startswith("nearest") or before == 1):
            return entry.finer(after // before)
        if before % after == 0 and mode.startswith("nearest"):
            by = before // after
            return entry.translated(by // 2 if mode == "nearest-exact" else 0, after, by)
        whole = before % after == 0 and mode == "area"
        return entry.coarser(before // after) if whole else entry.resized(after, corners)

    return _resized(step, rule)


def resize_mode(op: Operation) -> tuple[str, bool]:
    """Returns how a map is resized, and whether its corners stay where they are."""
    if op.module is not None:
        return str(op.module.mode), bool(op.module.align_corners)
    if op.name in ("upsample_nearest", "upsample_bilinear"):
        return op.name.removeprefix("upsample_"), op.name == "upsample_bilinear"
    return str(op.argument(3, "mode", "nearest")), bool(op.argument(4, "align_corners", False))


def is_whole_resize(op: Operation, before: int, after: int) -> bool:
    """Returns whether a resize repeats, picks or averages positions by a whole factor."""
    mode, _ = resize_mode(op)
    if mode.startswith("nearest"):
        return after % before == 0 or before % after == 0
    return before == 1 or (mode == "area" and before % after == 0)


def _shuffle(step: Step) -> Grid:
    def rule(entry: Entry, before: int, after: int) -> Entry:
        if not isinstance(entry, AxisGrid):
            return _lost(entry)
        return entry.finer(after // before) if after > before else entry.coarser(before // after)

    first = 2 if isinstance(step.op.module, nn.Module) and "Conv" in step.op.name else len(step.shape) - 2
    return (*step.first.grid[:first], *_resized(step, rule)[first:])


def _transposed(step: Step) -> Grid:
    module: Any = step.op.module
    grid = step.first.grid
    first = len(grid) - len(module.kernel_size)
    out: list[Entry] = list(grid[:first])
    out[-1] = None
    for axis, entry in enumerate(grid[first:]):
        stride, spread = module.stride[axis], module.dilation[axis] * (module.kernel_size[axis] - 1)
        if not isinstance(entry, AxisGrid):
            out.append(_lost(entry))
            continue
        fine = entry.stride / stride
        # output position o gathers the input positions that spread to it
        span = fine * spread
        offset, padding = entry.offset - fine * (spread // 2), fine * module.padding[axis]
        ends = {"low": entry.low - span + padding, "high": entry.high + padding}
        out.append(replace(entry, offset=offset + padding, stride=fine, size=step.shape[first + axis], **ends))
    return tuple(out)


def rolls(op: Operation, rank: int) -> dict[int, int] | None:
    """Returns by how many positions each axis is rolled; None where the whole tensor is, read as a row."""
    shifts = op.argument(1, "shifts")
    dims = op.argument(2, "dims")
    if dims is None or dims in ((), []):
        return None
    shifts, dims = ([v] if isinstance(v, int) else list(v) for v in (shifts, dims))
    return {d % rank: s for d, s in zip(dims, shifts, strict=True)}


def _roll(step: Step) -> Grid:
    grid = step.first.grid
    by = rolls(step.op, len(grid))
    if by is None:
        return tuple(Lost() if s > 1 else None for s in step.shape)
    axes = enumerate(zip(grid, step.shape, strict=True))
    return tuple(after_move(e, AxisGrid.translated, -by[dim], size) if by.get(dim) else e for dim, (e, size) in axes)


def flipped_axes(op: Operation, rank: int) -> set[int]:
    """Returns the axes that are read from their other end."""
    if op.name in ("fliplr", "flipud"):
        return {1 if op.name == "fliplr" else 0}
    return {d % rank for d in op.sequence(1, "dims") or ()}


def _flip(step: Step) -> Grid:
    axes = flipped_axes(step.op, len(step.shape))
    grid = enumerate(step.first.grid)
    return tuple(after_move(entry, AxisGrid.flipped) if dim in axes else entry for dim, entry in grid)


def _permute(step: Step) -> Grid:
    op, grid = step.op, list(step.first.grid)
    rank = len(grid)
    if op.name == "permute":
        return tuple(grid[d % rank] for d in op.sequence(1, "dims") or ())
    if op.name == "T":
        return tuple(reversed(grid))
    if op.name in ("transpose", "swapaxes", "swapdims", "t", "mT", "mH", "H"):
        keys = ("axis0", "axis1") if op.name == "swapaxes" else ("dim0", "dim1")
        named = op.name in ("transpose", "swapaxes", "swapdims")
        a, b = (op.argument(i, key) % rank for i, key in enumerate(keys, start=1)) if named else (-1, -2)
        if rank > 1:
            grid[a], grid[b] = grid[b], grid[a]
        return tuple(grid)
    # movedim: run it on numbers that name the axes
    source, destination = (op.argument(i, key) for i, key in enumerate(("source", "destination"), start=1))
    numbered = torch.movedim(torch.empty(*range(2, rank + 2), device="meta"), source, destination)
    return tuple(grid[size - 2] for size in numbered.shape)


def _expand(step: Step) -> Grid:
    def rule(entry: Entry, before: int, after: int) -> Entry:
        return Uniform() if before == 1 and not holds_positions(entry) else _lost(entry)

    return (*(None for _ in range(len(step.shape) - len(step.first.shape))), *_resized(step, rule))


def _split(step: Step) -> Grid:
    grid, old = step.first.grid, step.first.shape
    if step.op.name == "unbind":
        dim = int(step.op.argument(1, "dim", 0)) % len(old)
        return (*grid[:dim], *grid[dim + 1 :])
    dims = [dim for dim, (a, b) in enumerate(zip(old, step.shape, strict=True)) if a != b]
    if not dims:
        return grid
    [dim] = dims
    # the function itself says where a part begins: it is given the numbers of the positions
    numbers = torch.arange(old[dim]).view(-1, *[1] * (len(old) - dim - 1)).expand(old)
    owner = Tensor if "split_size" in step.op.kwargs else torch  # the function calls it split_size_or_sections
    part = getattr(owner, step.op.name)(numbers, *step.op.args[1:], **step.op.kwargs)[step.number]
    begin = int(part[(0,) * len(old)])
    return (*grid[:dim], after_move(grid[dim], AxisGrid.translated, begin, step.shape[dim]), *grid[dim + 1 :])


def expanded_index(op: Operation, rank: int) -> list[Any] | None:
    """Returns what an index takes of each axis of a tensor, None for new axes; None where two tensors choose."""
    if op.name in ("select", "narrow"):
        dim = int(op.argument(1, "dim")) % rank
        start = op.argument(2, "index" if op.name == "select" else "start")
        taken = start if op.name == "select" else slice(start, start + op.argument(3, "length"))
        return [slice(None)] * dim + [taken] + [slice(None)] * (rank - dim - 1)
    index = op.args[1]
    indices: list[Any] = list(index) if isinstance(index, tuple) else [index]
    if sum(isinstance(i, (Tensor, fx.Node, list)) for i in indices) > 1:
        return None
    missing = rank - sum(i is not None and i is not Ellipsis for i in indices)
    expanded: list[Any] = []
    for i in indices:
        expanded += [slice(None)] * missing if i is Ellipsis else [i]
    return expanded + [slice(None)] * (rank - sum(i is not None for i in expanded))


def _item(step: Step) -> Grid:
    source = step.first
    indices = expanded_index(step.op, len(source.grid))
    if indices is None:
        return tuple(Lost() for _ in step.shape)
    out: list[Entry] = []
    dims = iter(zip(source.grid, source.shape, strict=True))
    for i in indices:
        if i is None:
            out.append(None)
            continue
        entry, size = next(dims)
        if isinstance(i, (fx.Node, list)):
            # numbers of the entries to take
            out.append(_lost(entry))
        elif isinstance(i, slice):
            start, end, by = i.indices(size)
            if (start, end, by) != (0, size, 1):
                taken = step.shape[len(out)]
                is_prefixed = isinstance(entry, Prefixed)
                entry = (
                    without_prefix(entry, start, end, by, size)
                    if is_prefixed
                    else after_move(entry, AxisGrid.translated, start, taken, by)
                )
            out.append(entry)
    return tuple(out)


REARRANGEMENTS: dict[str, Callable[[Step], Grid]] = {
    "adapt": _adapt,
    "resize": _resize,
    "shuffle": _shuffle,
    "transposed": _transposed,
    "roll": _roll,
    "flip": _flip,
    "permute": _permute,
    "reshape": lambda step: reshaped(step.first.grid, step.first.shape, step.shape),
    "expand": _expand,
    "split": _split,
    "item": _item,
}
"""The rule of each kind."""
