"""Where the cells of a node's output sit over the image, given where those of its inputs do: one rule a kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, fx, nn

from tinv.graph.contractions import attended, contracted
from tinv.graph.operations import Operation, reduced_axes
from tinv.graph.places import (
    Entry,
    Folded,
    Lost,
    Place,
    Places,
    Uniform,
    holds_positions,
    reshaped,
)
from tinv.graph.tracing import layer_of


@dataclass(frozen=True)
class Source:
    """A tensor that a node reads.

    Attributes:
        node: that gives it.
        places: one entry an axis.
        shape: of the tensor.
    """

    node: fx.Node
    places: Places
    shape: Sequence[int]


@dataclass(frozen=True)
class Step:
    """What a rule needs to know.

    Attributes:
        node: of the graph.
        op: what it does.
        sources: the tensors it reads, in the order of its arguments.
        shape: of its output.
        number: of the output among several.
    """

    node: fx.Node
    op: Operation
    sources: list[Source]
    shape: Sequence[int]
    number: int = 0

    @property
    def first(self) -> Source:
        """The tensor it reads first that has positions, or the first."""
        return next((s for s in self.sources if any(map(holds_positions, s.places))), self.sources[0])

    @property
    def nowhere(self) -> Places:
        """No positions on any axis."""
        return (None,) * len(self.shape)


def places_after(step: Step) -> Places:
    """Returns the places of a node's output, one entry for each of its axes."""
    places = _RULES.get(step.op.kind, _unknown)(step)
    if len(places) != len(step.shape):
        places = _unknown(step)
    # an axis whose size is not what the rule says was treated in a way we do not know
    return tuple(Lost() if isinstance(p, Place) and p.size != s else p for p, s in zip(places, step.shape, strict=True))


def _unknown(step: Step) -> Places:
    same = [s for s in step.sources if any(map(holds_positions, s.places))]
    if len(same) == 1 and tuple(same[0].shape) == tuple(step.shape):
        return same[0].places
    return tuple(Lost() if dim > 1 else None for dim in range(len(step.shape)))


def _window(step: Step) -> Places:
    window, places, rank = step.op.window, step.first.places, len(step.shape)
    if window is None or len(places) != rank:
        return _patches_of_tensor(step) if step.op.kind == "patches" else _unknown(step)
    first = rank - len(window.kernel)
    out: list[Entry] = list(places[:first])
    if step.op.kind == "conv" and first:
        # summed over
        out[-1] = None
    for axis, entry in enumerate(places[first:]):
        if isinstance(entry, Place):
            entry = _through(step, entry, axis, step.shape[first + axis])
        elif isinstance(entry, Uniform):
            entry = entry if not any(window.padding(axis, step.first.shape[first + axis])) else None
        elif entry is not None and not window.is_trivial(axis):
            entry = Lost()
        out.append(entry)
    return tuple(out)


def _through(step: Step, place: Place, axis: int, size: int) -> Place:
    window = step.op.window
    assert window is not None
    left, _ = window.padding(axis, place.size)
    stride = window.stride[axis]
    moved = place.through(window.reach(axis), left, stride, size)
    if step.op.kind == "polyphase" and stride > 1:
        # any of the first `stride` cells may be the first one: what is seen is what any of them may see
        name = getattr(step.op.module, "level", "") or layer_of(step.node)
        moved = replace(moved, high=moved.high + place.stride * (stride - 1), choices=(*place.choices, name))
    return moved


def _patches(step: Step) -> Places:
    window, source = step.op.window, step.first
    if window is None:
        return _patches_of_tensor(step)
    parts: list[Place | int] = []
    for axis, entry in enumerate(source.places[2:]):
        cells = window.cells(axis, source.shape[2 + axis])
        if isinstance(entry, (Folded, Lost)):
            return (*step.nowhere[:-1], Lost())
        parts.append(_through(step, entry, axis, cells) if isinstance(entry, Place) else cells)
    if not any(isinstance(part, Place) for part in parts):
        return step.nowhere
    return (*step.nowhere[:-1], Folded(tuple(parts)))


def _patches_of_tensor(step: Step) -> Places:
    places = step.first.places
    dim, size, by = (step.op.argument(i, key) for i, key in enumerate(("dimension", "size", "step"), start=1))
    entry = places[dim]
    dim %= len(places)
    if isinstance(entry, Place):
        entry = entry.through(size - 1, 0, by, step.shape[dim])
    elif entry is not None:
        entry = Lost()
    return (*places[:dim], entry, *places[dim + 1 :], None)


def _pad(step: Step) -> Places:
    pads, places = step.op.pads, step.first.places
    assert pads is not None
    out: list[Entry] = []
    for dim, entry in enumerate(places):
        left, right = pads.of(dim, len(places))
        if isinstance(entry, Place):
            entry = entry.moved(-left, step.shape[dim])
        elif (left or right) and entry is not None:
            entry = None if isinstance(entry, Uniform) else Lost()
        out.append(entry)
    return tuple(out)


def _fit(step: Step) -> Places:
    sizes = zip(step.first.places, step.shape, strict=True)
    return tuple(replace(p, size=s) if isinstance(p, Place) else p for p, s in sizes)


def _pointwise(step: Step) -> Places:
    places = step.first.places
    if isinstance(step.op.module, nn.Linear) or step.op.name == "linear":
        # mixes the last axis
        places = (*places[:-1], None)
    if len(places) != len(step.shape):
        return step.nowhere
    changed = zip(places, step.first.shape, step.shape, strict=True)
    return tuple(Lost() if holds_positions(p) and s != t else p for p, s, t in changed)


def together(first: Entry, second: Entry) -> Entry:
    """Returns where cells sit that are computed from two maps, index by index."""
    if not holds_positions(first) or not holds_positions(second):
        known = first if holds_positions(first) else second if holds_positions(second) else None
        return Uniform() if known is None and first == second == Uniform() else known
    if isinstance(first, Place) and isinstance(second, Place):
        if (first.axis, first.stride) != (second.axis, second.stride):
            return Lost()
        choices = tuple(dict.fromkeys((*first.choices, *second.choices)))
        return replace(first, low=min(first.low, second.low), high=max(first.high, second.high), choices=choices)
    if isinstance(first, Folded) and isinstance(second, Folded) and len(first.parts) == len(second.parts):
        parts: list[Place | int] = []
        for part, other in zip(first.parts, second.parts, strict=True):
            if isinstance(part, int) or isinstance(other, int):
                met: Any = part if part == other else None
            else:
                met = together(part, other)
            if not isinstance(met, (Place, int)):
                return Lost()
            parts.append(met)
        return Folded(tuple(parts))
    return Lost()


def _merge(step: Step) -> Places:
    out: list[Entry] = list(step.nowhere)
    seen = [False] * len(out)
    for source in step.sources:
        for dim, entry in enumerate(source.places, start=len(out) - len(source.places)):
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


def _concatenate(step: Step) -> Places:
    rank = len(step.shape)
    dim = int(step.op.argument(1, "dim", step.op.kwargs.get("axis", 0))) % rank
    merged = list(_merge(step))
    along = [source.places[dim] for source in step.sources if len(source.places) == rank]
    merged[dim] = Lost() if any(map(holds_positions, along)) else None
    return tuple(merged)


def _stack(step: Step) -> Places:
    dim = int(step.op.argument(1, "dim", 0)) % len(step.shape)
    shape = [size for axis, size in enumerate(step.shape) if axis != dim]
    merged = _merge(replace(step, shape=shape))
    return (*merged[:dim], None, *merged[dim:])


def _reduce(step: Step) -> Places:
    source = step.first if step.op.name not in ("cosine_similarity", "pairwise_distance") else None
    places = step.first.places if source else _merge(replace(step, shape=_broadcast(step.sources)))
    gone = set(reduced_axes(step.op, len(places)))
    if len(step.shape) == len(places):
        return tuple(None if dim in gone else entry for dim, entry in enumerate(places))
    return tuple(entry for dim, entry in enumerate(places) if dim not in gone)


def _broadcast(sources: Sequence[Source]) -> Sequence[int]:
    sizes = zip_longest(*(reversed(tuple(s.shape)) for s in sources), fillvalue=1)
    return tuple(max(together) for together in sizes)[::-1]


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


def _contract(step: Step) -> Places:
    found = contracted(step.op, [(s.places, s.shape) for s in step.sources])
    return _unknown(step) if found is None else found.places


def _attention(step: Step) -> Places:
    found = attended(step.op, [(s.places, s.shape) for s in step.sources], step.number)
    return _unknown(step) if found is None else found.places


_RULES: dict[str, Callable[[Step], Places]] = {
    **dict.fromkeys(("conv", "max", "average", "blur", "polyphase"), _window),
    **dict.fromkeys(("pointwise", "over_axes", "norm", "scan"), _pointwise),
    **dict.fromkeys(("reduce", "locate"), _reduce),
    "patches": _patches,
    "transposed": _transposed,
    "merge": _merge,
    "concatenate": _concatenate,
    "stack": _stack,
    "pad": _pad,
    "fit": _fit,
    "adapt": _adapt,
    "resize": _resize,
    "shuffle": _shuffle,
    "roll": _roll,
    "flip": _flip,
    "permute": _permute,
    "reshape": _reshape,
    "expand": _expand,
    "split": _split,
    "item": _item,
    "contract": _contract,
    "attention": _attention,
}
