"""Where the cells of a map sit after it was resized, shuffled, rolled, permuted, reshaped, split or indexed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from tinv.graph.operations import Operation
from tinv.graph.places import Entry, Lost, Place, Places, Uniform, holds_positions, reshaped
from tinv.graph.step import Step


def _adapt(step: Step) -> Places:
    places = step.first.places
    out: list[Entry] = []
    for entry, before, after in zip(places, step.first.shape, step.shape, strict=True):
        if before == after or not holds_positions(entry):
            out.append(entry if before == after else None)
        elif after == 1:
            out.append(None)
        elif isinstance(entry, Place) and before % after == 0:
            out.append(entry.coarser(before // after))
        else:
            out.append(Lost())
    return tuple(out)


def _resize(step: Step) -> Places:
    mode, corners = resize_mode(step.op)
    out: list[Entry] = []
    for entry, before, after in zip(step.first.places, step.first.shape, step.shape, strict=True):
        if before == after:
            out.append(entry)
        elif before == 1 and not holds_positions(entry):
            out.append(Uniform())
        elif not isinstance(entry, Place):
            out.append(Lost() if holds_positions(entry) else None)
        elif after % before == 0 and (mode.startswith("nearest") or before == 1):
            out.append(entry.finer(after // before))
        elif before % after == 0 and mode.startswith("nearest"):
            by = before // after
            out.append(entry.moved(by // 2 if mode == "nearest-exact" else 0, after, by))
        elif before % after == 0 and mode == "area":
            out.append(entry.coarser(before // after))
        else:
            out.append(entry.resized(after, corners))
    return tuple(out)


def resize_mode(op: Operation) -> tuple[str, bool]:
    """Returns how a map is resized, and whether its corners stay where they are."""
    if op.module is not None:
        return str(op.module.mode), bool(op.module.align_corners)
    if op.name in ("upsample_nearest", "upsample_bilinear"):
        return op.name.removeprefix("upsample_"), op.name == "upsample_bilinear"
    return str(op.argument(3, "mode", "nearest")), bool(op.argument(4, "align_corners", False))


def is_whole_resize(op: Operation, before: int, after: int) -> bool:
    """Returns whether a resize repeats, picks or averages cells by a whole factor."""
    mode, _ = resize_mode(op)
    if mode.startswith("nearest"):
        return after % before == 0 or before % after == 0
    return before == 1 or (mode == "area" and before % after == 0)


def _shuffle(step: Step) -> Places:
    places, old = step.first.places, step.first.shape
    out: list[Entry] = []
    for dim, (entry, before, after) in enumerate(zip(places, old, step.shape, strict=True)):
        spatial = dim >= (2 if isinstance(step.op.module, nn.Module) and "Conv" in step.op.name else len(old) - 2)
        if not spatial or before == after:
            out.append(entry)
        elif isinstance(entry, Place):
            out.append(entry.finer(after // before) if after > before else entry.coarser(before // after))
        else:
            out.append(Lost() if holds_positions(entry) else None)
    return tuple(out)


def _transposed(step: Step) -> Places:
    module: Any = step.op.module
    places = step.first.places
    first = len(places) - len(module.kernel_size)
    out: list[Entry] = list(places[:first])
    out[-1] = None
    for axis, entry in enumerate(places[first:]):
        stride, reach = module.stride[axis], module.dilation[axis] * (module.kernel_size[axis] - 1)
        if not isinstance(entry, Place):
            out.append(Lost() if holds_positions(entry) else None)
            continue
        fine = entry.stride / stride
        # output cell o gathers the input cells that spread to it
        span = fine * reach
        out.append(
            replace(
                entry,
                offset=entry.offset - fine * (math.floor(reach / 2) - module.padding[axis]),
                stride=fine,
                size=step.shape[first + axis],
                low=entry.low - span + fine * module.padding[axis],
                high=entry.high + fine * module.padding[axis],
            )
        )
    return tuple(out)


def rolls(op: Operation, rank: int) -> dict[int, int] | None:
    """Returns by how many cells each axis is rolled; None where the whole tensor is, read as a row."""
    shifts = op.argument(1, "shifts")
    dims = op.argument(2, "dims")
    if dims is None or dims in ((), []):
        return None
    shifts, dims = ([v] if isinstance(v, int) else list(v) for v in (shifts, dims))
    return {d % rank: s for d, s in zip(dims, shifts, strict=True)}


def _roll(step: Step) -> Places:
    places = step.first.places
    by = rolls(step.op, len(places))
    if by is None:
        return tuple(Lost() if s > 1 else None for s in step.shape)
    return tuple(
        entry if not by.get(dim) else entry.moved(-by[dim], entry.size) if isinstance(entry, Place) else
        Lost() if holds_positions(entry) else entry
        for dim, entry in enumerate(places)
    )  # fmt: skip


def flipped_axes(op: Operation, rank: int) -> set[int]:
    """Returns the axes that are read from their other end."""
    if op.name in ("fliplr", "flipud"):
        return {1 if op.name == "fliplr" else 0}
    return {d % rank for d in op.sequence(1, "dims") or ()}


def _flip(step: Step) -> Places:
    axes = flipped_axes(step.op, len(step.shape))
    return tuple(
        (entry.flipped() if isinstance(entry, Place) else Lost()) if dim in axes and holds_positions(entry) else entry
        for dim, entry in enumerate(step.first.places)
    )


def _permute(step: Step) -> Places:
    op, places = step.op, list(step.first.places)
    rank = len(places)
    if op.name == "permute":
        return tuple(places[d % rank] for d in op.sequence(1, "dims") or ())
    if op.name == "T":
        return tuple(reversed(places))
    if op.name in ("transpose", "swapaxes", "swapdims", "t", "mT", "mH", "H"):
        keys = ("axis0", "axis1") if op.name == "swapaxes" else ("dim0", "dim1")
        named = op.name in ("transpose", "swapaxes", "swapdims")
        a, b = (op.argument(i, key) % rank for i, key in enumerate(keys, start=1)) if named else (-1, -2)
        if rank > 1:
            places[a], places[b] = places[b], places[a]
        return tuple(places)
    # movedim: run it on numbers that name the axes
    source, destination = (op.argument(i, key) for i, key in enumerate(("source", "destination"), start=1))
    numbered = torch.movedim(torch.empty(*range(2, rank + 2), device="meta"), source, destination)
    return tuple(places[size - 2] for size in numbered.shape)


def _reshape(step: Step) -> Places:
    return reshaped(step.first.places, step.first.shape, step.shape)


def _expand(step: Step) -> Places:
    source = step.first
    new = len(step.shape) - len(source.shape)
    out: list[Entry] = [None] * new
    for entry, before, after in zip(source.places, source.shape, step.shape[new:], strict=True):
        if before == after:
            out.append(entry)
        elif before == 1 and not holds_positions(entry):
            out.append(Uniform())
        else:
            out.append(Lost() if holds_positions(entry) else None)
    return tuple(out)


def _split(step: Step) -> Places:
    places, old = step.first.places, step.first.shape
    if step.op.name == "unbind":
        dim = int(step.op.argument(1, "dim", 0)) % len(old)
        return (*places[:dim], *places[dim + 1 :])
    dims = [dim for dim, (a, b) in enumerate(zip(old, step.shape, strict=True)) if a != b]
    if not dims:
        return places
    [dim] = dims
    entry = places[dim]
    if isinstance(entry, Place):
        # parts are as large as the first but for the last, or of sizes of their own
        sizes = step.op.argument(1, "split_size_or_sections", step.op.argument(1, "split_sizes", 1))
        begin = sum(sizes[: step.number]) if isinstance(sizes, (list, tuple)) else step.number * _part(step, old[dim])
        entry = entry.moved(begin, step.shape[dim])
    elif holds_positions(entry):
        entry = Lost()
    return (*places[:dim], entry, *places[dim + 1 :])


def _part(step: Step, size: int) -> int:
    if step.op.name == "chunk":
        return -(-size // int(step.op.argument(1, "chunks")))
    given = step.op.argument(1, "split_size", step.op.argument(1, "split_size_or_sections", 1))
    return int(given) if isinstance(given, int) else 1


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


def _item(step: Step) -> Places:
    source = step.first
    indices = expanded_index(step.op, len(source.places))
    if indices is None:
        return tuple(Lost() for _ in step.shape)
    out: list[Entry] = []
    dims = iter(zip(source.places, source.shape, strict=True))
    for i in indices:
        if i is None:
            out.append(None)
            continue
        entry, size = next(dims)
        if isinstance(i, (fx.Node, list)):
            # numbers of the entries to take
            out.append(Lost() if holds_positions(entry) else None)
        elif isinstance(i, slice):
            start, _, by = i.indices(size)
            whole = i.indices(size) == (0, size, 1)
            if isinstance(entry, Place):
                entry = entry.moved(start, step.shape[len(out)], by)
            elif holds_positions(entry) and not whole:
                entry = Lost()
            out.append(entry)
    return tuple(out)


REARRANGEMENTS: dict[str, Callable[[Step], Places]] = {
    "adapt": _adapt,
    "resize": _resize,
    "shuffle": _shuffle,
    "transposed": _transposed,
    "roll": _roll,
    "flip": _flip,
    "permute": _permute,
    "reshape": _reshape,
    "expand": _expand,
    "split": _split,
    "item": _item,
}
"""The rule of each kind."""
