"""What a network answers to a blank image, followed beside the data: one constant a channel at every node.

Under background padding the border of a map holds what the layers before it answer to an image of zeros, so that a
blank canvas stays blank to its edge. A squeeze-excite gate scales the constants for each sample.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, fx

from tinv.errors import LayerError
from tinv.graph.geometry import Walk
from tinv.graph.operations import TRANSFORMERS, Operation, reduced_axes
from tinv.graph.places import Place, holds_positions, places_in
from tinv.graph.tracing import is_in_place, layer_of
from tinv.graph.values import norm_axes
from tinv.nn.zero_response import (
    blank_concatenation,
    blank_convolution,
    blank_image,
    blank_norm,
    blank_pointwise,
    blank_pool,
)

OUT_OF_PLACE: dict[Any, Callable[..., Any]] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    operator.ipow: operator.pow,
}


def add_background(walk: Walk, axes: tuple[int, ...], needs: list[fx.Node]) -> None:
    """Adds to a graph what follows its background, as far as some nodes need it.

    Args:
        walk: over the graph, complete.
        axes: spatial axes that the policy treats.
        needs: nodes that fill a border; each gets the background of its first input as argument `background`.

    Raises:
        LayerError: naming a layer that the background cannot be followed through.
    """
    wanted: set[fx.Node] = set()
    stack = [cast(fx.Node, node.args[0]) for node in needs]
    while stack:
        node = stack.pop()
        if node not in wanted:
            wanted.add(node)
            stack += [s for s in walk.operations[node].inputs if _follows(walk, s)]
    blanks: dict[fx.Node, fx.Node] = {}
    for node in [n for n in walk.graph.nodes if n in wanted]:
        blanks[node] = _Emitter(walk, axes, node, blanks).emit()
    for node in needs:
        node.kwargs = {**node.kwargs, "background": blanks[cast(fx.Node, node.args[0])]}


def _follows(walk: Walk, node: fx.Node) -> bool:
    """Returns whether a node has a background of its own: maps with positions, and sizes read off them."""
    if walk.spatial(node) or isinstance(walk.places.get(node), list):
        return True
    op = walk.operations[node]
    return op.kind in ("size", "item") and node.op != "get_attr" and any(_follows(walk, s) for s in op.inputs)


_NOT_FOLLOWED = ("opaque", "subsample", "transposed", "patches", "shuffle", "locate", "scan", "attention")


class _Emitter:
    """Makes the nodes that compute the background after one node."""

    def __init__(self, walk: Walk, axes: tuple[int, ...], node: fx.Node, blanks: dict[fx.Node, fx.Node]) -> None:
        self.walk, self.axes, self.node, self.blanks = walk, axes, node, blanks
        self.last = node

    def emit(self) -> fx.Node:
        made = self.answer()
        if made not in self.blanks.values():
            self.check(made)
        return made

    def answer(self) -> fx.Node:
        node, op = self.node, self.walk.operations[self.node]
        if node.op == "placeholder":
            return self.call(blank_image, (node, self.axes))
        source = self.blanks.get(op.inputs[0]) if op.inputs else None
        if op.kind in ("conv", "max", "average"):
            return self.window(op, cast(fx.Node, source))
        if op.kind in ("fit", "blur", "polyphase", "resize", "adapt", "roll", "flip"):
            return cast(fx.Node, source)
        if op.kind == "pad" and op.pads is not None and not any(any(op.pads.of(dim, self.rank(op))) for dim in (0, 1)):
            return cast(fx.Node, source)
        if op.kind == "item" and self.walk.operations[op.inputs[0]].kind == "polyphase":
            return cast(fx.Node, source)
        if op.kind == "norm" and op.module is not None:
            return self.call(blank_norm, (self.layer(), source, op.inputs[0]))
        if op.kind in ("pointwise", "over_axes"):
            if op.module is not None and not self.runs_over_positions(op):
                return self.call(blank_pointwise, (self.layer(), source))
            if "drop" in op.name or op.name == "stochastic_depth":
                return cast(fx.Node, source)
        if op.kind == "concatenate":
            given: Any = node.args[0]
            parts = self.blanks[given] if isinstance(given, fx.Node) else [self.blanks.get(n, n) for n in given]
            return self.call(blank_concatenation, (parts, op.argument(1, "dim", 0)))
        if op.kind in _NOT_FOLLOWED or op.module is not None or self.runs_over_positions(op):
            raise self.refusal(op.name or "this layer")
        return self.mirror()

    def window(self, op: Operation, source: fx.Node) -> fx.Node:
        """Returns the answer of a convolution or pool."""
        assert op.window is not None
        reach = tuple(op.window.reach(axis) + 1 for axis in range(len(op.window.kernel)))
        if op.kind != "conv" and len(self.axes) == len(reach):
            return source
        if op.module is None:
            raise self.refusal(f"a call of {op.name}")
        if op.kind == "conv":
            return self.call(blank_convolution, (self.layer(), source, reach, self.axes))
        return self.call(blank_pool, (self.layer(), source, reach, self.axes))

    def rank(self, op: Operation) -> int:
        return len(self.walk.values[op.inputs[0]].shape)

    def runs_over_positions(self, op: Operation) -> bool:
        """Returns whether what a node gives at one position depends on the others, or on how many there are."""
        source = next((n for n in op.inputs if self.walk.spatial(n)), None)
        if source is None:
            return False
        places = self.walk.places_of(source)
        held = {dim for dim, entry in enumerate(places) if holds_positions(entry)}
        if op.kind == "norm":
            return op.name == "batch_norm" or bool(held & norm_axes(op, places, self.walk.values[source].shape)[0])
        if isinstance(op.module, TRANSFORMERS):
            return True
        if op.kind == "over_axes":
            dim = getattr(op.module, "dim", 1) if op.module is not None else op.argument(1, "dim", 1)
            if op.name in ("normalize", "local_response_norm", "LocalResponseNorm"):
                dim = op.argument(2, "dim", 1) if op.name == "normalize" else 1
            return dim is None or int(dim) % len(places) in held
        if op.kind == "reduce":
            averages = op.name in ("mean", "amax", "amin", "max", "min", "median")
            return not averages and bool(held & set(reduced_axes(op, len(places))))
        if op.kind == "contract":
            after = {p.axis for entry in self.walk.places[self.node] or () for p in places_in(entry)}
            return any(
                p.axis not in after for n in op.inputs for e in self.walk.places.get(n) or () for p in places_in(e)
            )
        return False

    def check(self, made: fx.Node) -> None:
        """Refuses an answer that is not one number for all positions, as where positions are given by number."""
        answers, values, places = self.walk.values[made], self.walk.values[self.node], self.walk.places[self.node]
        if not isinstance(places, list):
            answers, values, places = [answers], [values], [places]
        for answer, value, known in zip(answers, values, places, strict=True):
            if not isinstance(answer, Tensor) or not isinstance(known, tuple):
                continue
            wanted = [
                1 if isinstance(entry, Place) and entry.axis in self.axes else size
                for entry, size in zip(known, value.shape, strict=True)
            ]
            if answer.dim() != len(wanted) or list(answer.shape[1:]) != wanted[1:]:
                raise self.refusal(self.walk.operations[self.node].name or "this layer")

    def mirror(self) -> fx.Node:
        """Does to the background what the node does to the data."""
        node = self.node
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: self.blanks.get(n, n))
        if self.walk.operations[node].kind == "item" and self.walk.spatial(node):
            args = (args[0], self.whole(args[1]))
        target: Any = OUT_OF_PLACE.get(node.target, node.target)
        if is_in_place(node, self.walk.network) and target is node.target:
            if node.op == "call_method":
                target = str(target).rstrip("_")
            else:
                args = (self.make("call_method", "clone", (args[0],), {}), *args[1:])
        return self.make(node.op, target, args, kwargs)

    def whole(self, index: Any) -> Any:
        """Returns an index without its slices of positions, of which the background has only one."""
        if not isinstance(index, tuple) or Ellipsis in index:
            return index
        source: Any = self.walk.places[self.walk.operations[self.node].inputs[0]]
        dims = iter(source)
        return tuple(i if i is None or not holds_positions(next(dims)) else slice(None) for i in index)

    def layer(self) -> fx.Node:
        return self.make("get_attr", self.node.target, (), {}, run=False)

    def call(self, function: Callable[..., Any], args: tuple[Any, ...]) -> fx.Node:
        return self.make("call_function", function, args, {})

    def make(self, op: str, target: Any, args: Any, kwargs: Any, run: bool = True) -> fx.Node:
        graph = self.walk.graph
        with graph.inserting_after(self.last):
            made = graph.create_node(op, target, args, kwargs)
        self.last = made
        made.meta["background"] = True
        made.meta["nn_module_stack"] = self.node.meta.get("nn_module_stack", {})
        try:
            with torch.no_grad():
                self.walk.values[made] = self.walk.evaluate(made)
        except Exception as error:
            raise self.refusal("this layer") from error
        self.walk.places[made] = None
        return made

    def refusal(self, what: str) -> LayerError:
        return LayerError(
            f"layer {layer_of(self.node)}: background padding cannot follow the background through {what}; use zero or "
            "circular padding"
        )
