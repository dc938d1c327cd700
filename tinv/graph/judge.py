"""Follows two kinds of shift through a network's graph and says which of them leave the output exactly unchanged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from tinv.graph.border import is_rectifier, judge_padding, judge_window
from tinv.graph.geometry import Walk
from tinv.graph.operations import WINDOWS, Operation, item_number
from tinv.graph.places import Lost, Place, Places, holds_positions, places_in
from tinv.graph.positions import RULES
from tinv.graph.signs import not_negative, uniform_axes, zero_axes
from tinv.graph.state import Case, Reading, State
from tinv.graph.tracing import layer_of
from tinv.graph.values import Values
from tinv.graph.verdict import SHIFTS, Standing, Verdict


def verdict(walk: Walk, network: nn.Module) -> Verdict:
    """Returns which shifts a network's output follows exactly.

    Args:
        walk: complete, over the network's graph in evaluation.
        network: with its weights, which say what a blank image gives.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            return _Judge(walk, network).judge()
    finally:
        for module, training in modes.items():
            module.training = training


_TAKES_TOGETHER = ("reduce", "locate", "adapt", "contract", "attention")
"""Kinds after which positions may be gone; each is judged by its own rule."""


class _Judge:
    def __init__(self, walk: Walk, network: nn.Module) -> None:
        self.walk, self.network = walk, network
        self.axes = range(walk.axes)
        self.values = Values(walk, network)
        # one state for each tensor that a node gives
        self.states: dict[fx.Node, State | list[State | None]] = {}
        self.unknown: list[str] = []
        self.order = 0

    def judge(self) -> Verdict:
        result: fx.Node | None = None
        for order, node in enumerate(self.walk.graph.nodes, start=1):
            self.order = order
            if node.meta.get("background"):
                continue
            if node.op == "output":
                result = node
            else:
                self.step(node)
        assert result is not None
        readings = self.readings(result)
        standing = [tuple(self.output_standing(readings, kind, axis) for axis in self.axes) for kind in SHIFTS]
        circular, canvas = standing
        # content that moves on a canvas and stays inside moves as the rolled image does
        better = tuple(
            ring if ring.unit and (still.unit is None or ring.unit < still.unit) else still
            for ring, still in zip(circular, canvas, strict=True)
        )
        return Verdict(circular, better, tuple(dict.fromkeys(self.unknown)), self.output_strides(readings))

    def output_standing(self, readings: list[Reading], kind: Any, axis: int) -> Standing:
        """Returns what is left of a kind of shift in all outputs; where one has positions, adaptive choices count."""
        standings = []
        for reading in readings:
            standing = reading.state.standing[kind, axis]
            step = reading.state.steps.get(axis, 1)
            if step > 1 and any(p.axis == axis for entry in reading.places for p in places_in(entry)):
                reason = "adaptive layers keep one of several positions"
                standing = standing.times(step, "the output", reason, self.order)
            standings.append(standing)
        return Standing.both(standings) if standings else Standing()

    def output_strides(self, readings: list[Reading]) -> tuple[Any, ...]:
        found: dict[int, Any] = {}
        for reading in readings:
            for place in (p for entry in reading.places for p in places_in(entry) if p.size > 1):
                found.setdefault(place.axis, place.stride)
        return tuple(found.get(axis) for axis in self.axes)

    def step(self, node: fx.Node) -> None:
        """Notes the state of what a node gives."""
        op, value = self.walk.operations[node], self.walk.values[node]
        if node.op == "placeholder":
            state = State.fresh(self.axes, True)
            state.content = {axis: (0, size - 1) for axis, size in enumerate(value.shape[2:])}
            self.states[node] = state
        elif op.kind == "size" or not isinstance(value, (Tensor, tuple, list)) or isinstance(value, torch.Size):
            return
        elif self.values.is_constant(node):
            self.states[node] = self.constant_state(node, value)
        elif op.kind == "item" and isinstance(self.walk.values[op.inputs[0]], (tuple, list)):
            self.states[node] = self.picked(op)
        elif isinstance(value, Tensor):
            self.states[node] = self.state(node, op, self.walk.places[node], tuple(value.shape), 0)
        else:
            places = self.walk.places[node] or [None] * len(value)
            self.states[node] = [
                self.state(node, op, p, tuple(v.shape), i) if isinstance(v, Tensor) else self.lost(node)
                for i, (v, p) in enumerate(zip(value, places, strict=True))
            ]

    def constant_state(self, node: fx.Node, value: Any) -> State | list[State | None]:
        known = self.values.constant(node) if isinstance(value, Tensor) else None
        if known is None:
            return State.fresh(self.axes, False)
        return State.fresh(self.axes, not bool(known.any()), not known.is_complex() and bool((known >= 0).all()))

    def picked(self, op: Operation) -> State | list[State | None]:
        """Returns the state of one of several tensors, or of some of them."""
        source = self.states.get(op.inputs[0])
        if isinstance(op.args[1], slice) and isinstance(source, list):
            return source[op.args[1]]
        index = item_number(op)
        found = source[index] if isinstance(source, list) and isinstance(index, int) else None
        if found is not None:
            return found
        return self.lost(op.inputs[0])

    def lost(self, node: fx.Node) -> State:
        """Returns the state of something whose parts are not known."""
        state = State.fresh(self.axes, False)
        layer = layer_of(node)
        for key, standing in state.standing.items():
            state.standing[key] = standing.broken(layer, "tinv does not know this layer", self.order)
        self.unknown.append(layer)
        return state

    def readings(self, node: fx.Node, raw: bool = False) -> list[Reading]:
        """Returns the tensors that a node reads; padding around them is content unless `raw`."""
        found = []
        for source in self.walk.operations[node].reads:
            state, places = self.states.get(source), self.walk.places.get(source)
            value: Any = self.walk.values.get(source)
            states = state if isinstance(state, list) else [state]
            values = value if isinstance(state, list) else [value]
            known = places if isinstance(places, list) else [places] * len(values)
            for one, tensor, where in zip(states, values, known, strict=True):
                if one is None or not isinstance(tensor, Tensor):
                    continue
                if one.pads is not None and not raw:
                    one = self.settled(source, one)
                at: Places = where if isinstance(where, tuple) else (None,) * tensor.dim()
                found.append(Reading(source, one, at, tuple(tensor.shape), self.values.is_constant(source)))
        return found

    def case(self, node: fx.Node, op: Operation, places: Any, shape: tuple[int, ...], number: int) -> Case:
        readings = self.readings(node, raw=op.kind in WINDOWS)
        if op.kind == "polyphase":
            # the choice that a layer follows is no map
            readings = [reading for reading in readings if reading.is_map]
        moving = [r.state for r in readings if not r.constant] or [r.state for r in readings]
        joined = State.joined(moving) if moving else State.fresh(self.axes, False)
        at: Places = places if isinstance(places, tuple) else (None,) * len(shape)
        return Case(node, op, readings, at, shape, number, layer_of(node), self.order, joined)

    def state(self, node: fx.Node, op: Operation, places: Any, shape: tuple[int, ...], number: int) -> State:
        """Returns the state of one tensor that a node gives."""
        case = self.case(node, op, places, shape, number)
        state = case.state
        if not case.readings:
            return state
        if op.kind == "pad":
            # the layer that follows judges it
            state.pads, state.before = op.pads, case.source.state
            state.zero = zero_axes(case, self.values)
            state.not_negative = state.not_negative and op.pads is not None and op.pads.content != "constant"
            return state
        if op.kind == "polyphase" and number == 1:
            return state
        if op.kind in WINDOWS:
            judge_window(case, lambda: all(self.rectifies(user) for user in node.users))
            if op.kind == "subsample":
                missing = [kind for kind in SHIFTS if kind not in getattr(op.module, "exact", ())]
                case.breaks(case.every_axis(), f"{op.name} does not say that it follows such shifts", missing)
            if number == 1 and op.kind == "max":
                case.breaks(case.every_axis(), "says where the maximum is")
        elif op.kind == "opaque" or op.kind not in RULES:
            if case.maps:
                self.unknown.append(case.layer)
            case.breaks(self.axes, "tinv does not know this layer")
        else:
            RULES[op.kind](case, self.values)
        self.check_positions(case)
        state.uniform = uniform_axes(case)
        state.zero, state.not_negative = zero_axes(case, self.values), not_negative(case)
        kept = {p.axis for entry in case.places for p in places_in(entry)}
        state.content = {axis: range_ for axis, range_ in state.content.items() if axis in kept}
        return state

    def check_positions(self, case: Case) -> None:
        """Breaks the axes whose positions are gone without a reason, or end in an order that is not known."""
        after = {p.axis for entry in case.places for p in places_in(entry)}
        if case.op.kind not in _TAKES_TOGETHER:
            case.breaks(case.every_axis() - after, f"tells positions apart ({case.op.name})")
        lost_before = any(isinstance(e, Lost) for r in case.readings for e in r.places)
        if any(isinstance(entry, Lost) for entry in case.places) and not lost_before:
            case.breaks(case.every_axis(), f"leaves the positions in an order that is not known ({case.op.name})")

    def settled(self, node: fx.Node, state: State) -> State:
        """Returns the state of a map whose border, which was just added, is content like any other."""
        assert state.before is not None
        assert state.pads is not None
        places, value = self.walk.places[node], self.walk.values[node]
        copy = replace(state, standing=dict(state.standing), content=dict(state.before.content))
        source = self.walk.operations[node].inputs[0]
        before = self.walk.places[source]
        at: Places = before if isinstance(before, tuple) else (None,) * value.dim()
        reading = Reading(source, state.before, at, tuple(self.walk.values[source].shape))
        op = self.walk.operations[node]
        case = Case(node, op, [reading], places or (), tuple(value.shape), 0, layer_of(node), self.order, copy)
        for dim, entry in enumerate(at):
            if isinstance(entry, Place):
                judge_padding(case, entry.axis, *state.pads.of(dim, len(at)))
            elif holds_positions(entry) and any(state.pads.of(dim, len(at))):
                case.breaks(reading.axes_in([dim]), "pads positions that are not in their order")
        copy.pads = copy.before = None
        return copy

    def rectifies(self, node: fx.Node) -> bool:
        module = self.network.get_submodule(str(node.target)) if node.op == "call_module" else None
        return is_rectifier(module, self.walk.operations[node].name)
