"""Where the cells of a node's output sit over the image, given where those of its inputs do: one rule a kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from torch import nn

from tinv.graph.contractions import attended, contracted
from tinv.graph.operations import reduced_axes
from tinv.graph.places import (
    Entry,
    Folded,
    Lost,
    Place,
    Places,
    Uniform,
    holds_positions,
)
from tinv.graph.rearrangements import REARRANGEMENTS
from tinv.graph.step import Source, Step, unknown
from tinv.graph.tracing import layer_of


def places_after(step: Step) -> Places:
    """Returns the places of a node's output, one entry for each of its axes."""
    places = _RULES.get(step.op.kind, unknown)(step)
    if len(places) != len(step.shape):
        places = unknown(step)
    # an axis whose size is not what the rule says was treated in a way we do not know
    return tuple(Lost() if isinstance(p, Place) and p.size != s else p for p, s in zip(places, step.shape, strict=True))


def _window(step: Step) -> Places:
    window, places, rank = step.op.window, step.first.places, len(step.shape)
    if window is None or len(places) != rank:
        return _patches_of_tensor(step) if step.op.kind == "patches" else unknown(step)
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
        name = getattr(step.op.module, "group", "") or layer_of(step.node)
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


def _contract(step: Step) -> Places:
    found = contracted(step.op, [(s.places, s.shape) for s in step.sources])
    return unknown(step) if found is None else found.places


def _attention(step: Step) -> Places:
    found = attended(step.op, [(s.places, s.shape) for s in step.sources], step.number)
    return unknown(step) if found is None else found.places


_RULES: dict[str, Callable[[Step], Places]] = {
    **REARRANGEMENTS,
    **dict.fromkeys(("conv", "max", "average", "blur", "polyphase", "subsample"), _window),
    **dict.fromkeys(("pointwise", "over_axes", "norm", "scan"), _pointwise),
    **dict.fromkeys(("reduce", "locate"), _reduce),
    "patches": _patches,
    "merge": _merge,
    "concatenate": _concatenate,
    "stack": _stack,
    "pad": _pad,
    "fit": _fit,
    "contract": _contract,
    "attention": _attention,
}
