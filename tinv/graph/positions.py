"""What steps other than windows do to shifts: merges, norms, reductions, reshapes, products and resizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn

from tinv.graph.contractions import Contraction, attended, contracted
from tinv.graph.operations import TRANSFORMERS, reduced_axes
from tinv.graph.places import Entry, Lost, Place, Uniform, holds_positions, places_in
from tinv.graph.rearrangements import expanded_index, flipped_axes, is_whole_resize, rolls
from tinv.graph.state import Case, Reading, choices, signature
from tinv.graph.values import Values, differs_along, norm_axes


def _axes_of(entries: Iterable[Entry]) -> set[int]:
    return {p.axis for entry in entries for p in places_in(entry) if p.size > 1}


def _pointwise(case: Case, values: Values) -> None:
    source, last = case.source, len(case.source.places) - 1
    if isinstance(case.op.module, nn.Linear) or case.op.name == "linear":
        case.breaks(source.axes_in([last]), "weighs each position by itself")
    elif isinstance(case.op.module, nn.PReLU) or case.op.name == "prelu":
        if len(source.places) > 1:
            case.breaks(source.axes_in([1]), "treats each position differently")
    elif source.shape != case.shape:
        case.breaks(case.every_axis(), "makes a map of a fixed size")


def _over_axes(case: Case, values: Values) -> None:
    name, source = case.op.name, case.source
    if isinstance(case.op.module, TRANSFORMERS):
        case.breaks(source.axes_in([len(source.places) - 1]), "weighs each position by itself")
        if len(case.op.args) + len(case.op.kwargs) > 1:
            case.breaks(case.every_axis(), "masks positions")
    if name in ("glu", "GLU"):
        dim: Any = case.op.argument(1, "dim", -1) if case.op.module is None else case.op.module.dim
        case.breaks(source.axes_in([int(dim) % len(source.places)]), "treats halves of the map differently")
    elif any(word in name.lower() for word in ("shuffle", "local")):
        case.breaks(source.axes_in([1]), "treats each position differently")


def _norm(case: Case, values: Values) -> None:
    source = case.source
    if source.shape != case.shape:
        case.breaks(case.every_axis(), "changes the map's size")
    axes, factors = norm_axes(case.op, source.places, source.shape)
    broken = set()
    for dim, weight in factors.items():
        if not holds_positions(source.places[dim]) or source.shape[dim] == 1:
            continue
        if case.op.module is None:
            constants = [r for r in case.readings if r.constant]
            from_end = dim - len(source.places)
            told_apart = any(-from_end <= len(r.shape) and values.varies(r.node, from_end) for r in constants)
        elif dim in axes:
            bias: Any = getattr(case.op.module, "bias", None)
            from_end = dim - len(source.places)
            told_apart = any(p is not None and (p.is_meta or differs_along(p, from_end)) for p in (weight, bias))
        else:
            # channels of their own each
            told_apart = True
        if told_apart:
            broken |= source.axes_in([dim])
    case.breaks(broken, "weighs each position by itself")


def _same_order(case: Case, values: Values, readings: Sequence[Reading], dims: Iterable[int]) -> None:
    """Judges maps that are taken together index by index, aligned at their last axes."""
    for dim in dims:
        held = [(r, dim + len(r.places)) for r in readings if dim + len(r.places) >= 0]
        maps = [(r, d) for r, d in held if holds_positions(r.places[d])]
        if not maps:
            continue
        axes = {axis for r, d in maps for axis in r.axes_in([d])}
        kinds = {signature(r.places[d]) for r, d in maps}
        if len(kinds) > 1 or any(isinstance(r.places[d], Lost) for r, d in maps):
            case.breaks(axes, "takes maps together that do not move alike")
        elif len({choices(r.places[d]) for r, d in maps}) > 1:
            for axis in axes:
                case.times(
                    axis, case.state.steps.get(axis, 1), "takes maps together that were subsampled by different choices"
                )
        for reading, d in held:
            entry = reading.places[d]
            if holds_positions(entry) or isinstance(entry, Uniform) or reading.shape[d] == 1:
                continue
            if not reading.constant or values.varies(reading.node, d):
                case.breaks(axes, "takes the map together with numbers that differ from position to position")


def _merge(case: Case, values: Values) -> None:
    rank = max(len(r.places) for r in case.readings)
    _same_order(case, values, case.readings, range(-rank, 0))


def _concatenate(case: Case, values: Values) -> None:
    rank = len(case.shape)
    dim = int(case.op.argument(1, "dim", case.op.kwargs.get("axis", 0))) % rank
    _same_order(case, values, case.readings, [d - rank for d in range(rank) if d != dim])
    along = {axis for r in case.readings if len(r.places) == rank for axis in r.axes_in([dim])}
    case.breaks(along, "puts positions behind others")


def _stack(case: Case, values: Values) -> None:
    rank = len(case.readings[0].places)
    _same_order(case, values, case.readings, range(-rank, 0))


def _reduce(case: Case, values: Values) -> None:
    if case.op.name in ("cosine_similarity", "pairwise_distance"):
        _merge(case, values)
    if case.number == 1 and case.op.name in ("max", "min", "median", "nanmedian", "mode", "sort", "topk", "kthvalue"):
        _locate(case, values)


def _locate(case: Case, values: Values) -> None:
    dims = reduced_axes(case.op, len(case.source.places))
    case.breaks(case.source.axes_in(dims), "says where a value is")


def _scan(case: Case, values: Values) -> None:
    dims = reduced_axes(case.op, len(case.source.places))
    case.breaks(case.source.axes_in(dims), "depends on what came before along the map")


def _contract(case: Case, values: Values) -> None:
    _product(case, contracted(case.op, [(r.places, r.shape) for r in case.readings]), values)


def _attention(case: Case, values: Values) -> None:
    _product(case, attended(case.op, [(r.places, r.shape) for r in case.readings], case.number), values)


def _product(case: Case, found: Contraction | None, values: Values) -> None:
    if found is None:
        case.breaks(case.every_axis(), "tinv cannot follow this product")
        return
    case.breaks(_axes_of(found.clashes), "sums positions with numbers that differ from one to the next")
    if len({choices(e) for r in case.readings for e in r.places if holds_positions(e)}) > 1:
        for axis in case.every_axis():
            case.times(
                axis, case.state.steps.get(axis, 1), "takes maps together that were subsampled by different choices"
            )


def _scaled(case: Case, axis: int, before: Place, after: Place, reason: str) -> None:
    """Judges cells that became several, or of which several became one."""
    low, high = case.state.content.get(axis, (0, before.size - 1))
    if after.size >= before.size:
        factor = after.size // before.size
        case.moves_content(axis, low * factor, high * factor + factor - 1)
    else:
        factor = before.size // after.size
        case.moves_content(axis, low // factor, high // factor)
        case.times(axis, abs(after.stride.numerator), reason)


def _pairs(case: Case) -> list[tuple[Place, Place]]:
    """Returns the places of each axis before and after."""
    before = {p.axis: p for entry in case.source.places for p in places_in(entry)}
    return [(place, after) for axis, place in before.items() if (after := case.place(axis)) is not None]


def _adapt(case: Case, values: Values) -> None:
    for dim, entry in enumerate(case.source.places):
        before, after = case.source.shape[dim], case.shape[dim]
        if not holds_positions(entry) or before == after or after == 1:
            continue
        if isinstance(case.places[dim], Lost):
            case.breaks(case.source.axes_in([dim]), f"makes {before} positions into a fixed number, {after}")
        elif isinstance(entry, Place):
            _scaled(case, entry.axis, entry, _as_place(case.places[dim]), f"pools {before // after} positions each")


def _as_place(entry: Entry) -> Place:
    assert isinstance(entry, Place)
    return entry


def _resize(case: Case, values: Values) -> None:
    for dim, entry in enumerate(case.source.places):
        before, after = case.source.shape[dim], case.shape[dim]
        if before == after or not holds_positions(entry):
            continue
        if (
            not is_whole_resize(case.op, before, after)
            or not isinstance(entry, Place)
            or isinstance(case.places[dim], Lost)
        ):
            case.breaks(
                case.source.axes_in([dim]), f"resizes {before} positions to {after}, which shifts do not pass unchanged"
            )
        elif (
            after > before or case.op.argument(3, "mode", "") == "area" or getattr(case.op.module, "mode", "") == "area"
        ):
            _scaled(case, entry.axis, entry, _as_place(case.places[dim]), "averages positions")
        else:
            _picked(case, dim, entry, (before // after) // 2 if _exact(case) else 0, before // after)


def _exact(case: Case) -> bool:
    mode = case.op.module.mode if case.op.module is not None else case.op.argument(3, "mode", "nearest")
    return bool(mode == "nearest-exact")


def _picked(case: Case, dim: int, entry: Place, start: int, step: int) -> None:
    """Judges a map of which every `step`-th cell is kept, from cell `start` on."""
    axis, size = entry.axis, case.shape[dim]
    low, high = case.state.content.get(axis, (0, entry.size - 1))
    if size * step != entry.size:
        case.breaks([axis], "cuts the map", ["circular"])
    case.moves_content(axis, math.ceil((low - start) / step), (high - start) // step)
    after = case.places[dim]
    if step > 1 and isinstance(after, Place):
        case.times(axis, abs(after.stride.numerator), f"takes every {step}th position")


def _shuffle(case: Case, values: Values) -> None:
    for before, after in _pairs(case):
        if before.size != after.size:
            _scaled(case, before.axis, before, after, "makes positions into channels")


def _transposed(case: Case, values: Values) -> None:
    module: Any = case.op.module
    source = case.source
    first = len(source.places) - len(module.kernel_size)
    case.breaks(source.axes_in(range(first)), "sums over positions")
    for number, entry in enumerate(source.places[first:]):
        stride, padding = module.stride[number], module.padding[number]
        reach = module.dilation[number] * (module.kernel_size[number] - 1)
        if not isinstance(entry, Place):
            case.breaks(source.axes_in([first + number]), "slides over positions that are not in their order")
            continue
        axis = entry.axis
        if (reach, stride, padding, case.shape[first + number]) == (0, 1, 0, entry.size):
            continue
        case.breaks([axis], "adds up less at the border", ["circular"])
        if not source.state.zero[axis]:
            case.breaks([axis], "adds up less at the border, where a blank image is not zero", ["zero_canvas"])
        low, high = case.state.content.get(axis, (0, 0))
        case.moves_content(axis, low * stride - padding, high * stride - padding + reach)


def _roll(case: Case, values: Values) -> None:
    by = rolls(case.op, len(case.source.places))
    if by is None:
        case.breaks(case.every_axis(), "rolls the whole map as one row")
        return
    for dim, cells in by.items():
        entry = case.source.places[dim]
        if isinstance(entry, Place) and cells % entry.size:
            low, high = case.state.content.get(entry.axis, (0, entry.size - 1))
            cells %= entry.size
            if low + cells >= entry.size:
                cells -= entry.size
            if low + cells < 0 or high + cells >= entry.size:
                case.breaks([entry.axis], "rolls content over the border", ["zero_canvas"])
            else:
                case.moves_content(entry.axis, low + cells, high + cells)
        elif holds_positions(entry) and not isinstance(entry, Place):
            case.breaks(case.source.axes_in([dim]), "rolls positions that are not in their order")


def _flip(case: Case, values: Values) -> None:
    for dim in flipped_axes(case.op, len(case.shape)):
        entry = case.source.places[dim]
        if isinstance(entry, Place):
            low, high = case.state.content.get(entry.axis, (0, entry.size - 1))
            case.moves_content(entry.axis, entry.size - 1 - high, entry.size - 1 - low)


def _reshape(case: Case, values: Values) -> None:
    for before, after in _pairs(case):
        if before.size != after.size:
            _scaled(case, before.axis, before, after, "makes positions into channels")


def _split(case: Case, values: Values) -> None:
    if case.op.name == "unbind":
        dim = int(case.op.argument(1, "dim", 0)) % len(case.source.places)
        case.breaks(case.source.axes_in([dim]), "takes positions one by one")
        return
    for dim, (entry, size) in enumerate(zip(case.source.places, case.shape, strict=True)):
        after = case.places[dim]
        if size == case.source.shape[dim]:
            continue
        if isinstance(entry, Place) and isinstance(after, Place):
            _picked(case, dim, entry, int((after.offset - entry.offset) / entry.stride), 1)
        else:
            case.breaks(case.source.axes_in([dim]), "cuts the map")


def _item(case: Case, values: Values) -> None:
    source = case.source
    indices = expanded_index(case.op, len(source.places))
    if indices is None:
        case.breaks(case.every_axis(), "picks positions by an index")
        return
    out = 0
    dims = iter(range(len(source.places)))
    for index in indices:
        if index is None:
            out += 1
            continue
        dim = next(dims)
        entry = source.places[dim]
        if not isinstance(index, slice):
            case.breaks(source.axes_in([dim]), "picks one position")
            continue
        start, _, step = index.indices(source.shape[dim])
        if (start, step, case.shape[out]) != (0, 1, source.shape[dim]):
            if isinstance(entry, Place) and entry.size > 1:
                _picked(case, out, entry, start, step)
            else:
                case.breaks(source.axes_in([dim]), "cuts the map")
        out += 1


def _nothing(case: Case, values: Values) -> None:
    pass


RULES: dict[str, Callable[[Case, Values], None]] = {
    "pointwise": _pointwise,
    "over_axes": _over_axes,
    "norm": _norm,
    "merge": _merge,
    "concatenate": _concatenate,
    "stack": _stack,
    "reduce": _reduce,
    "locate": _locate,
    "scan": _scan,
    "contract": _contract,
    "attention": _attention,
    "adapt": _adapt,
    "resize": _resize,
    "shuffle": _shuffle,
    "transposed": _transposed,
    "roll": _roll,
    "flip": _flip,
    "permute": _nothing,
    "reshape": _reshape,
    "expand": _nothing,
    "split": _split,
    "item": _item,
    "fit": _nothing,
}
