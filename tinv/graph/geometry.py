"""Where each activation of a network sits over the image: offset, stride, size and receptive field, axis by axis.

Everything is found by running the network's graph on tensors that have a shape but no values; `grid.py` says what is
known of an axis, `rules.py` what each kind of step does to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from tinv.errors import LayerError, TinvError
from tinv.graph.autocast import enter_autocast, exit_autocast
from tinv.graph.functions import WINDOWS
from tinv.graph.grid import AxisGrid, Grid, Uniform, grids_of, holds_positions
from tinv.graph.network_graph import NetworkGraph, attribute, is_in_place, layer_name
from tinv.graph.operations import Operation, item_number, operation, whole_value
from tinv.graph.rules import grid_after
from tinv.graph.step import Source, Step
from tinv.graph.tracing import FACTORIES
from tinv.nn.token_layers import TokenLayer
from tinv.nn.tokens import PolyphaseAnchor


class RunError(LayerError):
    """A layer cannot run on the map it gets."""


@dataclass(frozen=True)
class Cost:
    """What a node costs for the whole batch.

    Attributes:
        flops: Floating-point operations, two for each multiply-add.
        bytes: Bytes of its output, 0 where it overwrites or views another.
    """

    flops: int = 0
    bytes: int = 0

    def times(self, other: Cost) -> tuple[float, float]:
        """Returns how many times another cost's operations and bytes this is."""
        return self.flops / max(other.flops, 1), self.bytes / max(other.bytes, 1)

    @staticmethod
    def total(costs: Iterable[Cost]) -> Cost:
        """Returns the sum of several costs."""
        costs = list(costs)
        return Cost(sum(cost.flops for cost in costs), sum(cost.bytes for cost in costs))


class GeometryInterpreter(fx.Interpreter):
    """Runs a graph node by node on shapes alone and keeps what is known of every node.

    A rewriter runs single nodes by `step`, while it changes the graph.

    Args:
        graph: Graph of the network.
        network: Network on the meta device.
        example: Images (N, C, *spatial) on the meta device.
        count: Whether to count costs.
    """

    def __init__(self, graph: NetworkGraph, network: nn.Module, example: Tensor, count: bool = False) -> None:
        super().__init__(network, garbage_collect_values=False, graph=graph)
        self.graph: NetworkGraph = graph
        self.network, self.example, self.values = network, example, self.env
        self.axes = example.dim() - 2
        self.grids: dict[fx.Node, Any] = {}
        self.costs: dict[fx.Node, Cost] = {}
        self.operations: dict[fx.Node, Operation] = {}
        self.counter = FlopCounterMode(display=False) if count else None

    def run(self) -> GeometryInterpreter:  # type: ignore[override]  # its input is the example
        """Runs all nodes; returns itself."""
        with self.counter or nullcontext():
            for node in self.graph.nodes:
                self.step(node)
        return self

    @property
    def cost(self) -> Cost:
        """Of all nodes that have been run."""
        return Cost.total(self.costs.values())

    @torch.no_grad()
    def step(self, node: fx.Node) -> None:
        """Runs one node, whose inputs have been run.

        Raises:
            LayerError: Naming the layer, if it cannot run on the map it gets.
        """
        before = self.counter.get_total_flops() if self.counter else 0
        try:
            value = self.run_node(node)
        except TinvError as error:
            raise RunError(f"layer {layer_name(node)}: {error}") from error
        except Exception as error:
            raise RunError(f"layer {layer_name(node)}: {self._explain(node, error)}") from error
        self.values[node] = value
        self.operations[node] = self._operation(node, value)
        if self.operations[node].kind == "conv" and 0 in value.shape:  # torch 2.6 lets it pass, without values only
            raise RunError(f"layer {layer_name(node)}: the map that it is given is smaller than its kernel")
        self.grids[node] = self._grid(node, self.operations[node], value)
        if self.counter:
            new = isinstance(value, Tensor) and self.operations[node].kind not in _VIEWS
            size = value.numel() * value.element_size() if new and not is_in_place(node, self.network) else 0
            if isinstance(layer := self.operations[node].module, TokenLayer):
                size += layer.inner_values(self.values[node.all_input_nodes[0]].shape) * value.element_size()
            self.costs[node] = Cost(self.counter.get_total_flops() - before, size)

    def has_positions(self, node: Any) -> bool:
        """Returns whether a node is a map that still has positions."""
        grid = self.grids.get(node) if isinstance(node, fx.Node) else None
        return isinstance(grid, tuple) and any(map(holds_positions, grid))

    def grid(self, node: fx.Node) -> Grid:
        """Returns the grid of a map, one entry for each of its axes."""
        grid: Grid = self.grids[node]
        return grid

    def grid_by_axis(self, node: fx.Node) -> dict[int, AxisGrid]:
        """Returns the grid of a map by axis of the image."""
        grid = self.grids.get(node)
        if isinstance(grid, list):
            grid = grid[0] if grid else None
        return {p.axis: p for p in grid if isinstance(p, AxisGrid)} if isinstance(grid, tuple) else {}

    def is_feature_map(self, node: fx.Node) -> bool:
        """Returns whether a node's spatial axes are its last ones, in order: (N, C, *spatial)."""
        grid = self.grids.get(node)
        if not isinstance(grid, tuple) or len(grid) != self.axes + 2 or any(map(holds_positions, grid[:2])):
            return False
        return all(isinstance(entry, AxisGrid) and entry.axis == axis for axis, entry in enumerate(grid[2:]))

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Tensor:
        """Returns the images, whatever the input is called."""
        return self.example

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Returns what a node reads, without values where it is a tensor."""
        value = attribute(self.network, self.graph, target)
        return value.to("meta") if isinstance(value, Tensor) else value

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Returns what a function gives; a tensor that it makes of sizes alone has to lie where the others do."""
        if target in (enter_autocast, exit_autocast):
            return None
        where = {"device": "meta"} if getattr(target, "__name__", "") in FACTORIES else {}
        return target(*args, **{**kwargs, **where})

    def _operation(self, node: fx.Node, value: Any) -> Operation:
        """Returns what a node does; a layer whose output has another size than its attributes say is not known."""
        op = operation(node, self.network, self.axes, self.values)
        after, before = whole_value(value), self.values.get(op.inputs[0]) if op.inputs else None
        if op.window is None or op.kind not in WINDOWS or op.kind == "patches":
            return op
        if after is None or not isinstance(before, Tensor) or op.kind == "polyphase":
            return op
        first = before.dim() - len(op.window.kernel)
        if first < 0 or after.dim() != before.dim():
            return replace(op, kind="opaque", window=None)
        sizes = [op.window.output_size(axis, size) for axis, size in enumerate(before.shape[first:])]
        return op if sizes == list(after.shape[first:]) else replace(op, kind="opaque", window=None)

    def _grid(self, node: fx.Node, op: Operation, value: Any) -> Any:
        if node.op == "placeholder":
            zero, one = Fraction(0), Fraction(1)
            return (None, None, *(AxisGrid(a, zero, one, size, zero, zero) for a, size in enumerate(value.shape[2:])))
        if op.kind == "item" and isinstance(self.values[op.inputs[0]], (tuple, list)):
            parts = self.grids.get(op.inputs[0])
            index = item_number(op)
            if not isinstance(parts, list) or index is None:
                return parts[op.args[1]] if isinstance(parts, list) and isinstance(value, (tuple, list)) else None
            return parts[index]
        if op.kind in ("size", "constant"):
            return None
        pairs = [(source, pair) for source in op.reads for pair in self.tensors(source) if pair is not None]
        sources = [Source(source, grid, tensor.shape) for source, (tensor, grid) in pairs]
        if not any(source.has_positions for source in sources):
            if op.kind not in _MAY_REPEAT or not isinstance(value, Tensor) or not sources:
                return None
            grid = grid_after(Step(node, op, sources, value.shape))
            return grid if Uniform() in grid else None
        if isinstance(value, (tuple, list)):
            return [
                grid_after(Step(node, op, sources, part.shape, number)) if isinstance(part, Tensor) else None
                for number, part in enumerate(value)
            ]
        return grid_after(Step(node, op, sources, value.shape)) if isinstance(value, Tensor) else None

    def tensors(self, node: fx.Node) -> list[tuple[Tensor, Grid] | None]:
        """Returns the tensors that a node gives, each with its grid; None for what is no tensor."""
        value, grid = self.values.get(node), self.grids.get(node)
        values: Any = value if isinstance(value, (tuple, list)) else [value]
        known: Any = grid if isinstance(grid, list) else [grid] * len(values)
        return [
            (tensor, where if isinstance(where, tuple) else (None,) * tensor.dim())
            if isinstance(tensor, Tensor)
            else None
            for tensor, where in zip(values, known, strict=True)
        ]

    def _explain(self, node: fx.Node, error: Exception) -> str:
        """Returns what is wrong in one sentence."""
        module = self.network.get_submodule(str(node.target)) if node.op == "call_module" else None
        given = self.values.get(node.all_input_nodes[0]) if node.all_input_nodes else None
        if isinstance(module, _ConvNd) and isinstance(given, Tensor) and given.shape[1] != module.in_channels:
            return f"takes {module.in_channels} channels, its input has {given.shape[1]}"
        if isinstance(module, nn.Linear) and isinstance(given, Tensor) and given.shape[-1] != module.in_features:
            return f"takes {module.in_features} features, its input has {given.shape[-1]}"
        return str(error).strip().partition("\n")[0] or type(error).__name__


_MAY_REPEAT = ("expand", "resize", "pointwise", "over_axes", "merge")
"""Kinds whose result may be the same at every position, though nothing they read has positions."""
_VIEWS = ("reshape", "permute", "split", "item", "size", "expand")


def map_strides(geometry: GeometryInterpreter, axis: int | None = None) -> list[Fraction]:
    """Returns the stride of every map in pixels, along one axis of the image or along all."""
    return [
        abs(part.stride)
        for node in geometry.graph.nodes
        for pair in geometry.tensors(node)
        if pair is not None
        for part in grids_of(pair[1])
        if part.size > 1 and axis in (None, part.axis)
    ]


def total_stride(geometry: GeometryInterpreter, axis: int | None = None) -> int:
    """Returns the largest stride of any map in pixels, or a patch, along one axis of the image or all, rounded up."""
    strides = map_strides(geometry, axis)
    anchors = [op.module for op in geometry.operations.values() if isinstance(op.module, PolyphaseAnchor)]
    patches = [size for anchor in anchors for a, size in enumerate(anchor.patch) if axis in (None, a)]
    return max(math.ceil(max(strides, default=1)), *patches, 1)
