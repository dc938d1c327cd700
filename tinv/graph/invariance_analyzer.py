"""Follows two kinds of shift through a network's graph and says which of them leave the output exactly unchanged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from tinv.graph.border import check_padding, check_window
from tinv.graph.exact_invariance import SHIFTS, ExactInvariance, FractionalShifts, InvariantShifts
from tinv.graph.fractional import check_fractional
from tinv.graph.functions import WINDOWS
from tinv.graph.geometry import GeometryInterpreter
from tinv.graph.grid import AxisGrid, Grid, Lost, Prefixed, axes_of, grids_of, holds_positions
from tinv.graph.network_graph import layer_name
from tinv.graph.operations import Operation, item_number
from tinv.graph.positions import RULES
from tinv.graph.signs import not_negative, uniform_axes, zero_axes
from tinv.graph.state import Case, Reading, State
from tinv.graph.tracing import modes_kept
from tinv.graph.values import Values


def exact_invariance(geometry: GeometryInterpreter, network: nn.Module) -> ExactInvariance:
    """Returns which shifts a network's output follows exactly.

    Args:
        geometry: Complete, over the network's graph in evaluation.
        network: Network with its weights, which say what a blank image gives.
    """
    with modes_kept(network), torch.no_grad():
        network.eval()
        return InvarianceAnalyzer(geometry, network).run()


_TAKES_TOGETHER = ("reduce", "locate", "adapt", "contract", "attention", "anchor")
"""Kinds after which positions may be gone; each is checked by its own rule."""


class InvarianceAnalyzer:
    """Follows both kinds of shift through a graph, node by node.

    Args:
        geometry: Complete, over the network's graph in evaluation.
        network: Network in evaluation mode, with its weights.
    """

    def __init__(self, geometry: GeometryInterpreter, network: nn.Module) -> None:
        self.geometry, self.network = geometry, network
        self.axes = range(geometry.axes)
        self.values = Values(geometry, network)
        # one state for each tensor that a node gives
        self.states: dict[fx.Node, State | list[State | None]] = {}
        self.unknown: list[str] = []
        # behind an anchor, whatever has no positions is a function of the same numbers
        self.anchored = any(op.kind == "anchor" for op in geometry.operations.values())
        self.order = 0

    def run(self) -> ExactInvariance:
        result: fx.Node | None = None
        for order, node in enumerate(self.geometry.graph.nodes, start=1):
            self.order = order
            if node in self.geometry.graph.background:
                continue
            if node.op == "output":
                result = node
            else:
                self.step(node)
        assert result is not None
        readings = self.readings(result)
        fractional = tuple(self.fractional_of_output(readings, axis) for axis in self.axes)
        positions = axes_of(entry for reading in readings for entry in reading.grid)
        circular, zero_canvas = (tuple(self.of_output(readings, kind, axis) for axis in self.axes) for kind in SHIFTS)
        # where parts of a position are followed to the end, so are whole pixels between the multiples of a stride
        circular = tuple(
            InvariantShifts() if parts.exact and axis not in positions else shifts
            for axis, (shifts, parts) in enumerate(zip(circular, fractional, strict=True))
        )
        # content that moves on a canvas and stays inside moves as the rolled image does
        better = tuple(
            rolled if rolled.unit and (moved.unit is None or rolled.unit < moved.unit) else moved
            for rolled, moved in zip(circular, zero_canvas, strict=True)
        )
        unknown, strides = tuple(dict.fromkeys(self.unknown)), self.output_strides(readings)
        return ExactInvariance(circular, better, unknown, strides, fractional)

    def fractional_of_output(self, readings: list[Reading], axis: int) -> FractionalShifts:
        """Returns whether all outputs follow circular shifts by parts of a pixel."""
        left = InvariantShifts.both([reading.state.shifts["fractional", axis] for reading in readings])
        return FractionalShifts(left.unit is not None, left.layer, left.reason, left.order)

    def of_output(self, readings: list[Reading], kind: Any, axis: int) -> InvariantShifts:
        """Returns what is left of a kind of shift in all outputs; where one has positions, adaptive choices count."""
        found = []
        for reading in readings:
            shifts = reading.state.shifts[kind, axis]
            step = reading.state.steps.get(axis, 1)
            if step > 1 and axis in axes_of(reading.grid):
                reason = "adaptive layers keep one of several positions"
                shifts = shifts.times(step, "the output", reason, self.order)
            found.append(shifts)
        return InvariantShifts.both(found)

    def output_strides(self, readings: list[Reading]) -> tuple[Any, ...]:
        found: dict[int, Any] = {}
        for reading in readings:
            for axis_grid in grids_of(reading.grid):
                if axis_grid.size > 1:
                    found.setdefault(axis_grid.axis, axis_grid.stride)
        return tuple(found.get(axis) for axis in self.axes)

    def step(self, node: fx.Node) -> None:
        """Notes the state of what a node gives."""
        op, value = self.geometry.operations[node], self.geometry.values[node]
        if node.op == "placeholder":
            state = State.fresh(self.axes, True)
            state.content = {axis: (0, size - 1) for axis, size in enumerate(value.shape[2:])}
            self.states[node] = state
        elif op.kind == "size" or not isinstance(value, (Tensor, tuple, list)) or isinstance(value, torch.Size):
            return
        elif self.values.is_constant(node):
            self.states[node] = self.constant_state(node, value)
        elif op.kind == "item" and isinstance(self.geometry.values[op.inputs[0]], (tuple, list)):
            self.states[node] = self.picked(op)
        else:
            states: list[Any] = [
                # of what is no tensor, such as the weights that attention was not asked for, there is nothing to know
                None if pair is None else self.state(node, op, pair[1], tuple(pair[0].shape), number)
                for number, pair in enumerate(self.geometry.tensors(node))
            ]
            self.states[node] = states[0] if isinstance(value, Tensor) else states

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
        return self.lost(op.inputs[0]) if found is None else found

    def lost(self, node: fx.Node) -> State:
        """Returns the state of something whose parts are not known."""
        state = State.fresh(self.axes, False)
        layer = layer_name(node)
        for key, shifts in state.shifts.items():
            state.shifts[key] = shifts.broken(layer, "tinv does not know this layer", self.order)
        self.unknown.append(layer)
        return state

    def readings(self, node: fx.Node, raw: bool = False) -> list[Reading]:
        """Returns the tensors that a node reads; padding around them is content unless `raw`."""
        found = []
        for source in self.geometry.operations[node].reads:
            states = self.states.get(source)
            if not isinstance(states, list):
                states = [states] if isinstance(self.geometry.values.get(source), Tensor) else []
            for state, pair in zip(states, self.geometry.tensors(source), strict=False):
                if state is None or pair is None:
                    continue
                if state.pads is not None and not raw:
                    state = self.after_padding(source, state)
                shape, constant = tuple(pair[0].shape), self.values.is_constant(source)
                found.append(Reading(source, pair[1], shape, state, constant))
        return found

    def case(self, node: fx.Node, op: Operation, grid: Grid, shape: tuple[int, ...], number: int) -> Case:
        readings = self.readings(node, raw=op.kind in WINDOWS)
        if op.kind == "polyphase":
            # the choice that a layer follows is no map
            readings = [reading for reading in readings if reading.has_positions]
        moving = [r.state for r in readings if not r.constant] or [r.state for r in readings]
        joined = State.joined(moving) if moving else State.fresh(self.axes, False)
        return Case(node, op, readings, grid, shape, number, layer_name(node), self.order, joined)

    def state(self, node: fx.Node, op: Operation, grid: Grid, shape: tuple[int, ...], number: int) -> State:
        """Returns the state of one tensor that a node gives."""
        case = self.case(node, op, grid, shape, number)
        state = case.state
        if not case.readings:
            return state
        if op.kind == "pad":
            # the layer that follows takes it into account
            state.pads, state.before = op.pads, case.source.state
            state.zero = zero_axes(case, self.values)
            state.not_negative = state.not_negative and op.pads is not None and op.pads.padding_mode != "constant"
            return state
        if op.kind == "polyphase" and number == 1:
            return state
        if op.kind in WINDOWS:
            check_window(case, lambda: all(self.rectifies(user) for user in node.users))
            if op.kind == "subsample":
                sees_all = getattr(op.module, "sees_all", False)
                missing = [kind for kind in SHIFTS if kind not in getattr(op.module, "exact", ())]
                why = getattr(op.module, "between", "") or "does not say that it follows such shifts"
                why = "spreads content over the whole map" if sees_all else why
                case.breaks(case.every_axis(), f"{op.name} {why}", missing)
            if number == 1 and op.kind == "max":
                case.breaks(case.every_axis(), "says where the maximum is")
        elif op.kind == "opaque" or op.kind not in RULES:
            if case.maps:
                self.unknown.append(case.layer)
            if case.maps or not self.anchored:
                case.breaks(self.axes, "tinv does not know this layer")
        else:
            RULES[op.kind](case, self.values)
        if op.draws:
            case.breaks(self.axes, "draws random numbers in evaluation too")
        check_fractional(case)
        self.check_positions(case)
        state.uniform = uniform_axes(case)
        state.zero, state.not_negative = zero_axes(case, self.values), not_negative(case)
        kept = axes_of(case.grid)
        state.content = {axis: range_ for axis, range_ in state.content.items() if axis in kept}
        return state

    def check_positions(self, case: Case) -> None:
        """Breaks the axes whose positions are gone without a reason, or end in an order that is not known."""
        picks = case.op.kind == "item" and any(isinstance(e, Prefixed) for r in case.readings for e in r.grid)
        if case.op.kind not in _TAKES_TOGETHER and not picks:
            case.breaks(case.every_axis() - axes_of(case.grid), f"tells positions apart ({case.op.name})")
        lost_before = any(isinstance(e, Lost) for r in case.readings for e in r.grid)
        if any(isinstance(entry, Lost) for entry in case.grid) and not lost_before:
            case.breaks(case.every_axis(), f"leaves the positions in an order that is not known ({case.op.name})")

    def after_padding(self, node: fx.Node, state: State) -> State:
        """Returns the state of a map whose border, which was just added, is content like any other."""
        assert state.before is not None
        assert state.pads is not None
        copy = replace(state, shifts=dict(state.shifts), content=dict(state.before.content))
        op = self.geometry.operations[node]
        [before], [after] = self.geometry.tensors(op.inputs[0]), self.geometry.tensors(node)
        assert before is not None
        assert after is not None
        at = before[1]
        reading = Reading(op.inputs[0], at, tuple(before[0].shape), state.before)
        case = Case(node, op, [reading], after[1], tuple(after[0].shape), 0, layer_name(node), self.order, copy)
        for dim, entry in enumerate(at):
            if isinstance(entry, AxisGrid):
                check_padding(case, entry.axis, *state.pads.of(dim, len(at)))
            elif holds_positions(entry) and any(state.pads.of(dim, len(at))):
                case.breaks(reading.axes_in([dim]), "pads positions that are not in their order")
        copy.uniform = uniform_axes(case)
        copy.pads = copy.before = None
        return copy

    def rectifies(self, node: fx.Node) -> bool:
        """Returns whether a node sets negative values to zero and keeps the order of the others."""
        op = self.geometry.operations[node]
        return op.name in ("relu", "relu6") if op.module is None else isinstance(op.module, (nn.ReLU, nn.ReLU6))
