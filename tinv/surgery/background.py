"""The response of a network to a zero image, computed beside the data: one constant per channel at every node.

Under background padding the border of a map holds the response of the layers before it to an image of zeros, so that
a blank canvas stays blank to its edge. A squeeze-excite gate scales the constants for each sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, fx

from tinv.errors import LayerError
from tinv.graph.geometry import GeometryInterpreter
from tinv.graph.grid import AxisGrid, axes_of, holds_positions
from tinv.graph.network_graph import OUT_OF_PLACE, is_in_place, layer_name
from tinv.graph.operations import TRANSFORMERS, Operation, reduced_axes
from tinv.graph.values import norm_axes
from tinv.nn.frequency import FrequencySubsampling
from tinv.nn.pad_widths import effective_kernel_size
from tinv.nn.zero_response import (
    concatenated_response,
    conv_response,
    frequency_response,
    norm_response,
    pointwise_response,
    pool_response,
    zero_image,
)


def add_background(geometry: GeometryInterpreter, axes: tuple[int, ...], needs: list[fx.Node]) -> None:
    """Adds to a graph what follows its background, as far as some nodes need it.

    Args:
        geometry: Over the graph, complete.
        axes: Spatial axes that the policy treats.
        needs: Nodes that fill a border; each gets the background of its first input as argument `background`.

    Raises:
        LayerError: Naming a layer that the background cannot be followed through.
    """
    wanted: set[fx.Node] = set()
    stack = [cast(fx.Node, node.args[0]) for node in needs]
    while stack:
        node = stack.pop()
        if node not in wanted:
            wanted.add(node)
            stack += [s for s in geometry.operations[node].inputs if _follows(geometry, s)]
    responses: dict[fx.Node, fx.Node] = {}
    for node in [n for n in geometry.graph.nodes if n in wanted]:
        responses[node] = _Emitter(geometry, axes, node, responses).emit()
    for node in needs:
        node.kwargs = {**node.kwargs, "background": responses[cast(fx.Node, node.args[0])]}


def _follows(geometry: GeometryInterpreter, node: fx.Node) -> bool:
    """Returns whether a node has a background of its own: maps with positions, and sizes read off them."""
    if geometry.has_positions(node) or isinstance(geometry.grids.get(node), list):
        return True
    op = geometry.operations[node]
    return op.kind in ("size", "item") and node.op != "get_attr" and any(_follows(geometry, s) for s in op.inputs)


_NOT_FOLLOWED = ("opaque", "subsample", "transposed", "patches", "shuffle", "locate", "scan", "attention")


class _Emitter:
    """Makes the nodes that compute the background after one node.

    A background is (1 or N, C, 1, ...): the map's axes, with one pixel on the spatial axes that the policy treats.

    Args:
        geometry: Over the graph, complete.
        axes: Spatial axes that the policy treats.
        node: The node.
        responses: For the nodes before, the node that computes the background after each.
    """

    def __init__(
        self, geometry: GeometryInterpreter, axes: tuple[int, ...], node: fx.Node, responses: dict[fx.Node, fx.Node]
    ) -> None:
        self.geometry, self.axes, self.node, self.responses = geometry, axes, node, responses
        self.last = node

    def emit(self) -> fx.Node:
        """Returns the node that computes the background; raises LayerError where that cannot be followed."""
        made = self.response()
        if made not in self.responses.values():
            self.check(made)
        return made

    def response(self) -> fx.Node:
        """Returns the node that computes the background, whose shape is not checked; raises LayerError."""
        node, op = self.node, self.geometry.operations[self.node]
        if node.op == "placeholder":
            return self.call(zero_image, (node, self.axes))
        source = cast(fx.Node, self.responses.get(op.inputs[0]) if op.inputs else None)
        if op.kind in ("conv", "max", "average"):
            return self.window(op, source)
        if op.kind in ("pad_or_crop", "blur", "polyphase", "resize", "adapt", "roll", "flip"):
            return source
        if op.kind == "subsample" and getattr(op.module, "averages", False):
            return source
        if op.kind == "resampled":
            # a constant has no frequencies: what is left is the function of its value
            return self.call(pointwise_response, (self.layer(), source, *node.args[1:]))
        if isinstance(op.module, FrequencySubsampling):
            return self.call(frequency_response, (self.layer(), source, op.inputs[0]))
        if op.kind == "pad" and op.pads is not None:
            rank = len(self.geometry.values[op.inputs[0]].shape)
            if not any(any(op.pads.of(dim, rank)) for dim in (0, 1)):
                return source
        if op.kind == "item" and self.geometry.operations[op.inputs[0]].kind == "polyphase":
            return source
        if op.kind == "norm" and op.module is not None:
            return self.call(norm_response, (self.layer(), source, op.inputs[0]))
        if op.kind in ("pointwise", "over_axes"):
            if op.module is not None and not self.runs_over_positions(op):
                return self.call(pointwise_response, (self.layer(), source))
            if "drop" in op.name or op.name == "stochastic_depth":
                return source
        if op.kind == "concatenate":
            given: Any = node.args[0]
            parts = self.responses[given] if isinstance(given, fx.Node) else [self.responses.get(n, n) for n in given]
            return self.call(concatenated_response, (parts, op.argument(1, "dim", 0)))
        if op.kind in _NOT_FOLLOWED or op.module is not None or self.runs_over_positions(op):
            raise self.refusal(op.name or "this layer")
        return self.mirror()

    def window(self, op: Operation, source: fx.Node) -> fx.Node:
        """Returns the response of a convolution or pool; raises LayerError where its weights are an argument."""
        assert op.window is not None
        size = effective_kernel_size(op.window.kernel, op.window.dilation)
        if op.kind != "conv" and len(self.axes) == len(size):
            return source
        if op.module is None:
            raise self.refusal(f"a call of {op.name}")
        function = conv_response if op.kind == "conv" else pool_response
        return self.call(function, (self.layer(), source, size, self.axes))

    def runs_over_positions(self, op: Operation) -> bool:
        """Returns whether what a node gives at one position depends on the others, or on how many there are."""
        source = next((n for n in op.inputs if self.geometry.has_positions(n)), None)
        if source is None:
            return False
        grid = self.geometry.grid(source)
        held = {dim for dim, entry in enumerate(grid) if holds_positions(entry)}
        if op.kind == "norm":
            return op.name == "batch_norm" or bool(held & norm_axes(op, grid, self.geometry.values[source].shape)[0])
        if isinstance(op.module, TRANSFORMERS):
            return True
        if op.kind == "over_axes":
            dim = getattr(op.module, "dim", 1) if op.module is not None else op.argument(1, "dim", 1)
            if op.name in ("normalize", "local_response_norm", "LocalResponseNorm"):
                dim = op.argument(2, "dim", 1) if op.name == "normalize" else 1
            return dim is None or int(dim) % len(grid) in held
        if op.kind == "reduce":
            averages = op.name in ("mean", "amax", "amin", "max", "min", "median")
            return not averages and bool(held & set(reduced_axes(op, len(grid))))
        if op.kind == "contract":
            after = axes_of(self.geometry.grids[self.node] or ())
            return any(axes_of(self.geometry.grids.get(n) or ()) - after for n in op.inputs)
        return False

    def check(self, made: fx.Node) -> None:
        """Raises LayerError for an answer with several positions, as where positions are given by number."""
        answers, values = self.geometry.values[made], self.geometry.values[self.node]
        grid = self.geometry.grids[self.node]
        if not isinstance(grid, list):
            answers, values, grid = [answers], [values], [grid]
        for answer, value, known in zip(answers, values, grid, strict=True):
            if not isinstance(answer, Tensor) or not isinstance(known, tuple):
                continue
            wanted = [
                1 if isinstance(entry, AxisGrid) and entry.axis in self.axes else size
                for entry, size in zip(known, value.shape, strict=True)
            ]
            if answer.dim() != len(wanted) or list(answer.shape[1:]) != wanted[1:]:
                raise self.refusal(self.geometry.operations[self.node].name or "this layer")

    def mirror(self) -> fx.Node:
        """Does to the background what the node does to the data."""
        node = self.node
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: self.responses.get(n, n))
        if self.geometry.operations[node].kind == "item" and self.geometry.has_positions(node):
            args = (args[0], self.whole(args[1]))
        target: Any = OUT_OF_PLACE.get(node.target, node.target)
        if is_in_place(node, self.geometry.network) and target is node.target:
            if node.op == "call_method":
                target = str(target).rstrip("_")
            else:
                args = (self.make("call_method", "clone", (args[0],), {}), *args[1:])
        return self.make(node.op, target, args, kwargs)

    def whole(self, index: Any) -> Any:
        """Returns an index without its slices of positions, of which the background has only one."""
        if not isinstance(index, tuple) or Ellipsis in index:
            return index
        source: Any = self.geometry.grids[self.geometry.operations[self.node].inputs[0]]
        dims = iter(source)
        return tuple(i if i is None or not holds_positions(next(dims)) else slice(None) for i in index)

    def layer(self) -> fx.Node:
        """Returns a node that reads the layer itself."""
        return self.make("get_attr", self.node.target, (), {}, run=False)

    def call(self, function: Callable[..., Any], args: tuple[Any, ...]) -> fx.Node:
        """Returns a new node that calls a function."""
        return self.make("call_function", function, args, {})

    def make(self, op: str, target: Any, args: Any, kwargs: Any, run: bool = True) -> fx.Node:
        """Returns a new node behind the last one, run on shapes alone; raises LayerError where that fails."""
        graph = self.geometry.graph
        with graph.inserting_after(self.last):
            made = graph.create_node(op, target, args, kwargs)
        self.last = made
        graph.background.add(made)
        graph.layer_names[made] = layer_name(self.node)
        try:
            with torch.no_grad():
                self.geometry.values[made] = self.geometry.run_node(made)
        except Exception as error:
            raise self.refusal("this layer") from error
        self.geometry.grids[made] = None
        return made

    def refusal(self, what: str) -> LayerError:
        """Returns the error that names the layer and what the background cannot be followed through."""
        return LayerError(
            f"layer {layer_name(self.node)}: background padding cannot follow the background through {what}; use "
            "zero or circular padding"
        )
