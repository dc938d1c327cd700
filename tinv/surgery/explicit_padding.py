"""Padding that a network writes as a step of its own is left to the layers that follow, which have their policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import fx

from tinv.graph.places import holds_positions
from tinv.graph.tracing import layer_of
from tinv.nn.padding import pad

if TYPE_CHECKING:
    from tinv.surgery.graph_builder import GraphBuilder


def fold_pads(g: GraphBuilder) -> None:
    """Takes padding of the treated axes out of a graph, where only convolutions and pools read what was padded."""
    for node in list(g.graph.nodes):
        op = g.original.operations[node]
        if op.kind != "pad" or op.pads is None or not g.original.spatial(source := cast(fx.Node, node.args[0])):
            continue
        rank = len(g.original.places_of(source))
        places = g.original.places_of(source)
        amounts = [op.pads.of(dim, rank) for dim in range(rank)]
        if not any(side > 0 for dim in range(rank) if holds_positions(places[dim]) for side in amounts[dim]):
            continue
        layer = layer_of(node)
        if not g.original.is_map(source):
            g.builder.leave(layer, "it pads no map of the image")
            continue
        problem = _problem(g, node, source, amounts)
        if problem:
            g.builder.refuse(layer, problem)
            continue
        g.builder.changed(layer, "padding left to the layers that follow", "windows changed")
        treated = [amounts[2 + axis] if axis in g.axes else (0, 0) for axis in range(g.original.axes)]
        kept = [(0, 0) if axis in g.axes else amounts[2 + axis] for axis in range(g.original.axes)]
        for user in node.users:
            g.folded[user] = treated
        if any(any(pair) for pair in kept):
            node.target, node.op = pad, "call_function"
            node.args, node.kwargs = (source, kept, op.pads.content), {}
            g.walk_original_again(node)
            continue
        node.replace_all_uses_with(source)
        g.graph.erase_node(node)
        for operation in g.original.operations.values():
            operation.inputs[:] = [source if n is node else n for n in operation.inputs]


def _problem(g: GraphBuilder, node: fx.Node, source: fx.Node, amounts: list[tuple[int, int]]) -> str:
    """Returns why padding cannot be left to the layers that follow; empty if it can."""
    op = g.original.operations[node]
    assert op.pads is not None
    if any(any(pair) for pair in amounts[:2]):
        return "it pads channels as well"
    if op.pads.content == "constant":
        return "it pads with a number other than zero"
    if any(side < 0 for pair in amounts for side in pair):
        return "it pads some sides and crops others"
    kinds = {g.original.operations[user].kind for user in node.users}
    if kinds - {"conv", "max", "average"}:
        return "it is read by layers that are no convolutions or pools"
    pools = kinds - {"conv"}
    if pools and not op.pads.fixed:
        return "how much it pads depends on the size of the map"
    if pools and op.pads.content != "zeros" and g.policy.pool == "keep" and g.content not in ("circular", "background"):
        return f"it pads a pool with {op.pads.content} content"
    return ""
