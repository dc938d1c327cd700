"""Runs a network's graph with its weights, and finds the first layer whose map does not move with the image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from tinv.graph.break_reason import Move, break_reason
from tinv.graph.geometry import GeometryInterpreter
from tinv.graph.grid import Grid, Lost
from tinv.graph.moved_maps import moved_maps
from tinv.graph.network_graph import attribute, layer_name

SAME = 1e-10
"""Largest difference of two maps in float64, as a part of their largest value, that rounding explains."""
_NO_MAPS = ("size", "pad", "constant")
"""Kinds of nodes that are not compared: a border that was just added belongs to the layer that follows."""


Reasons = Mapping[tuple[str, str, int], str]
"""Why a verdict says that a shift is not followed, by layer, kind of shift and axis."""


class GraphRun(fx.Interpreter):
    """Runs a graph on images, node by node.

    Args:
        geometry: Complete, over the graph.
        network: Holds the graph's layers, with their weights.
        keep: Whether the values of all nodes are kept.
    """

    def __init__(self, geometry: GeometryInterpreter, network: nn.Module, keep: bool = False) -> None:
        super().__init__(network, garbage_collect_values=not keep, graph=geometry.graph)
        self.network = network

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Returns the images, whatever the input is called."""
        return next(self.args_iter)

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Returns what a node reads: a parameter, a buffer, or a tensor that the forward pass makes."""
        return attribute(self.network, self.graph, target)

    def begin(self, images: Tensor) -> None:
        """Sets the images, for nodes that are run one by one by `step`."""
        self.args_iter = iter([images])

    def step(self, node: fx.Node) -> Any:
        """Runs one node, whose inputs have been run; returns its value."""
        self.env[node] = self.run_node(node)
        return self.env[node]

    def outputs(self, images: Tensor) -> list[Tensor]:
        """Returns all tensors that the network gives."""
        return [leaf for leaf in tree_leaves(self.run(images)) if isinstance(leaf, Tensor)]


def output_nodes(geometry: GeometryInterpreter) -> list[fx.Node]:
    """Returns the nodes that a network gives."""
    found: list[fx.Node] = []
    fx.node.map_arg(next(n for n in geometry.graph.nodes if n.op == "output").args[0], found.append)
    return found


def output_grids(geometry: GeometryInterpreter) -> list[Grid]:
    """Returns where the positions of each tensor that a network gives sit."""
    return [pair[1] for node in output_nodes(geometry) for pair in geometry.tensors(node) if pair is not None]


@torch.no_grad()
def first_break(geometry: GeometryInterpreter, network: nn.Module, move: Move, verdict: Reasons) -> tuple[str, str]:
    """Returns the name of the first layer whose map does not move with the image, and why; two empty texts for none.

    A map that has not moved rightly but is put right by a later layer is not the cause: of the layers from which
    nothing but wrong maps lead to the output, the first in the order of running is named.

    Args:
        geometry: Complete, over the network's graph.
        network: Holds the layers, in float64.
        move: The image and the moved image.
        verdict: The reason that the verdict has for each (layer, kind, axis), where it has one.
    """
    wrong: dict[fx.Node, bool] = {}
    before, after = GraphRun(geometry, network, keep=True), GraphRun(geometry, network, keep=True)
    before.begin(move.before)
    after.begin(move.after)
    for node in geometry.graph.nodes:
        if node.op == "output":
            break
        first, second = before.step(node), after.step(node)
        # compared at once, before a layer that works in place overwrites the map
        found = list(_same(geometry, node, move, first, second))
        if found:
            wrong[node] = not all(found)
    culprit = _culprit(geometry, wrong)
    if culprit is None:
        return "", ""
    known = verdict.get((layer_name(culprit), move.kind, move.axis), "")
    return layer_name(culprit), break_reason(geometry, network, culprit, move, before.env, known)


def _same(geometry: GeometryInterpreter, node: fx.Node, move: Move, first: Any, second: Any) -> Iterator[bool]:
    """Yields, for every tensor of a node that can be compared, whether it has moved as its image."""
    if node.op == "placeholder" or node in geometry.graph.background or geometry.operations[node].kind in _NO_MAPS:
        return
    befores = first if isinstance(first, (tuple, list)) else [first]
    afters = second if isinstance(second, (tuple, list)) else [second]
    for old, new, pair in zip(befores, afters, geometry.tensors(node), strict=False):
        if not isinstance(old, Tensor) or pair is None or old.shape != new.shape:
            continue
        if any(isinstance(entry, Lost) for entry in pair[1]):
            # positions in an order that is not known follow nothing, unless a later layer takes them all together
            yield False
        elif not old.is_floating_point() and geometry.operations[node].kind != "locate":
            # the choice of an adaptive layer changes, as it has to
            continue
        elif expected := list(moved_maps(old, pair[1], move.axis, move.pixels, chosen=True)):
            scale = float(old.abs().max()) if old.numel() else 0.0
            yield any(float((new - e).abs().max()) <= SAME * scale for e in expected) if old.numel() else True


def _culprit(geometry: GeometryInterpreter, wrong: dict[fx.Node, bool]) -> fx.Node | None:
    """Returns the first node from which nothing but wrong maps, and what is not compared, lead to the output."""
    stack, seen = output_nodes(geometry), set[fx.Node]()
    while stack:
        node = stack.pop()
        if node not in seen and wrong.get(node, True):
            seen.add(node)
            stack += node.all_input_nodes
    order = {node: number for number, node in enumerate(geometry.graph.nodes)}
    found = [node for node in seen if wrong.get(node)] or [node for node, is_wrong in wrong.items() if is_wrong]
    return min(found, key=lambda node: order[node], default=None)
