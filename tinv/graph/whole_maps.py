"""Which layers read a map as a whole, so that what they give at one position depends on the size of the image."""

from __future__ import annotations

from torch import fx

from tinv.errors import TinvError
from tinv.graph.fractional import norm_statistics
from tinv.graph.geometry import GeometryInterpreter
from tinv.graph.grid import Lost, grids_of
from tinv.graph.network_graph import layer_name


def check_reads_no_whole_map(geometry: GeometryInterpreter, what: str) -> None:
    """Checks that no layer before the head reads a whole map, as squeeze-and-excitation and some norms do.

    Args:
        geometry: Geometry of the network.
        what: What the whole map is, to the one who asks, such as "larger on the cut".

    Raises:
        TinvError: Naming the layer.
    """
    background = geometry.graph.background  # what a blank image gives, whatever the image is
    for node in geometry.graph.nodes:
        if node in background or not is_known_map(geometry, node):
            continue
        if _normalizes_by_whole_map(geometry, node):
            raise TinvError(f"layer {layer_name(node)} normalizes by its whole map, which is {what}")
        for reader in whole_readers(geometry, node):
            if reader not in background and _reaches_map(geometry, reader):
                raise TinvError(f"layer {layer_name(reader)} reads its whole map, which is {what}")


def is_known_map(geometry: GeometryInterpreter, node: fx.Node) -> bool:
    """Returns whether a node is a map all of whose positions are known."""
    entries = [entry for pair in geometry.tensors(node) if pair is not None for entry in pair[1]]
    return bool(grids_of(entries)) and not any(isinstance(entry, Lost) for entry in entries)


def whole_readers(geometry: GeometryInterpreter, node: fx.Node) -> list[fx.Node]:
    """Returns the nodes that read a map and give something without its positions."""
    return [
        user
        for user in node.users
        if user.op == "output"
        or (geometry.operations[user].kind not in ("size", "constant") and not is_known_map(geometry, user))
    ]


def _normalizes_by_whole_map(geometry: GeometryInterpreter, node: fx.Node) -> bool:
    operation = geometry.operations[node]
    source = next((s for s in operation.reads if geometry.has_positions(s)), None)
    if operation.kind != "norm" or source is None:
        return False
    return norm_statistics(operation, geometry.grid(source), geometry.values[source].shape) == "pooled"


def _reaches_map(geometry: GeometryInterpreter, reader: fx.Node) -> bool:
    """Returns whether what a node makes of a whole map goes into another map, as in squeeze-and-excitation."""
    waiting, seen = [reader], set()
    while waiting:
        node = waiting.pop()
        if node in seen or node.op == "output":
            continue
        seen.add(node)
        if is_known_map(geometry, node):
            return True
        waiting += node.users
    return False
