"""Which shifts of the image leave a network's output exactly unchanged, and the first layer that breaks each.

Two kinds of shift are followed through the graph, axis by axis. *Circular*: the image is rolled. *Zero canvas*: content
moves on an image of zeros and stays inside. For each, a map keeps a unit: shifts by multiples of that many pixels move
the map by whole cells and change nothing else. A stride multiplies the unit; padding that does not continue the map
as the shift would, or cells that are missing at the border, break it. What is said holds in evaluation mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from tinv.policies.geometry import Place, Walk
from tinv.policies.operations import Operation, function_name, written_pads
from tinv.policies.padding import Content, pad
from tinv.policies.tracing import layer_of

Shift = Literal["circular", "zero_canvas"]
SHIFTS: tuple[Shift, ...] = get_args(Shift)


@dataclass(frozen=True)
class Standing:
    """What is left of one kind of shift, on one axis.

    Attributes:
        unit: shifts by multiples of this many pixels change nothing; None where only no shift does.
        layer: the first that raised the unit above 1, or broke it.
        reason: how.
        order: of that layer in the graph.
    """

    unit: int | None = 1
    layer: str = ""
    reason: str = ""
    order: int = 0

    def __str__(self) -> str:
        because = f" ({self.layer}: {self.reason})" if self.layer else ""
        if self.unit is None:
            return f"none{because}"
        return "every shift" if self.unit == 1 else f"multiples of {self.unit} pixels{because}"

    def broken(self, layer: str, reason: str, order: int) -> Standing:
        """Returns the standing after a layer that breaks it, if nothing has before."""
        return self if self.unit is None else Standing(None, layer, reason, order)

    def times(self, unit: int, layer: str, reason: str, order: int) -> Standing:
        """Returns the standing after a layer that lets only multiples of `unit` pixels through."""
        if self.unit is None or self.unit % unit == 0:
            return self
        new = math.lcm(self.unit, unit)
        return replace(self, unit=new) if self.unit > 1 else Standing(new, layer, reason, order)

    @staticmethod
    def both(standings: Iterable[Standing]) -> Standing:
        """Returns what is left after maps have met."""
        found = sorted(standings, key=lambda standing: standing.order if standing.layer else math.inf)
        for standing in found:
            if standing.unit is None:
                return standing
        unit = math.lcm(*(standing.unit or 1 for standing in found)) if found else 1
        return replace(found[0], unit=unit) if found else Standing()


@dataclass(frozen=True)
class Verdict:
    """What a network is exactly invariant to, by kind of shift and axis of the image (first spatial one first).

    Attributes:
        circular: of rolled images.
        zero_canvas: of content that moves on an image of zeros.
        unknown: layers that the analysis does not know; they count as breaking.
    """

    circular: tuple[Standing, ...]
    zero_canvas: tuple[Standing, ...]
    unknown: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Returns the verdict in words, a line for each kind of shift, and for each axis where they differ."""
        names = {1: ["length"], 2: ["height", "width"], 3: ["time", "height", "width"]}[len(self.circular)]
        said = []
        for kind, standings in (("circular shifts", self.circular), ("shifts on a zero canvas", self.zero_canvas)):
            groups: dict[Standing, list[str]] = {}
            for name, standing in zip(names, standings, strict=True):
                groups.setdefault(standing, []).append(name)
            for standing, axes in groups.items():
                where = f" along {' and '.join(axes)}" if len(groups) > 1 else ""
                said.append(f"{kind}{where}: {standing}")
        return said

    def __str__(self) -> str:
        return "exactly invariant to\n" + "\n".join(f"  {line}" for line in self.lines())


@dataclass
class _State:
    """What is known of one node.

    Attributes:
        standing: by kind of shift and axis.
        blank_is_zero: whether a blank image answers with zeros here.
        not_negative: whether no value can be negative.
        padded: pixels that were just added and what they hold, for the layer that follows.
    """

    standing: dict[tuple[Shift, int], Standing]
    blank_is_zero: bool = False
    not_negative: bool = False
    padded: tuple[list[tuple[int, int]], Content] | None = None
    before: _State | None = field(default=None, repr=False)


def verdict(walk: Walk, network: nn.Module) -> Verdict:
    """Returns what a network is exactly invariant to.

    Args:
        walk: complete, over the network's graph in evaluation.
        network: with its weights, which say whether a blank image answers with zeros.
    """
    return _Judge(walk, network).judge()


class _Judge:
    def __init__(self, walk: Walk, network: nn.Module) -> None:
        self.walk, self.network = walk, network
        self.axes = range(walk.axes)
        self.image = walk.example.shape[2:]
        self.states: dict[fx.Node, _State] = {}
        self.unknown: list[str] = []
        self.order = 0

    @torch.no_grad()
    def judge(self) -> Verdict:
        modes = {module: module.training for module in self.network.modules()}
        self.network.eval()
        result: _State | None = None
        for order, node in enumerate(self.walk.graph.nodes, start=1):
            self.order = order
            if node.meta.get("background"):
                continue
            state = self.state(node)
            self.states[node] = state
            if node.op == "output":
                result = state
        for module, training in modes.items():
            module.training = training
        assert result is not None
        circular, canvas = (tuple(result.standing[kind, axis] for axis in self.axes) for kind in SHIFTS)
        # content that moves on a canvas and stays inside moves as the rolled image does
        better = tuple(
            ring if ring.unit and (still.unit is None or ring.unit < still.unit) else still
            for ring, still in zip(circular, canvas, strict=True)
        )
        return Verdict(circular, better, tuple(dict.fromkeys(self.unknown)))

    def state(self, node: fx.Node) -> _State:
        op = self.walk.operations[node]
        if node.op == "placeholder":
            return _State({(kind, axis): Standing() for kind in SHIFTS for axis in self.axes}, blank_is_zero=True)
        sources = [s for s in op.inputs if s in self.states]
        states = [self.settled(s) if op.kind not in _WINDOWS else self.states[s] for s in sources]
        if not states:
            # a weight, or a number
            return _State({(k, a): Standing() for k in SHIFTS for a in self.axes}, self.is_zero_weight(node))
        standing = {
            (kind, axis): Standing.both(state.standing[kind, axis] for state in states)
            for kind in SHIFTS
            for axis in self.axes
        }
        state = _State(standing, *self.values(node, op, states))
        if op.kind == "pad" and self.walk.spatial(node):
            return self.pad(node, state, self.states[sources[0]])
        if op.kind in _WINDOWS and self.walk.spatial(sources[0]):
            self.window(node, op, state, self.states[sources[0]])
        elif op.kind not in ("global", "size"):
            self.positions(node, op, sources, state)
        return state

    def settled(self, source: fx.Node) -> _State:
        """Returns the state of a map whose border, if it was just padded, is now content like any other."""
        state = self.states[source]
        if state.padded is None or state.before is None:
            return state
        amounts, content = state.padded
        standing = dict(state.standing)
        layer = layer_of(source)
        for axis, (left, right) in enumerate(amounts):
            if not left and not right:
                continue
            ring, canvas = standing["circular", axis], standing["zero_canvas", axis]
            standing["circular", axis] = ring.broken(layer, "the map is padded where branches meet", self.order)
            problem = self.border_problem(content, state.before)
            if min(left, right) < 0:
                problem = "cells at the border are cropped"
            if problem:
                standing["zero_canvas", axis] = canvas.broken(layer, problem, self.order)
        return _State(standing, state.blank_is_zero, state.not_negative)

    def pad(self, node: fx.Node, state: _State, before: _State) -> _State:
        amounts = written_pads(node, self.walk.axes)
        assert amounts is not None
        content = cast(Content, node.args[2]) if node.target is pad else "zero"
        state.padded, state.before = (amounts, content), before
        return state

    def border_problem(
        self, content: Content, before: _State, kind: str = "conv", counts: bool = True, rectified: bool = False
    ) -> str:
        """Returns why a border is not what a blank canvas would go on with; empty if it is."""
        if content == "background":
            return ""
        if content != "zero":
            return f"{content} padding repeats content at the border"
        if kind == "average" and not counts:
            return "the average leaves out the padding, so that content weighs more at the border"
        if not before.blank_is_zero:
            return (
                "pads with zeros, but a blank image answers with other values here (biases or norm shifts); "
                "full_background mends it"
            )
        if kind == "max" and not (before.not_negative or rectified):
            return "the maximum leaves out the padding, but values here may be negative"
        return ""

    def window(self, node: fx.Node, op: Operation, state: _State, before: _State) -> None:
        assert op.window is not None
        window, layer = op.window, layer_of(node)
        source = op.inputs[0]
        places = self.walk.on_axes(source)
        after = self._places_after(node)
        padded, content = before.padded or ([(0, 0)] * self.walk.axes, "zero")
        true_before = before.before or before
        first = self.walk.axes - len(window.kernel)
        for axis, place in places.items():
            if axis < first or axis not in after:
                continue
            i = axis - first
            out, stride = after[axis], window.stride[i]
            reach, added = window.reach(i), padded[axis]
            left, right = window.padding(i, place.size)
            # what the last window of ceil_mode sees beyond the map
            own = (left, max(right, (out.size - 1) * stride + reach + 1 - place.size - left))
            ring, canvas = state.standing["circular", axis], state.standing["zero_canvas", axis]
            size = place.size - sum(added)
            unit = int(out.stride) if op.kind != "polyphase" else 1
            step = f"stride {stride}"
            # circular: the windows must go round the ring in even steps
            fills = {c for c, pair in ((content, added), (window.content, own)) if any(pair)}
            if fills - {"circular"}:
                kinds = " and ".join(sorted(fills - {"circular"}))
                name = {"max": "nothing", "average": "nothing"}.get(op.kind, "zeros") if kinds == "zero" else kinds
                ring = ring.broken(layer, f"pads with {name}", self.order)
            elif size % stride:
                ring = ring.broken(layer, f"{size} cells are not a multiple of its {step}", self.order)
            elif out.size * stride != size:
                lost = "loses cells at the border" if out.size * stride < size else "repeats cells at the seam"
                ring = ring.broken(layer, lost, self.order)
            # zero canvas: all windows that touch content must be there, and see what an endless canvas would show
            problem = ""
            if any(added):
                problem = self.border_problem(content, true_before)
            if not problem and any(own):
                # a maximum and the rectifier that follows it may change places
                rectified = all(self.rectifies(user) for user in node.users)
                problem = self.border_problem(window.content, true_before, op.kind, window.counts_padding, rectified)
            if op.kind == "polyphase" and not problem and size % stride:
                problem = self.border_problem(window.content, true_before)
            if not problem and (out.high >= out.stride or out.low + out.stride * out.size <= self.image[axis] - 1):
                start, end = out.high >= out.stride, out.low + out.stride * out.size <= self.image[axis] - 1
                where = "both ends" if start and end else "the start" if start else "the end"
                problem = f"cells that see content are missing at {where} of the map"
            if problem:
                canvas = canvas.broken(layer, problem, self.order)
            if stride > 1 and op.kind != "polyphase":
                ring, canvas = (s.times(unit, layer, step, self.order) for s in (ring, canvas))
            state.standing["circular", axis], state.standing["zero_canvas", axis] = ring, canvas

    def rectifies(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return isinstance(self.real(node), (nn.ReLU, nn.ReLU6))
        return function_name(node) in ("relu", "relu6")

    def _places_after(self, node: fx.Node) -> dict[int, Place]:
        places: Any = self.walk.places[node]
        if isinstance(places, list):
            places = places[0]
        return {p.axis: p for p in places if p is not None} if places else {}

    def positions(self, node: fx.Node, op: Operation, sources: list[fx.Node], state: _State) -> None:
        """Breaks what needs positions, where a node loses them in a way that tells them apart."""
        layer = layer_of(node)
        if op.kind == "opaque" and any(map(self.walk.spatial, sources)):
            self.unknown.append(layer)
            self.break_all(state, layer, "tinv does not know this layer")
            return
        if not isinstance(self.walk.values.get(node), (Tensor, tuple, list)) or node.op == "output":
            return
        after = self.walk.places[node]
        lists = after if isinstance(after, list) else [after or ()]
        kept = {p.axis for places in lists for p in places or () if p is not None}
        for source in sources:
            for axis, place in self.walk.on_axes(source).items():
                moved = op.kind == "item" and axis in kept and self.walk.on_axes(node)[axis].size != place.size
                if (axis not in kept and place.size > 1) or moved:
                    reason = f"tells the {place.size} positions apart"
                    if op.kind == "resample":
                        reason = f"makes {place.size} positions into a fixed number"
                    for kind in SHIFTS:
                        old = state.standing[kind, axis]
                        state.standing[kind, axis] = old.broken(layer, reason, self.order)

    def break_all(self, state: _State, layer: str, reason: str) -> None:
        for key, standing in state.standing.items():
            state.standing[key] = standing.broken(layer, reason, self.order)

    # values

    def values(self, node: fx.Node, op: Operation, states: list[_State]) -> tuple[bool, bool]:
        """Returns whether a blank image answers with zeros, and whether no value can be negative."""
        zero, positive = all(s.blank_is_zero for s in states), all(s.not_negative for s in states)
        module = self.real(node)
        if op.kind == "conv":
            bias = cast(_ConvNd, module).bias
            return zero and (bias is None or not bool(bias.any())), False
        if op.kind in ("norm", "pointwise") and module is not None:
            activation = getattr(module, "act", module)
            rectified = isinstance(activation, _NOT_NEGATIVE) or (isinstance(module, _KEEPS_SIGN) and positive)
            return zero and self.keeps_zero(node, module), rectified
        name = function_name(node)
        if op.kind == "pointwise":
            rectified = name in _NOT_NEGATIVE_NAMES or (name in _KEEPS_SIGN_NAMES and positive)
            return zero and name not in _MOVES_ZERO, rectified
        if op.kind == "merge":
            numbers = [a for a in (*node.args, *node.kwargs.values()) if isinstance(a, (int, float))]
            if "mul" in name or name in ("div", "truediv", "itruediv", "true_divide", "divide"):
                first = states[:1] if "mul" not in name else states
                return any(s.blank_is_zero for s in first), positive and all(n >= 0 for n in numbers)
            return zero and not any(numbers), positive and "sub" not in name and all(n >= 0 for n in numbers)
        if op.kind == "opaque":
            return False, False
        return zero, positive

    def real(self, node: fx.Node) -> nn.Module | None:
        return self.network.get_submodule(str(node.target)) if node.op == "call_module" else None

    def keeps_zero(self, node: fx.Node, module: nn.Module) -> bool:
        """Returns whether a layer that acts on each pixel alone makes zero of zero."""
        source = self.walk.operations[node].inputs[0]
        shape, places = self.walk.values[source].shape, self.walk.places.get(source)
        known = places if isinstance(places, tuple) else (None,) * len(shape)
        weight = next((p for p in (*module.parameters(), *module.buffers()) if p.is_floating_point()), torch.zeros(1))
        sizes = [
            1 if dim == 0 or place is not None else size
            for dim, (size, place) in enumerate(zip(shape, known, strict=True))
        ]
        zeros = weight.new_zeros(sizes)
        answer: Callable[[Tensor], Tensor] = module.forward
        return not bool(answer(zeros).any())

    def is_zero_weight(self, node: fx.Node) -> bool:
        if node.op != "get_attr":
            return False
        value: Any = self.network
        for part in str(node.target).split("."):
            value = getattr(value, part)
        return isinstance(value, Tensor) and not bool(value.any())


_WINDOWS = ("conv", "max", "average", "blur", "polyphase")
_NOT_NEGATIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.Softplus)
_KEEPS_SIGN = (nn.Identity, nn.modules.dropout._DropoutNd)
_NOT_NEGATIVE_NAMES = {"relu", "relu6", "sigmoid", "hardsigmoid", "abs", "square", "exp", "softplus", "softmax"}
_KEEPS_SIGN_NAMES = {
    *("clone", "contiguous", "to", "float", "half", "double", "bfloat16", "detach", "dropout", "drop_path"),
    *("stochastic_depth", "sqrt", "leaky_relu", "elu", "silu", "gelu", "hardswish", "tanh", "hardtanh", "at_least"),
}
_MOVES_ZERO = {
    *("sigmoid", "hardsigmoid", "softplus", "exp", "log", "softmax", "log_softmax", "logsigmoid", "threshold"),
    *("rsqrt", "clamp", "clamp_min", "clamp_max", "clip", "linear", "layer_norm"),
}
