"""What a rule of positions needs to know of a node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx

from tinv.graph.grid import Grid, Lost, holds_positions
from tinv.graph.operations import Operation


@dataclass(frozen=True)
class Source:
    """A tensor that a node reads.

    Attributes:
        node: Node that gives the tensor.
        grid: One entry an axis.
        shape: Shape of the tensor.
    """

    node: fx.Node
    grid: Grid
    shape: Sequence[int]

    @property
    def has_positions(self) -> bool:
        """Whether any of its axes has positions."""
        return any(map(holds_positions, self.grid))


@dataclass(frozen=True)
class Step:
    """What a rule needs to know.

    Attributes:
        node: Node of the graph.
        op: What it does.
        sources: The tensors it reads, in the order of its arguments.
        shape: Shape of its output.
        number: Number of the output among several.
    """

    node: fx.Node
    op: Operation
    sources: list[Source]
    shape: Sequence[int]
    number: int = 0

    @property
    def first(self) -> Source:
        """The tensor it reads first that has positions, or the first."""
        return next((s for s in self.sources if s.has_positions), self.sources[0])

    @property
    def nowhere(self) -> Grid:
        """No positions on any axis."""
        return (None,) * len(self.shape)


def unknown(step: Step) -> Grid:
    """Returns the grid after an operation that is not known: those before, if it gives a tensor of the same shape."""
    same = [s for s in step.sources if s.has_positions]
    if len(same) == 1 and tuple(same[0].shape) == tuple(step.shape):
        return same[0].grid
    return tuple(Lost() if dim > 1 else None for dim in range(len(step.shape)))
