"""What steps other than windows do to shifts: merges, norms, reductions, reshapes, products and resizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

from torch import nn

from tinv.graph.contractions import contracted
from tinv.graph.grid import (
    AxisGrid,
    Entry,
    Folded,
    Lost,
    Prefixed,
    Uniform,
    choices,
    grids_of,
    holds_positions,
    signature,
)
from tinv.graph.operations import TRANSFORMERS, reduced_axes
from tinv.graph.rearrangements import expanded_index, flipped_axes, is_whole_resize, resize_mode, rolls
from tinv.graph.state import Case, Reading
from tinv.graph.values import Values, differs_along, norm_axes
from tinv.nn.activation import BandLimitedActivation
from tinv.nn.token_layers import TokenLayer


def _pointwise(case: Case, values: Values) -> None:
    source = case.source
    if isinstance(case.op.module, nn.Linear) or case.op.name == "linear":
        case.breaks(source.axes_in([-1]), "weighs each position by itself")
    elif isinstance(case.op.module, nn.PReLU) or case.op.name == "prelu":
        if len(source.grid) > 1:
            case.breaks(source.axes_in([1]), "treats each position differently")
    elif source.shape != case.shape:
        case.breaks(case.every_axis(), "makes a map of a fixed size")


def _resampled(case: Case, values: Values) -> None:
    layer, source = cast(BandLimitedActivation, case.op.module), case.source
    for dim in layer.treated(source.shape):
        entry = source.grid[dim]
        if isinstance(entry, AxisGrid):
            case.breaks([entry.axis], "spreads content over the whole map", ["zero_canvas"])
            case.state.content[entry.axis] = (0, entry.size - 1)
        elif holds_positions(entry):
            case.breaks(source.axes_in([dim]), "resamples positions that are not in their order")
    if "circular" not in layer.exact:
        case.breaks(case.every_axis(), f"{case.op.name} does not say that it follows circular shifts", ["circular"])
    channels = getattr(layer, "channel_axis", None)
    if channels is not None:
        case.breaks(source.axes_in([channels]), "treats each position differently")


def _tokens(case: Case, values: Values) -> None:
    layer, source = cast(TokenLayer, case.op.module), case.source
    others = [dim for dim in range(len(source.grid)) if dim not in layer.token_axes]
    case.breaks(source.axes_in(others), "weighs each position by itself")
    for dim in layer.token_axes:
        entry, after = source.grid[dim], case.grid[dim]
        if not isinstance(entry, AxisGrid) or not isinstance(after, AxisGrid):
            case.breaks(source.axes_in([dim]), "lays a grid over positions that are not in their order")
            continue
        case.breaks([entry.axis], "rolls content over the border", ["zero_canvas"])
        case.state.content[entry.axis] = (0, after.size - 1)
        if after.stride != entry.stride:
            step = abs(after.stride.numerator)
            case.state.steps[entry.axis] = math.lcm(case.state.steps.get(entry.axis, 1), step)


def _over_axes(case: Case, values: Values) -> None:
    name, source = case.op.name, case.source
    if isinstance(case.op.module, TRANSFORMERS):
        case.breaks(source.axes_in([-1]), "weighs each position by itself")
        if len(case.op.args) + len(case.op.kwargs) > 1:
            case.breaks(case.every_axis(), "masks positions")
    if name in ("glu", "GLU"):
        dim: Any = case.op.argument(1, "dim", -1) if case.op.module is None else case.op.module.dim
        case.breaks(source.axes_in([int(dim)]), "treats halves of the map differently")
    elif any(word in name.lower() for word in ("shuffle", "local")):
        case.breaks(source.axes_in([1]), "treats each position differently")


def _norm(case: Case, values: Values) -> None:
    source = case.source
    if source.shape != case.shape:
        case.breaks(case.every_axis(), "changes the map's size")
    axes, factors = norm_axes(case.op, source.grid, source.shape)
    broken = set()
    for dim, weight in factors.items():
        if not holds_positions(source.grid[dim]) or source.shape[dim] == 1:
            continue
        from_end = dim - len(source.grid)
        if case.op.module is None:
            constants = [r for r in case.readings if r.constant]
            told_apart = any(-from_end <= len(r.shape) and values.varies(r.node, from_end) for r in constants)
        elif dim in axes:
            bias: Any = getattr(case.op.module, "bias", None)
            told_apart = any(p is not None and (p.is_meta or differs_along(p, from_end)) for p in (weight, bias))
        else:
            # channels of their own each
            told_apart = True
        if told_apart:
            broken |= source.axes_in([dim])
    case.breaks(broken, "weighs each position by itself")


def _same_order(case: Case, values: Values, readings: Sequence[Reading], dims: Iterable[int]) -> None:
    """Checks maps that are taken together index by index, aligned at their last axes."""
    for dim in dims:
        held = [(r, dim + len(r.grid)) for r in readings if dim + len(r.grid) >= 0]
        maps = [(r, d) for r, d in held if holds_positions(r.grid[d])]
        if not maps:
            continue
        axes = {axis for r, d in maps for axis in r.axes_in([d])}
        kinds = {signature(r.grid[d]) for r, d in maps}
        if len(kinds) > 1 or any(isinstance(r.grid[d], Lost) for r, d in maps):
            case.breaks(axes, "takes maps together that do not move alike")
        elif len({choices(r.grid[d]) for r, d in maps}) > 1:
            case.mixes_choices(axes)
        for reading, d in held:
            entry = reading.grid[d]
            if holds_positions(entry) or isinstance(entry, Uniform) or reading.shape[d] == 1:
                continue
            if dim in (-1, -2) and any(_is_relative(values, reading, r.grid[-2], r.grid[-1]) for r, _ in maps):
                continue
            skipped = next((at.count for r, e in maps if isinstance(at := r.grid[e], Prefixed)), 0)
            if not reading.constant or values.varies(reading.node, d, skipped):
                name = values.name(reading.node)
                of = f" ({name})" if name else ""
                case.breaks(axes, f"takes the map together with numbers that differ from position to position{of}")


def _is_relative(values: Values, reading: Reading, query: Entry, key: Entry) -> bool:
    """Returns whether numbers for pairs of positions, the last two axes, depend on their distance on a ring alone."""
    if not reading.constant or signature(query) != signature(key) or isinstance(query, Lost):
        return False
    count = query.count if isinstance(query, Prefixed) else 0
    rest = query.rest if isinstance(query, Prefixed) else query
    parts = rest.parts if isinstance(rest, Folded) else (rest,)
    sizes = [part if isinstance(part, int) else part.size for part in parts if isinstance(part, (int, AxisGrid))]
    return values.is_relative(reading.node, sizes, count)


def _merge(case: Case, values: Values) -> None:
    rank = max(len(r.grid) for r in case.readings)
    _same_order(case, values, case.readings, range(-rank, 0))


def _concatenate(case: Case, values: Values) -> None:
    rank = len(case.shape)
    dim = int(case.op.argument(1, "dim", case.op.kwargs.get("axis", 0))) % rank
    _same_order(case, values, case.readings, [d - rank for d in range(rank) if d != dim])
    if isinstance(case.grid[dim], Lost):
        along = {axis for r in case.readings if len(r.grid) == rank for axis in r.axes_in([dim])}
        case.breaks(along, "puts positions behind others")


def _reduce(case: Case, values: Values) -> None:
    if case.op.name in ("cosine_similarity", "pairwise_distance"):
        _merge(case, values)
    if case.number == 1 and case.op.name in ("max", "min", "median", "nanmedian", "mode", "sort", "topk", "kthvalue"):
        _locate(case, values)


def _locate(case: Case, values: Values) -> None:
    dims = reduced_axes(case.op, len(case.source.grid))
    case.breaks(case.source.axes_in(dims), "says where a value is")


def _scan(case: Case, values: Values) -> None:
    dims = reduced_axes(case.op, len(case.source.grid))
    case.breaks(case.source.axes_in(dims), "depends on what came before along the map")


def _check_pairs(case: Case, values: Values, added: Reading) -> None:
    """Checks numbers that attention adds to pairs of positions: they may depend on the distance on a ring alone."""
    query, key = case.readings[0].grid[-2], case.readings[1].grid[-2]
    positions = holds_positions(query) or holds_positions(key)
    if positions and not _is_relative(values, added, query, key):
        case.breaks(case.every_axis(), "adds numbers to pairs of positions that do not depend on their distance alone")


def _product(case: Case, values: Values) -> None:
    operands = [(r.grid, r.shape) for r in case.readings]
    mask = case.op.argument(3, "attn_mask") if case.op.kind == "attention" else None
    number = next((n for n, r in enumerate(case.readings) if r.node is mask), None)
    if number is not None and not any(map(holds_positions, case.readings[number].grid)):
        _check_pairs(case, values, case.readings[number])
        # that was all that numbers for pairs tell apart; the axes before them are those of a factor
        grid, shape = operands[number]
        operands[number] = ((*grid[:-2], None, None), (*shape[:-2], 1, 1))
    found = contracted(case.op, operands, case.number)
    if found is None:
        case.breaks(case.every_axis(), "tinv cannot follow this product")
        return
    clashing = {part.axis for part in grids_of(found.clashes) if part.size > 1}
    case.breaks(clashing, "sums positions with numbers that differ from one to the next")
    if len({choices(e) for r in case.readings for e in r.grid if holds_positions(e)}) > 1:
        case.mixes_choices(case.every_axis())


def _scaled(case: Case, before: AxisGrid, after: AxisGrid, reason: str) -> None:
    """Checks positions that became several, or of which several became one."""
    low, high = case.content(before)
    if after.size >= before.size:
        factor = after.size // before.size
        case.moves_content(before.axis, low * factor, high * factor + factor - 1)
    else:
        factor = before.size // after.size
        case.moves_content(before.axis, low // factor, high // factor)
        case.times(before.axis, abs(after.stride.numerator), reason)


def _to_channels(case: Case, values: Values) -> None:
    for before in grids_of(case.source.grid):
        after = case.axis_grid(before.axis)
        if after is not None and before.size != after.size:
            _scaled(case, before, after, "makes positions into channels")


def _resized(case: Case) -> Iterator[tuple[int, Entry, Entry, int, int]]:
    """Yields the axes whose positions change in number: each with what it held and holds, and both its sizes."""
    axes = zip(case.source.grid, case.grid, case.source.shape, case.shape, strict=True)
    for dim, (entry, after, have, get) in enumerate(axes):
        if have != get and holds_positions(entry):
            yield dim, entry, after, have, get


def _adapt(case: Case, values: Values) -> None:
    for dim, entry, after, have, get in _resized(case):
        if get == 1:
            continue
        if isinstance(after, Lost):
            case.breaks(case.source.axes_in([dim]), f"makes {have} positions into a fixed number, {get}")
        elif isinstance(entry, AxisGrid) and isinstance(after, AxisGrid):
            _scaled(case, entry, after, f"pools {have // get} positions each")


def _resize(case: Case, values: Values) -> None:
    mode, _ = resize_mode(case.op)
    for dim, entry, after, have, get in _resized(case):
        whole = is_whole_resize(case.op, have, get)
        if not whole or not isinstance(entry, AxisGrid) or not isinstance(after, AxisGrid):
            reason = f"resizes {have} positions to {get}, which shifts do not pass unchanged"
            case.breaks(case.source.axes_in([dim]), reason)
        elif get > have or mode == "area":
            _scaled(case, entry, after, "averages positions")
        else:
            _picked(case, dim, entry, (have // get) // 2 if mode == "nearest-exact" else 0, have // get)


def _picked(case: Case, dim: int, entry: AxisGrid, start: int, step: int) -> None:
    """Checks a map of which every `step`-th position is kept, from position `start` on."""
    axis, size = entry.axis, case.shape[dim]
    low, high = case.content(entry)
    if size * step != entry.size:
        case.breaks([axis], "cuts the map", ["circular"])
    case.moves_content(axis, math.ceil((low - start) / step), (high - start) // step)
    after = case.grid[dim]
    if step > 1 and isinstance(after, AxisGrid):
        case.times(axis, abs(after.stride.numerator), f"takes every {step}th position")


def _transposed(case: Case, values: Values) -> None:
    module: Any = case.op.module
    source = case.source
    first = len(source.grid) - len(module.kernel_size)
    case.breaks(source.axes_in(range(first)), "sums over positions")
    for number, entry in enumerate(source.grid[first:]):
        stride, padding = module.stride[number], module.padding[number]
        spread = module.dilation[number] * (module.kernel_size[number] - 1)
        if not isinstance(entry, AxisGrid):
            case.breaks(source.axes_in([first + number]), "slides over positions that are not in their order")
            continue
        axis = entry.axis
        if (spread, stride, padding, case.shape[first + number]) == (0, 1, 0, entry.size):
            continue
        case.breaks([axis], "adds up less at the border", ["circular"])
        if not source.state.zero[axis]:
            case.breaks([axis], "adds up less at the border, where a blank image is not zero", ["zero_canvas"])
        low, high = case.state.content.get(axis, (0, 0))
        case.moves_content(axis, low * stride - padding, high * stride - padding + spread)


def _roll(case: Case, values: Values) -> None:
    by = rolls(case.op, len(case.source.grid))
    if by is None:
        case.breaks(case.every_axis(), "rolls the whole map as one row")
        return
    for dim, positions in by.items():
        entry = case.source.grid[dim]
        if isinstance(entry, AxisGrid) and positions % entry.size:
            low, high = case.content(entry)
            positions %= entry.size
            if low + positions >= entry.size:
                positions -= entry.size
            if low + positions < 0 or high + positions >= entry.size:
                case.breaks([entry.axis], "rolls content over the border", ["zero_canvas"])
            else:
                case.moves_content(entry.axis, low + positions, high + positions)
        elif holds_positions(entry) and not isinstance(entry, AxisGrid):
            case.breaks(case.source.axes_in([dim]), "rolls positions that are not in their order")


def _flip(case: Case, values: Values) -> None:
    for dim in flipped_axes(case.op, len(case.shape)):
        entry = case.source.grid[dim]
        if isinstance(entry, AxisGrid):
            low, high = case.content(entry)
            case.moves_content(entry.axis, entry.size - 1 - high, entry.size - 1 - low)


def _split(case: Case, values: Values) -> None:
    if case.op.name == "unbind":
        case.breaks(case.source.axes_in([int(case.op.argument(1, "dim", 0))]), "takes positions one by one")
        return
    for dim, entry, after, _, _ in _resized(case):
        if isinstance(entry, AxisGrid) and isinstance(after, AxisGrid):
            _picked(case, dim, entry, int((after.offset - entry.offset) / entry.stride), 1)
        else:
            case.breaks(case.source.axes_in([dim]), "cuts the map")


def _item(case: Case, values: Values) -> None:
    source = case.source
    indices = expanded_index(case.op, len(source.grid))
    if indices is None:
        case.breaks(case.every_axis(), "picks positions by an index")
        return
    out = 0
    dims = iter(range(len(source.grid)))
    for index in indices:
        if index is None:
            out += 1
            continue
        dim = next(dims)
        entry = source.grid[dim]
        if not isinstance(index, slice):
            if not isinstance(entry, Prefixed) or not isinstance(index, int) or not 0 <= index < entry.count:
                case.breaks(source.axes_in([dim]), "picks one position")
            continue
        start, _, step = index.indices(source.shape[dim])
        if (start, step, case.shape[out]) != (0, 1, source.shape[dim]):
            if isinstance(entry, AxisGrid) and entry.size > 1:
                _picked(case, out, entry, start, step)
            elif not isinstance(entry, Prefixed) or isinstance(case.grid[out], Lost):
                case.breaks(source.axes_in([dim]), "cuts the map")
        out += 1


RULES: dict[str, Callable[[Case, Values], None]] = {
    "pointwise": _pointwise,
    "resampled": _resampled,
    "tokens": _tokens,
    "anchor": lambda case, values: None,
    "over_axes": _over_axes,
    "norm": _norm,
    **dict.fromkeys(("merge", "stack"), _merge),
    "concatenate": _concatenate,
    "reduce": _reduce,
    "locate": _locate,
    "scan": _scan,
    **dict.fromkeys(("contract", "attention"), _product),
    "adapt": _adapt,
    "resize": _resize,
    **dict.fromkeys(("shuffle", "reshape"), _to_channels),
    "transposed": _transposed,
    "roll": _roll,
    "flip": _flip,
    **dict.fromkeys(("permute", "expand", "pad_or_crop"), lambda case, values: None),
    "split": _split,
    "item": _item,
}
