"""What the verdict knows of one map: the shifts it follows, where content can be seen, and what a blank image gives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from torch import fx

from tinv.graph.exact_invariance import FOLLOWED, SHIFTS, Followed, InvariantShifts, Shift
from tinv.graph.grid import AxisGrid, Grid, grids_of
from tinv.graph.operations import Operation
from tinv.graph.step import Source
from tinv.graph.windows import Pads


@dataclass
class State:
    """What is known of one map.

    Attributes:
        shifts: Shifts by kind of shift and axis.
        zero: For each axis, whether values are zero wherever no content is seen along it.
        content: For each axis with positions, the first and the last position that can see content.
        uniform: For each axis, whether what is seen where no content is, is the same at every position.
        not_negative: Whether no value can be negative.
        steps: For each axis, the least common multiple of the strides at which adaptive layers chose.
        pads: What was just added around the map `before`, for the layer that follows.
        before: The map without it.
    """

    shifts: dict[tuple[Followed, int], InvariantShifts]
    zero: tuple[bool, ...]
    uniform: tuple[bool, ...]
    content: dict[int, tuple[int, int]] = field(default_factory=dict)
    not_negative: bool = False
    steps: dict[int, int] = field(default_factory=dict)
    pads: Pads | None = None
    before: State | None = field(default=None, repr=False)

    @staticmethod
    def fresh(axes: Iterable[int], zero: bool, not_negative: bool = False) -> State:
        """Returns the state of what no shift has touched yet."""
        axes = list(axes)
        shifts = {(kind, axis): InvariantShifts() for kind in FOLLOWED for axis in axes}
        return State(shifts, (zero,) * len(axes), (True,) * len(axes), {}, not_negative)

    @staticmethod
    def joined(states: Sequence[State]) -> State:
        """Returns what is left where maps meet; what is said of values holds for sums of them."""
        content: dict[int, tuple[int, int]] = {}
        steps: dict[int, int] = {}
        for state in states:
            for axis, (low, high) in state.content.items():
                first, last = content.get(axis, (low, high))
                content[axis] = (min(low, first), max(high, last))
            for axis, step in state.steps.items():
                steps[axis] = math.lcm(step, steps.get(axis, 1))
        shifts = {key: InvariantShifts.both(state.shifts[key] for state in states) for key in states[0].shifts}
        zero = tuple(all(state.zero[axis] for state in states) for axis in range(len(states[0].zero)))
        uniform = tuple(all(state.uniform[axis] for state in states) for axis in range(len(zero)))
        return State(shifts, zero, uniform, content, all(state.not_negative for state in states), steps)


@dataclass(frozen=True)
class Reading(Source):
    """A tensor that a node reads.

    Attributes:
        node: Node that gives the tensor.
        grid: One entry for each of its axes.
        shape: Shape of the tensor.
        state: State of the tensor.
        constant: Whether it depends on no image.
    """

    shape: tuple[int, ...]
    state: State
    constant: bool = False

    def axes_in(self, dims: Iterable[int]) -> set[int]:
        """Returns the axes of the image whose positions some axes of the tensor hold; more than one of each."""
        return {part.axis for part in grids_of(self.grid[dim] for dim in dims) if part.size > 1}


@dataclass
class Case:
    """A node, what it reads, and the state of its output as far as it is judged.

    Attributes:
        node: Node of the graph.
        op: What it does.
        readings: The tensors it reads.
        grid: Grid of its output.
        shape: Shape of its output.
        number: Number of the output among several.
        layer: Layer that messages name.
        order: Order of the node in the graph.
        state: State of its output.
        uneven: Axes along which it may make a blank image differ near the border.
    """

    node: fx.Node
    op: Operation
    readings: list[Reading]
    grid: Grid
    shape: tuple[int, ...]
    number: int
    layer: str
    order: int
    state: State
    uneven: set[int] = field(default_factory=set)

    @property
    def maps(self) -> list[Reading]:
        """What it reads that has positions."""
        return [reading for reading in self.readings if reading.has_positions]

    @property
    def source(self) -> Reading:
        """The map it reads first."""
        return next(iter(self.maps), self.readings[0])

    def every_axis(self) -> set[int]:
        """Returns the axes of the image that it reads more than one position of."""
        return {axis for reading in self.readings for axis in reading.axes_in(range(len(reading.grid)))}

    def breaks(
        self, axes: Iterable[int], reason: str, shifts: Sequence[Shift] = SHIFTS, keeps_blank: bool = False
    ) -> None:
        """Takes note that no shift along some axes is followed any more; those by parts go with circular ones.

        Args:
            axes: Axes of the image.
            reason: Why, for messages.
            shifts: Kinds of shifts.
            keeps_blank: Whether a blank image still gives the same values everywhere along the axes.
        """
        axes = list(axes)
        if "zero_canvas" in shifts and not keeps_blank:
            self.uneven.update(axes)
        kinds: tuple[Followed, ...] = (*shifts, "fractional") if "circular" in shifts else tuple(shifts)
        for axis in axes:
            for kind in kinds:
                old = self.state.shifts[kind, axis]
                self.state.shifts[kind, axis] = old.broken(self.layer, reason, self.order)

    def breaks_fractional(self, axes: Iterable[int], reason: str) -> None:
        """Takes note that shifts along some axes by parts of a pixel are not followed any more."""
        for axis in axes:
            old = self.state.shifts["fractional", axis]
            self.state.shifts["fractional", axis] = old.broken(self.layer, reason, self.order)

    def times(self, axis: int, unit: int, reason: str, shifts: Sequence[Shift] = SHIFTS) -> None:
        """Takes note that only multiples of `unit` pixels are followed along an axis, and no parts of a pixel.

        A layer that follows those says so: it moves its output by parts of a position.
        """
        if "circular" in shifts and "fractional" not in getattr(self.op.module, "exact", ()):
            self.breaks_fractional([axis], reason)
        for kind in shifts:
            old = self.state.shifts[kind, axis]
            self.state.shifts[kind, axis] = old.times(unit, self.layer, reason, self.order)

    def mixes_choices(self, axes: Iterable[int]) -> None:
        """Takes note that maps that were subsampled by different adaptive choices are taken together."""
        for axis in axes:
            reason = "takes maps together that were subsampled by different choices"
            self.times(axis, self.state.steps.get(axis, 1), reason)

    def content(self, before: AxisGrid) -> tuple[int, int]:
        """Returns the first and the last position of an axis that can see content."""
        return self.state.content.get(before.axis, (0, before.size - 1))

    def axis_grid(self, axis: int) -> AxisGrid | None:
        """Returns where the positions of an axis of the image sit in the output, alone or folded with others."""
        return next((part for part in grids_of(self.grid) if part.axis == axis), None)

    def moves_content(self, axis: int, low: int, high: int) -> None:
        """Notes which positions can see content; the map must hold all of them."""
        axis_grid = self.axis_grid(axis)
        if axis_grid is None:
            return
        start, end = low < 0, high > axis_grid.size - 1
        if start or end:
            where = "both ends" if start and end else "the start" if start else "the end"
            self.breaks([axis], f"positions that see content are missing at {where} of the map", ["zero_canvas"])
        self.state.content[axis] = (max(0, min(low, axis_grid.size - 1)), max(0, min(high, axis_grid.size - 1)))
