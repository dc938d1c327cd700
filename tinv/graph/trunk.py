"""The part of a network that gives its last map, as a network of its own."""

from __future__ import annotations

from torch import Tensor, fx, nn

from tinv.errors import TinvError
from tinv.graph.account import Conversion
from tinv.graph.converted import ConvertedNetwork, geometry_of
from tinv.graph.network_graph import NetworkGraph
from tinv.graph.whole_maps import is_known_map, whole_readers
from tinv.policies.conversion import ConversionPolicy


def trunk_of(network: nn.Module, example: Tensor) -> ConvertedNetwork:
    """Returns a network without its head: it ends with the last map that has a position for every part of the image.

    Args:
        network: Converted or not, such as a classifier; the trunk shares its weights.
        example: Images (N, C, *spatial) of any values.

    Raises:
        LayerError: Naming a layer that cannot be traced, or cannot run on a map of its size.
        TinvError: If it gives no map whose positions are known.

    Examples:
        >>> import torch
        >>> layers = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> trunk_of(layers, torch.zeros(1, 3, 32, 32))(torch.zeros(1, 3, 64, 48)).shape
        torch.Size([1, 4, 32, 24])
    """
    geometry = geometry_of(network, example[:1])
    axes = set(range(geometry.axes))
    maps = [
        node
        for node in geometry.graph.nodes
        if node.op != "placeholder"
        and is_known_map(geometry, node)
        and set(geometry.grid_by_axis(node)) == axes
        and geometry.is_feature_map(node)
        and whole_readers(geometry, node)
    ]
    if not maps:
        raise TinvError("the network gives no map whose positions are known, so that there is no trunk before a head")
    graph = _ending_with(geometry.graph, maps[-1].name)
    conversion = getattr(network, "conversion", None) or Conversion(ConversionPolicy())
    return ConvertedNetwork(network, {False: graph, True: graph}, conversion).eval()


def _ending_with(graph: NetworkGraph, name: str) -> NetworkGraph:
    """Returns a copy of a graph whose output is the node of a name."""
    copied = NetworkGraph(graph)
    copied.constants = graph.constants
    nodes = {node.name: node for node in copied.nodes}
    old = dict(zip(graph.nodes, copied.nodes, strict=True))
    copied.layer_names = {old[node]: layer for node, layer in graph.layer_names.items() if node in old}
    copied.background = {old[node] for node in graph.background if node in old}
    output: fx.Node = copied.output_node()
    output.args = (nodes[name],)
    # only what comes after it goes: an operation before it may overwrite what others read
    for node in list(reversed(copied.nodes)):
        if node is nodes[name]:
            break
        if node is not output:
            copied.erase_node(node)
            copied.layer_names.pop(node, None)
            copied.background.discard(node)
    return copied
