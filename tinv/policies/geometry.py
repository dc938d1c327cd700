"""Where each activation of a network sits over the image: offset, stride, size and receptive field, axis by axis.

Cell i of an axis looks at pixel `offset + stride * i` and sees the pixels `low + stride * i` to `high + stride * i`. A
window of kernel k, dilation d, left padding p and stride s maps

    offset -> offset + stride * (d (k-1) / 2 - p)
    low -> low - stride * p
    high -> high + stride * (d (k-1) - p)
    stride -> stride * s

Everything is found by running the network's graph on tensors that have a shape but no values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from tinv.errors import LayerError, TinvError
from tinv.policies.operations import Operation, argument, function_name, operation, written_pads
from tinv.policies.tracing import is_in_place, layer_of


@dataclass(frozen=True)
class Place:
    """Where the cells of one axis of a map sit over the image, in pixels of the image.

    Attributes:
        axis: of the image, 0 for the first spatial one.
        offset: pixel that cell 0 looks at; cell i looks at offset + stride * i.
        stride: from one cell to the next.
        size: cells.
        low: first pixel that cell 0 sees.
        high: last pixel that cell 0 sees.
        choices: names of the adaptive layers that chose among the possible offsets, which the above takes as 0.
    """

    axis: int
    offset: Fraction
    stride: Fraction
    size: int
    low: Fraction
    high: Fraction
    choices: tuple[str, ...] = ()

    @property
    def receptive_field(self) -> Fraction:
        """Pixels that one cell sees."""
        return self.high - self.low + 1

    def cells_at_border(self, image_size: int) -> int:
        """Returns how many cells see beyond the border of an image of that many pixels."""
        before = min(self.size, max(0, math.ceil(-self.low / self.stride)))
        inside = math.floor((image_size - 1 - self.high) / self.stride) + 1
        return self.size - max(0, min(self.size, inside) - before)

    def through(self, reach: int, left: int, stride: int, size: int) -> Place:
        """Returns the place after a window of `reach` + 1 pixels with `left` pixels of padding, all in cells."""
        return replace(
            self,
            offset=self.offset + self.stride * (Fraction(reach, 2) - left),
            stride=self.stride * stride,
            size=size,
            low=self.low - self.stride * left,
            high=self.high + self.stride * (reach - left),
        )


Places = tuple[Place | None, ...]
"""One entry for each axis of a tensor, None for those that are not positions: batch, channels, pooled axes."""


@dataclass(frozen=True)
class Cost:
    """What a node costs for the whole batch.

    Attributes:
        flops: floating-point operations, two for each multiply-add.
        bytes: of its output, 0 where it overwrites or views another.
    """

    flops: int = 0
    bytes: int = 0


class Walk:
    """Runs a graph node by node on shapes alone and keeps what is known of every node.

    Args:
        graph: of the network.
        network: on the meta device.
        example: images (N, C, *spatial) on the meta device.
        count: whether to count costs.
    """

    def __init__(self, graph: fx.Graph, network: nn.Module, example: Tensor, count: bool = False) -> None:
        self.graph, self.network, self.example = graph, network, example
        self.axes = example.dim() - 2
        self.values: dict[fx.Node, Any] = {}
        self.places: dict[fx.Node, Any] = {}
        self.costs: dict[fx.Node, Cost] = {}
        self.operations: dict[fx.Node, Operation] = {}
        self.counter = FlopCounterMode(display=False) if count else None

    def run(self) -> Walk:
        """Runs all nodes; returns itself."""
        with self.counter or nullcontext():
            for node in self.graph.nodes:
                self.step(node)
        return self

    @property
    def cost(self) -> Cost:
        """Of all nodes that have been run."""
        costs = self.costs.values()
        return Cost(sum(cost.flops for cost in costs), sum(cost.bytes for cost in costs))

    @torch.no_grad()
    def step(self, node: fx.Node) -> None:
        """Runs one node, whose inputs have been run.

        Raises:
            LayerError: naming the layer, if it cannot run on the map it gets.
        """
        before = self.counter.get_total_flops() if self.counter else 0
        try:
            value = self.evaluate(node)
        except TinvError as error:
            raise LayerError(f"layer {layer_of(node)}: {error}") from error
        except Exception as error:
            raise LayerError(f"layer {layer_of(node)}: {self._explain(node, error)}") from error
        self.values[node] = value
        self.operations[node] = operation(node, self.network, self.axes)
        self.places[node] = self._place(node, self.operations[node])
        if self.counter:
            new = isinstance(value, Tensor) and self.operations[node].kind not in _VIEWS
            size = value.numel() * value.element_size() if new and not is_in_place(node, self.network) else 0
            self.costs[node] = Cost(self.counter.get_total_flops() - before, size)

    def spatial(self, node: Any) -> bool:
        """Returns whether a node is a map that still has positions."""
        places = self.places.get(node) if isinstance(node, fx.Node) else None
        return isinstance(places, tuple) and any(place is not None for place in places)

    def places_of(self, node: fx.Node) -> Places:
        """Returns the places of a map, one entry for each of its axes."""
        places: Places = self.places[node]
        return places

    def on_axes(self, node: fx.Node) -> dict[int, Place]:
        """Returns the places of a map by axis of the image."""
        places = self.places.get(node)
        return {p.axis: p for p in places if p is not None} if isinstance(places, tuple) else {}

    def is_map(self, node: fx.Node) -> bool:
        """Returns whether a node's spatial axes are its last ones, in order: (N, C, *spatial)."""
        places = self.places.get(node)
        if not isinstance(places, tuple) or len(places) != self.axes + 2 or places[:2] != (None, None):
            return False
        return all(place is not None and place.axis == axis for axis, place in enumerate(places[2:]))

    def evaluate(self, node: fx.Node) -> Any:
        """Returns the value of a node, whose inputs have been run."""
        if node.op == "placeholder":
            return self.example
        if node.op == "get_attr":
            value: Any = self.network
            for part in str(node.target).split("."):
                value = getattr(value, part)
            return value
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: self.values[n])
        if node.op == "output":
            return args[0]
        if node.op == "call_module":
            return self.network.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def _place(self, node: fx.Node, op: Operation) -> Any:
        value = self.values[node]
        if node.op == "placeholder":
            zero, one = Fraction(0), Fraction(1)
            return (None, None, *(Place(a, zero, one, size, zero, zero) for a, size in enumerate(value.shape[2:])))
        if isinstance(value, (tuple, list)):
            return self._split(node, value) if op.kind in ("split", "polyphase") else None
        if op.kind == "item" and isinstance(self.places.get(op.inputs[0]), list):
            return self.places[op.inputs[0]][node.args[1]]
        maps = [source for source in op.inputs if self.spatial(source)]
        if not isinstance(value, Tensor) or not maps or op.kind == "size":
            return None
        places = _RULES.get(op.kind, _opaque)(self, node, op, maps)
        # an axis whose size is not what the rule says was treated in a way we do not know
        return tuple(None if p is not None and p.size != s else p for p, s in zip(places, value.shape, strict=True))

    def _split(self, node: fx.Node, parts: Sequence[Any]) -> list[Any]:
        source = self.operations[node].inputs[0]
        if self.operations[node].kind == "polyphase":
            return [_window(self, node, self.operations[node], [source]), None]
        places = self.places.get(source)
        if not isinstance(places, tuple):
            return [None] * len(parts)
        shape = self.values[source].shape
        return [
            tuple(p if s == t else None for p, s, t in zip(places, shape, part.shape, strict=True))
            if part.dim() == len(shape)
            else (None,) * part.dim()
            for part in parts
        ]

    def _explain(self, node: fx.Node, error: Exception) -> str:
        """Returns what is wrong in one sentence."""
        module = self.network.get_submodule(str(node.target)) if node.op == "call_module" else None
        given = self.values.get(node.all_input_nodes[0]) if node.all_input_nodes else None
        if isinstance(module, _ConvNd) and isinstance(given, Tensor) and given.shape[1] != module.in_channels:
            return f"takes {module.in_channels} channels, its input has {given.shape[1]}"
        return _first_sentence(error)


_VIEWS = ("reshape", "permute", "split", "item", "size")


def _first_sentence(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    return text or type(error).__name__


def _none(value: Tensor) -> Places:
    return (None,) * value.dim()


def _window(walk: Walk, node: fx.Node, op: Operation, maps: list[fx.Node]) -> Places:
    source, window = maps[0], op.window
    assert window is not None
    places, value = walk.places_of(source), walk.values[node]
    value = value[0] if isinstance(value, (tuple, list)) else value
    first = len(places) - len(window.kernel)
    out: list[Place | None] = [None] * value.dim()
    for axis in range(len(window.kernel)):
        place = places[first + axis]
        if place is None:
            continue
        left, _ = window.padding(axis, place.size)
        stride, size = window.stride[axis], value.shape[first + axis]
        moved = place.through(window.reach(axis), left, stride, size)
        if op.kind == "polyphase" and stride > 1:
            # any of the first `stride` cells may be the first one: what is seen is what any of them may see
            name = getattr(op.module, "level", "") or layer_of(node)
            moved = replace(moved, high=moved.high + place.stride * (stride - 1), choices=(*place.choices, name))
        out[first + axis] = moved
    return tuple(out)


def _same(walk: Walk, node: fx.Node, op: Operation, maps: list[fx.Node]) -> Places:
    places: Places = walk.places_of(maps[0])
    if isinstance(op.module, nn.Linear) or function_name(node) == "linear":
        # mixes the last axis; harmless when that one holds the channels
        places = (*places[:-1], None)
    value = walk.values[node]
    return places if len(places) == value.dim() else _none(value)


def _opaque(walk: Walk, node: fx.Node, op: Operation, maps: list[fx.Node]) -> Places:
    value, source = walk.values[node], maps[0]
    if len(maps) == 1 and value.shape == walk.values[source].shape:
        places: Places = walk.places_of(source)
        return places
    return _none(value)


def _merge(walk: Walk, node: fx.Node, op: Operation, maps: list[fx.Node]) -> Places:
    value = walk.values[node]
    out: list[Place | None] = [None] * value.dim()
    for source in maps:
        places = walk.places_of(source)
        for dim, place in enumerate(places, start=value.dim() - len(places)):
            other = out[dim]
            if place is not None and other is not None:
                out[dim] = replace(other, low=min(other.low, place.low), high=max(other.high, place.high))
            elif place is not None:
                out[dim] = place
    return tuple(out)


def _pad(walk: Walk, node: fx.Node, op: Operation, maps: list[fx.Node]) -> Places:
    amounts = written_pads(node, walk.axes)
    assert amounts is not None
    value, places = walk.values[node], walk.places_of(maps[0])
    out: list[Place | None] = []
    for dim, place in enumerate(places):
        if place is None:
            out.append(None)
            continue
        out.append(_moved(place, -amounts[dim - 2][0], value.shape[dim]))
    return tuple(out)


def _moved(place: Place, cells: int, size: int, step: int = 1) -> Place:
    """Returns the place of a map that begins `cells` further on."""
    by = place.stride * cells
    return replace(
        place,
        offset=place.offset + by,
        low=place.low + by,
        high=place.high + by,
        size=size,
        stride=place.stride * step,
    )


def _fit(walk: Walk, node: fx.Node, op: Operation, maps: list[fx.Node]) -> Places:
    places: Places = walk.places_of(maps[0])
    return tuple(
        None if p is None else replace(p, size=s) for p, s in zip(places, walk.values[node].shape, strict=True)
    )


def _global(walk: Walk, node: fx.Node, op: Operation, maps: list[fx.Node]) -> Places:
    value, places = walk.values[node], walk.places_of(maps[0])
    if node.op == "call_module" or function_name(node).startswith("adaptive"):
        return _none(value)
    dims: Any = argument(node, 1, "dim", None)
    if function_name(node) in ("norm", "vector_norm"):
        dims = argument(node, 2, "dim", None)
    if dims is None or isinstance(dims, fx.Node):
        return _none(value)
    rank = len(places)
    reduced = {d % rank for d in ([dims] if isinstance(dims, int) else dims)}
    if value.dim() == rank:
        return tuple(None if dim in reduced else place for dim, place in enumerate(places))
    return tuple(place for dim, place in enumerate(places) if dim not in reduced)


def _nowhere(walk: Walk, node: fx.Node, op: Operation, maps: list[fx.Node]) -> Places:
    return _none(walk.values[node])


def _permute(walk: Walk, node: fx.Node, op: Operation, maps: list[fx.Node]) -> Places:
    value, places = walk.values[node], list(walk.places_of(maps[0]))
    rank = len(places)
    args: list[Any] = [*node.args[1:], *node.kwargs.values()]
    if function_name(node) == "permute":
        order = args[0] if len(args) == 1 else args
        return tuple(places[d % rank] for d in order)
    if function_name(node) in ("transpose", "swapaxes", "swapdims"):
        a, b = args[0] % rank, args[1] % rank
        places[a], places[b] = places[b], places[a]
        return tuple(places)
    # movedim: run it on numbers that name the axes
    numbered = torch.movedim(torch.empty(*range(2, rank + 2), device="meta"), args[0], args[1])
    return tuple(places[size - 2] for size in numbered.shape) if value.dim() == rank else _none(value)


def _reshape(walk: Walk, node: fx.Node, op: Operation, maps: list[fx.Node]) -> Places:
    places, old, new = walk.places_of(maps[0]), walk.values[maps[0]].shape, walk.values[node].shape
    out: list[Place | None] = [None] * len(new)
    i = j = 0
    # axes fall into groups of equal products; one that is alone in its group on both sides stays what it is
    while i < len(old) and j < len(new):
        first, second, left, right = i + 1, j + 1, old[i], new[j]
        while left != right:
            if left < right and first < len(old):
                left, first = left * old[first], first + 1
            elif second < len(new):
                right, second = right * new[second], second + 1
            else:
                return tuple(out)
        if first == i + 1 and second == j + 1:
            out[j] = places[i]
        i, j = first, second
    return tuple(out)


def _item(walk: Walk, node: fx.Node, op: Operation, maps: list[fx.Node]) -> Places:
    value, index = walk.values[node], node.args[1]
    source: Any = walk.places_of(maps[0]) if maps else None
    index = fx.node.map_arg(index, lambda n: walk.values[n])
    indices: list[Any] = list(index) if isinstance(index, tuple) else [index]
    if any(isinstance(i, Tensor) for i in indices):
        return _none(value)
    rank = len(source) - sum(i is not None and i is not Ellipsis for i in indices)
    expanded: list[Any] = []
    for i in indices:
        expanded += [slice(None)] * rank if i is Ellipsis else [i]
    expanded += [slice(None)] * (len(source) - sum(i is not None for i in expanded))
    out: list[Place | None] = []
    dims = iter(zip(source, walk.values[maps[0]].shape, strict=True))
    for i in expanded:
        if i is None:
            out.append(None)
            continue
        place, size = next(dims)
        if isinstance(i, slice):
            start, _, step = i.indices(size)
            moved = None if place is None else _moved(place, start, value.shape[len(out)], step)
            out.append(moved)
    return tuple(out)


_RULES: dict[str, Callable[[Walk, fx.Node, Operation, list[fx.Node]], Places]] = {
    **dict.fromkeys(("conv", "max", "average", "blur", "polyphase"), _window),
    **dict.fromkeys(("pointwise", "norm"), _same),
    **dict.fromkeys(("merge", "concatenate"), _merge),
    "pad": _pad,
    "fit": _fit,
    "global": _global,
    "resample": _nowhere,
    "permute": _permute,
    "reshape": _reshape,
    "item": _item,
    "opaque": _opaque,
}
