"""Why the map of one layer does not move with the image: from the layer, the sizes of its maps and their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, fx, nn

from tinv.graph.border import circular_problem
from tinv.graph.geometry import GeometryInterpreter
from tinv.graph.grid import AxisGrid, holds_positions
from tinv.graph.operations import Operation
from tinv.graph.values import norm_axes
from tinv.graph.windows import Pads
from tinv.nn.frequency import FLCPooling, FrequencySubsampling
from tinv.nn.subsampling import AdaptivePolyphaseSampling

TIE = 1e-12
"""Difference of two norms, as a part of the larger, below which they are taken as equal."""


@dataclass(frozen=True)
class Move:
    """One image, and the same image moved.

    Attributes:
        kind: `circular`, `zero_canvas` or `fractional`.
        axis: Spatial axis, 0 for the first.
        pixels: How far.
        before: The image.
        after: The moved image.
    """

    kind: str
    axis: int
    pixels: float
    before: Tensor
    after: Tensor


def break_reason(
    geometry: GeometryInterpreter,
    network: nn.Module,
    node: fx.Node,
    move: Move,
    values: Mapping[fx.Node, Any],
    known: str = "",
) -> str:
    """Returns why the map of a node does not move with the image although what it reads does.

    Args:
        geometry: Complete, over the graph of the node.
        network: Holds the layers.
        node: The node.
        move: How the image was moved.
        values: Values of the nodes before, of the unmoved image.
        known: What the verdict says of this layer.
    """
    op = geometry.operations[node]
    layer = network.get_submodule(str(node.target)) if node.op == "call_module" else None
    if op.kind == "locate":
        return "says where a value is"
    source = _source(geometry, op, move.axis)
    found = "" if source is None else _Break(geometry, op, node, layer, source, move, values, known).reason()
    return found or known or f"tells positions apart ({op.name})"


def _source(geometry: GeometryInterpreter, op: Operation, axis: int) -> fx.Node | None:
    return next((n for n in op.inputs if axis in geometry.grid_by_axis(n)), None)


class _Break:
    def __init__(
        self,
        geometry: GeometryInterpreter,
        op: Operation,
        node: fx.Node,
        layer: nn.Module | None,
        source: fx.Node,
        move: Move,
        values: Mapping[fx.Node, Any],
        known: str,
    ) -> None:
        self.geometry, self.op, self.node, self.layer, self.source = geometry, op, node, layer, source
        self.move, self.values, self.known = move, values, known
        self.place: AxisGrid = geometry.grid_by_axis(source)[move.axis]
        # positions of its input by which the image has moved
        self.by = Fraction(move.pixels) / self.place.stride

    def reason(self) -> str:
        """Returns the reason in words."""
        if self.op.window is not None:
            return self.of_window()
        if self.op.kind == "adapt":
            return self.of_adaptive_pool()
        if self.by.denominator > 1 and self.op.kind == "norm":
            grid = self.geometry.grid(self.source)
            axes, _ = norm_axes(self.op, grid, self.geometry.values[self.source].shape)
            if axes and not any(holds_positions(grid[dim]) for dim in axes):
                return "normalizes each position by itself, which does not follow shifts by parts of a position"
        if self.by.denominator > 1 and self.op.kind in ("pointwise", "over_axes", "norm", "merge"):
            return f"its map has moved by {_number(self.by)} positions, and it does not follow parts of a position"
        return ""

    def of_window(self) -> str:
        """Returns why a convolution, pool, blur or layer that carries a stride does not follow."""
        window = self.op.window
        assert window is not None
        dim = self.dim()
        number = dim - (len(self.geometry.grid(self.source)) - len(window.kernel))
        if number < 0:
            return ""
        added, fills = self.padding(dim, number)
        size, stride = self.place.size - added, window.stride[number]
        if self.op.kind == "polyphase" and stride > 1:
            return self.of_adaptive_layer(size, stride)
        if isinstance(self.layer, FrequencySubsampling) and stride > 1:
            return self.of_frequencies(size, stride)
        if self.by.denominator > 1 or (stride > 1 and self.by.numerator % stride):
            return f"stride {stride}" if stride > 1 else "its map has moved by parts of a position"
        said = []
        if self.move.kind != "zero_canvas" or "circular" in fills:
            said.append(circular_problem(self.op, fills, size, stride, self.positions()))
        if self.move.kind == "zero_canvas" and not any(said):
            said.append(self.known or self.of_border(fills, size, stride))
        rest = self.left_out(number, stride)
        if rest and "not a multiple" not in said[0]:
            said.append(f"uneven padding, its windows leave out {rest} of {stride} at the end")
        if not any(said) and self.op.kind == "subsample":
            said.append(self.of_subsampler())
        return "; ".join(filter(None, said))

    def of_border(self, fills: set[str], size: int, stride: int) -> str:
        """Returns what a border does to content that layers before have carried around it, as circular ones do."""
        if fills:
            return f"pads with {' and '.join(sorted(fills))} where content of its map reaches the border"
        return "loses positions at the border" if self.positions() * stride < size else ""

    def left_out(self, number: int, stride: int) -> int:
        """Returns how many positions at the end of the padded map no window reads; 0: padding is even."""
        window = self.op.window
        assert window is not None
        size = self.place.size
        return (size + sum(window.widths(number, size)) - window.effective_kernel_size(number)) % stride

    def of_subsampler(self) -> str:
        """Returns why a layer that carries a stride, of tinv or of a user, does not follow."""
        assert self.layer is not None
        blocks = [m for m in self.layer.modules() if isinstance(m, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d))]
        if blocks:
            return "chooses by pooled blocks (quadrants) of its map, which stay where they are"
        return f"{self.op.name} does not follow this shift, whatever its class says"

    def of_adaptive_layer(self, size: int, stride: int) -> str:
        """Returns why a layer that chooses a polyphase component does not follow."""
        layer = self.layer
        wraps = self.move.kind != "zero_canvas" or getattr(layer, "padding_mode", "") == "circular"
        if wraps and size % stride:
            return f"{size} positions are not a multiple of its stride {stride}"
        if isinstance(layer, AdaptivePolyphaseSampling) and isinstance(self.values.get(self.source), Tensor):
            images = self.values[self.source]
            strengths = _strengths(layer, layer.components(images, *self.background()))
            if bool((strengths[:, 0] - strengths[:, 1] <= TIE * strengths[:, 0]).any()):
                return "ties: several polyphase components have the largest norm, and the first of them is kept"
        return ""

    def background(self) -> tuple[Tensor, ...]:
        background: Any = self.node.kwargs.get("background")
        return (self.values[background],) if isinstance(background, fx.Node) else ()

    def of_frequencies(self, size: int, stride: int) -> str:
        """Returns why a layer that cuts the spectrum does not follow."""
        layer = self.layer
        assert isinstance(layer, FrequencySubsampling)
        if self.move.kind == "zero_canvas":
            return "spreads content over the whole map"
        if size % stride:
            return f"{size} positions are not a multiple of its stride {stride}"
        if problem := layer.circular_problem(size, stride):
            return problem
        if isinstance(layer, FLCPooling) and (size // stride) % 2 == 0:
            return f"stride {stride}; one side of the Nyquist frequency is kept, which parts of a position do not move"
        return f"stride {stride}"

    def of_adaptive_pool(self) -> str:
        """Returns why a pool to a fixed number of positions does not follow."""
        positions = self.geometry.values[self.node].shape[self.dim()]
        return f"pools {self.place.size} positions in {positions} blocks, which stay where they are"

    def positions(self) -> int:
        """Returns how many positions its output has along the axis."""
        after = self.geometry.grid_by_axis(self.node).get(self.move.axis)
        return after.size if after is not None else 1

    def dim(self) -> int:
        grid = self.geometry.grid(self.source)
        return next(d for d, e in enumerate(grid) if isinstance(e, AxisGrid) and e.axis == self.move.axis)

    def padding(self, dim: int, number: int) -> tuple[int, set[str]]:
        """Returns the pixels that a step before has added along the axis, and all that the border holds."""
        window, fills, added = self.op.window, set(), 0
        assert window is not None
        before = self.geometry.operations[self.source]
        rank = len(self.geometry.grid(self.source))
        if before.kind == "pad" and isinstance(before.pads, Pads):
            added = sum(before.pads.of(dim, rank))
            fills |= {before.pads.mode_of(dim, rank)} if any(before.pads.of(dim, rank)) else set()
        fills |= {window.mode_of(number)} if any(window.widths(number, self.place.size)) else set()
        return added, fills


@torch.no_grad()
def _strengths(layer: AdaptivePolyphaseSampling, components: Tensor) -> Tensor:
    """Returns the norms (N, P) of the polyphase components of each image, the largest first."""
    order = {1: 1.0, 2: 2.0, "inf": float("inf")}[layer.norm]
    norms: Tensor = torch.linalg.vector_norm(components.double().flatten(2), order, dim=2)
    return norms.sort(dim=1, descending=True)[0]


def _number(by: Fraction) -> str:
    return str(by) if by.denominator <= 64 else f"{float(by):.3g}"
