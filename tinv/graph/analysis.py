"""The anatomy of a network: where each activation sits, what it costs, and which shifts it is invariant to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, fx, nn

from tinv.deprecation import moved
from tinv.graph.converted import geometry_of
from tinv.graph.exact_invariance import ExactInvariance
from tinv.graph.fractional import Statistics, norm_statistics
from tinv.graph.geometry import Cost, GeometryInterpreter
from tinv.graph.grid import AxisGrid
from tinv.graph.invariance_analyzer import exact_invariance
from tinv.graph.network_graph import layer_name
from tinv.graph.operations import function_name, whole_value


@dataclass(frozen=True)
class Layer:
    """One step of a network.

    Attributes:
        name: Path of the module; of the module and the function where it is not a module itself.
        kind: The module's class, or the function.
        shape: Shape of its output, (N, C, *spatial).
        grid: Grid of its output, by axis of the image; empty where it has no positions.
        at_border: Positions of each axis that see beyond the image's border, in the same order.
        changes_geometry: Whether size, stride, offset or receptive field differ from those of its input.
        cost: Cost of the whole batch.
        statistics: Of a norm, what it divides by: `constant` numbers of the training set, statistics `pooled` over all
            positions, or one `per_position`. All follow shifts by whole positions; the first two follow those by parts
            of a pixel too (arXiv 2505.19805). None for other layers, and where there are no positions.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    grid: tuple[AxisGrid, ...]
    at_border: tuple[int, ...]
    changes_geometry: bool
    cost: Cost
    statistics: Statistics | None = None


@dataclass(frozen=True)
class Analysis:
    """What is known of a network at one size of image, in evaluation mode.

    Attributes:
        input_shape: (N, C, *spatial).
        layers: Layers in the order of running.
        verdict: What it is exactly invariant to.
    """

    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    verdict: ExactInvariance

    @property
    def cost(self) -> Cost:
        """Floating-point operations and bytes of activations of one forward pass of the whole batch."""
        return Cost.total(layer.cost for layer in self.layers)

    @property
    def last_map(self) -> Layer | None:
        """The last layer whose output has positions."""
        return next((layer for layer in reversed(self.layers) if layer.grid), None)


def analyze(network: nn.Module, example_input: Tensor) -> Analysis:
    """Finds where each activation of a network sits, what it costs, and what the network is invariant to.

    Args:
        network: Converted by `tinv.convert` or not; it is left as it is.
        example_input: Images (N, C, *spatial) of any values.

    Raises:
        LayerError: Naming a layer that cannot be traced, or cannot run on a map of its size.
    """
    geometry = geometry_of(network, example_input, count=True)
    layers = tuple(layer for node in geometry.graph.nodes if (layer := _layer(geometry, node)) is not None)
    return Analysis(tuple(example_input.shape), layers, exact_invariance(geometry, network))


def _layer(geometry: GeometryInterpreter, node: fx.Node) -> Layer | None:
    """Returns what a node does to maps; None for one that calls nothing, gives no map, or follows the background."""
    op, value = geometry.operations[node], whole_value(geometry.values[node])
    is_call = node.op in ("call_module", "call_function", "call_method") and node not in geometry.graph.background
    if value is None or not is_call or op.kind in ("size", "constant"):
        return None
    after = geometry.grid_by_axis(node)
    source = next((s for s in op.inputs if geometry.grid_by_axis(s)), None)
    if source is not None and _is_own_padding(source):
        source = source.all_input_nodes[0]
    before = geometry.grid_by_axis(source) if source is not None else {}
    kind = type(op.module).__name__ if op.module is not None else function_name(node)
    image = geometry.example.shape[2:]
    return Layer(
        layer_name(node),
        kind,
        tuple(value.shape),
        tuple(after.values()),
        tuple(axis_grid.positions_at_border(image[axis]) for axis, axis_grid in after.items()),
        # a convolution's own padding is shown with the convolution
        after != before and bool(before) and not _is_own_padding(node),
        geometry.costs[node],
        _statistics(geometry, node),
    )


def _statistics(geometry: GeometryInterpreter, node: fx.Node) -> Statistics | None:
    op = geometry.operations[node]
    source = next((s for s in op.reads if geometry.has_positions(s)), None)
    if op.kind != "norm" or source is None:
        return None
    return norm_statistics(op, geometry.grid(source), geometry.values[source].shape)


def _is_own_padding(node: fx.Node) -> bool:
    name = layer_name(node)
    return function_name(node) == "pad" and all(name == f"{layer_name(user)} (padding)" for user in node.users)


__getattr__ = moved(__name__, {"analyse": f"{__name__}:analyze"})
