"""Padding that a network writes as a step of its own is left to the layers that follow, which have their policy."""

from __future__ import annotations

from torch import fx

from tinv.graph.grid import holds_positions
from tinv.graph.network_graph import layer_name
from tinv.nn.pad_widths import fills_pools
from tinv.nn.padding import pad
from tinv.surgery.edit import GraphEdit


def absorb_explicit_padding(edit: GraphEdit) -> None:
    """Takes padding of the treated axes out of a graph, where only convolutions and pools read what was padded."""
    for node in list(edit.graph.nodes):
        op = edit.original.operations[node]
        if op.kind != "pad" or op.pads is None or not edit.original.has_positions(op.inputs[0]):
            continue
        source, grid = op.inputs[0], edit.original.grid(op.inputs[0])
        widths = [op.pads.of(dim, len(grid)) for dim in range(len(grid))]
        if not any(max(pair) > 0 for pair, entry in zip(widths, grid, strict=True) if holds_positions(entry)):
            continue
        layer = layer_name(node)
        if not edit.original.is_feature_map(source):
            edit.report.skip(layer, "it pads no map of the image")
            continue
        if op.pads.padding_mode == "zeros" and _moves(widths) and edit.policy.padding.amount != "valid":
            _fill_move(edit, node, source, widths[2:])
            continue
        problem = _problem(edit, node, source, widths)
        if problem:
            edit.report.refuse(layer, problem)
            continue
        edit.report.change(layer, "padding left to the layers that follow", "kernels re-padded")
        treated = [widths[2 + axis] if axis in edit.axes else (0, 0) for axis in range(edit.original.axes)]
        kept = [(0, 0) if axis in edit.axes else widths[2 + axis] for axis in range(edit.original.axes)]
        for user in node.users:
            edit.absorbed[user] = treated
        if any(any(pair) for pair in kept):
            node.target, node.op = pad, "call_function"
            node.args, node.kwargs = (source, kept, op.pads.padding_mode), {}
            edit.original.step(node)
            continue
        node.replace_all_uses_with(source)
        edit.graph.erase_node(node)
        for operation in edit.original.operations.values():
            operation.inputs[:] = [source if n is node else n for n in operation.inputs]


def _moves(widths: list[tuple[int, int]]) -> bool:
    """Returns whether padding moves a map and keeps its size, as the second path of NASNet's reductions does."""
    return not any(any(pair) for pair in widths[:2]) and all(left == -right for left, right in widths)


def _fill_move(edit: GraphEdit, node: fx.Node, source: fx.Node, widths: list[tuple[int, int]]) -> None:
    """Makes what a moved map gains on one side hold what the policy pads with; then the other side is cropped."""
    layer = layer_name(node)
    gains = [
        (max(left, 0), max(right, 0)) if axis in edit.axes else (0, 0) for axis, (left, right) in enumerate(widths)
    ]
    rest = [(a - c, b - d) for (a, b), (c, d) in zip(widths, gains, strict=True)]
    with edit.graph.inserting_before(node):
        filled = edit.graph.call_function(pad, (source, gains, edit.padding_mode))
    edit.register_inserted(filled, source, f"{layer} (padding)")
    node.op, node.target = "call_function", pad
    node.args, node.kwargs = (filled, rest, "zeros"), {}
    edit.report.change(layer, f"moves the map, filled with {edit.padding_mode}", "kernels re-padded")


def _problem(edit: GraphEdit, node: fx.Node, source: fx.Node, widths: list[tuple[int, int]]) -> str:
    """Returns why padding cannot be left to the layers that follow; empty if it can."""
    op = edit.original.operations[node]
    assert op.pads is not None
    if any(any(pair) for pair in widths[:2]):
        return "it pads channels as well"
    if op.pads.padding_mode == "constant":
        return "it pads with a number other than zero"
    if any(side < 0 for pair in widths for side in pair):
        return "it pads some sides and crops others"
    kinds = {edit.original.operations[user].kind for user in node.users}
    if kinds - {"conv", "max", "average"}:
        return "it is read by layers that are no convolutions or pools"
    pools = kinds - {"conv"}
    if pools and not op.pads.fixed:
        return "how much it pads depends on the size of the map"
    if pools and op.pads.padding_mode != "zeros" and edit.policy.pool == "keep" and not fills_pools(edit.padding_mode):
        return f"it pads a pool with {op.pads.padding_mode} padding"
    return ""
