"""The anatomy of a network: where each activation sits, what it costs, and which shifts it is invariant to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from tinv.graph.converted import ConvertedNetwork
from tinv.graph.geometry import Cost, Walk
from tinv.graph.judge import verdict
from tinv.graph.operations import function_name
from tinv.graph.places import Place
from tinv.graph.tracing import layer_of, on_meta, trace
from tinv.graph.verdict import Verdict


@dataclass(frozen=True)
class Layer:
    """One step of a network.

    Attributes:
        name: path of the module; of the module and the function where it is not a module itself.
        kind: the module's class, or the function.
        shape: of its output, (N, C, *spatial).
        places: of its output, by axis of the image; empty where it has no positions.
        at_border: cells of each axis that see beyond the image's border, in the same order.
        changes_geometry: whether size, stride, offset or receptive field differ from those of its input.
        cost: of the whole batch.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    places: tuple[Place, ...]
    at_border: tuple[int, ...]
    changes_geometry: bool
    cost: Cost


@dataclass(frozen=True)
class Analysis:
    """What is known of a network at one size of image, in evaluation mode.

    Attributes:
        input_shape: (N, C, *spatial).
        layers: in the order of running.
        verdict: what it is exactly invariant to.
    """

    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    verdict: Verdict

    @property
    def cost(self) -> Cost:
        """Floating-point operations and bytes of activations of one forward pass of the whole batch."""
        return Cost(sum(layer.cost.flops for layer in self.layers), sum(layer.cost.bytes for layer in self.layers))

    @property
    def last_map(self) -> Layer | None:
        """The last layer whose output has positions."""
        return next((layer for layer in reversed(self.layers) if layer.places), None)


def analyse(network: nn.Module, example_input: Tensor) -> Analysis:
    """Finds where each activation of a network sits, what it costs, and what the network is invariant to.

    Args:
        network: converted by `tinv.convert` or not; it is left as it is.
        example_input: images (N, C, *spatial) of any values.

    Raises:
        LayerError: naming a layer that cannot be traced, or cannot run on a map of its size.
    """
    graph = network.graphs[False] if isinstance(network, ConvertedNetwork) else trace(network)[False]
    twin = on_meta(network).eval()
    walk = Walk(graph, twin, example_input.detach().to("meta"), count=True).run()
    layers = [
        _layer(walk, node)
        for node in graph.nodes
        if isinstance(_first(walk.values[node]), Tensor) and _shown(walk, node)
    ]
    return Analysis(tuple(example_input.shape), tuple(layers), verdict(walk, network))


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, (tuple, list)) and value else value


def _shown(walk: Walk, node: fx.Node) -> bool:
    is_call = node.op in ("call_module", "call_function", "call_method")
    return is_call and not node.meta.get("background") and walk.operations[node].kind not in ("size", "constant")


def _layer(walk: Walk, node: fx.Node) -> Layer:
    op = walk.operations[node]
    after = walk.on_axes(node)
    source = next((s for s in op.inputs if walk.on_axes(s)), None)
    if source is not None and _is_own_padding(source):
        source = source.all_input_nodes[0]
    before = walk.on_axes(source) if source is not None else {}
    kind = type(op.module).__name__ if op.module is not None else function_name(node)
    image = walk.example.shape[2:]
    shape = tuple(_first(walk.values[node]).shape)
    return Layer(
        layer_of(node),
        kind,
        shape,
        tuple(after.values()),
        tuple(place.cells_at_border(image[axis]) for axis, place in after.items()),
        # a convolution's own padding is shown with the convolution
        after != before and bool(before) and not _is_own_padding(node),
        walk.costs[node],
    )


def _is_own_padding(node: fx.Node) -> bool:
    return function_name(node) == "pad" and all(layer_of(node) == f"{layer_of(user)} (padding)" for user in node.users)
