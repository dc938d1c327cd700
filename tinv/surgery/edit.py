"""A network that is being changed: its layers, its graphs and what is known of them, for the jobs of a conversion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import cast

import torch
from torch import Tensor, fx, nn

from tinv.errors import LayerError
from tinv.graph.account import Conversion
from tinv.graph.geometry import GeometryInterpreter
from tinv.graph.grid import AxisGrid
from tinv.graph.meta_copy import copy_to_meta
from tinv.graph.network_graph import NetworkGraph
from tinv.graph.tracing import trace
from tinv.graph.windows import Window
from tinv.policies.conversion import ConversionPolicy
from tinv.surgery.tokens import adapt_tokens


class PartialError(LayerError):
    """Layers that a policy was asked for cannot take it."""


class NetworkEdit:
    """A copy of a network that has shapes but no values, which is being changed.

    Args:
        model: The network; it is left as it is.
        policy: All policies together.
        example: Images (N, C, *spatial) on the meta device.
        opaque: Paths of modules that are not looked into.

    Attributes:
        meta_copy: The copy, on the meta device; layers that are added are in its `policy_layers`.
        graphs: Its graph in training (True) and in evaluation (False).
        conversion: What was done.
        geometry: Geometry of the changed graph in evaluation, once all is done.
        windows: Windows of each convolution and pool, by its path: one that runs several times has one window.
        learned: Paths of added layers with weights, which all graphs share, by name and number.
        values: Weights and buffers of those layers, each as it is in the copy, without values, and with them.
        carried: Activations that were taken out of norms, by the path of the norm.
    """

    def __init__(
        self, model: nn.Module, policy: ConversionPolicy, example: Tensor, opaque: Collection[str] = ()
    ) -> None:
        self.policy, self.conversion = policy, Conversion(policy)
        self.geometry: GeometryInterpreter | None = None
        self.windows: dict[str, Window] = {}
        self.learned: dict[tuple[str, int], str] = {}
        self.values: list[tuple[Tensor, Tensor]] = []
        self.carried: dict[str, nn.Module] = {}
        self.meta_copy = copy_to_meta(model).eval()
        adapt_tokens(self.meta_copy, policy, self.conversion)
        self.graphs = trace(self.meta_copy, example, opaque)
        if isinstance(self.meta_copy, fx.GraphModule):
            # a copy of a GraphModule keeps only what its own graph names
            plain = nn.Module()
            plain.__dict__.update({k: v for k, v in self.meta_copy.__dict__.items() if k not in ("_graph", "forward")})
            self.meta_copy = plain
        # added afterwards, or a Sequential would run it
        self.meta_copy.policy_layers = nn.ModuleDict()
        self._register_constants()
        self.meta_copy.eval()

    @property
    def distinct_graphs(self) -> list[NetworkGraph]:
        """The graphs; one where training and evaluation do not differ."""
        return list({id(graph): graph for graph in self.graphs.values()}.values())

    def _register_constants(self) -> None:
        """Makes buffers of the tensors that the network makes in its forward pass."""
        holder = nn.Module()
        for graph in self.distinct_graphs:
            for target, value in graph.constants.items():
                name = f"tensor_{len(holder._buffers)}"
                holder.register_buffer(name, value, persistent=False)
                for node in graph.find_nodes(op="get_attr", target=target):
                    node.target = f"policy_layers.constants.{name}"
            graph.constants.clear()
        if holder._buffers:
            cast(nn.ModuleDict, self.meta_copy.policy_layers)["constants"] = holder

    def raise_refused(self) -> None:
        """Raises PartialError for layers that a policy could not be put on, unless that was allowed."""
        notes = [f"{note.layer}: {note.text}" for note in self.conversion.partial]
        if not notes or self.policy.partial:
            return
        allow = "partial=True converts the other layers"
        if len(notes) == 1:
            raise PartialError(f"layer {notes[0]}; {allow}")
        more = f"; and {len(notes) - 4} more" if len(notes) > 4 else ""
        raise PartialError(f"{len(notes)} layers cannot take {self.policy}: {'; '.join(notes[:4])}{more}; {allow}")

    def put_layer(self, path: str, layer: nn.Module) -> None:
        """Puts a layer in the place of another."""
        parent, _, name = path.rpartition(".")
        setattr(self.meta_copy.get_submodule(parent), name, layer)

    def add_layer(self, name: str, layer: nn.Module) -> str:
        """Adds a layer; returns its path."""
        layers = cast(nn.ModuleDict, self.meta_copy.policy_layers)
        key = base = name.replace(".", "_")
        number = 1
        while key in layers:
            number += 1
            key = f"{base}_{number}"
        layers[key] = self._without_values(layer) if next(layer.parameters(), None) is not None else layer
        return f"policy_layers.{key}"

    def _without_values(self, layer: nn.Module) -> nn.Module:
        """Returns a layer with weights, in the precision of the network's, as a copy that has shapes but no values."""
        dtypes = (p.dtype for p in self.meta_copy.parameters() if p.is_floating_point())
        dtype = next(dtypes, torch.get_default_dtype())
        for parameter in layer.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)
        copy = copy_to_meta(layer)
        self.values += zip((*copy.parameters(), *copy.buffers()), (*layer.parameters(), *layer.buffers()), strict=True)
        return copy


class GraphEdit:
    """One graph of a network that is being changed; its geometry is always known up to the current node.

    Args:
        network: Network that the graph is of.
        original: Geometry of the graph before any change.
        example: Images (N, C, *spatial) on the meta device.

    Attributes:
        report: Takes notes of what is done.
        geometry: Geometry of the graph, as far as the graph is changed.
        axes: Spatial axes that the policies treat.
        padding_mode: What convolutions are padded with.
        pads: Whether the policy sets the padding of convolutions.
        full: Whether that padding is full.
        absorbed: Padding (left, right) on each axis that was a step of its own, by the layer that it was left to.
    """

    def __init__(self, network: NetworkEdit, original: GeometryInterpreter, example: Tensor) -> None:
        self.network, self.policy, self.report = network, network.policy, network.conversion
        self.original, self.graph = original, original.graph
        self.geometry = GeometryInterpreter(self.graph, network.meta_copy, example)
        self.axes = self.policy.treated_axes(self.geometry.axes)
        padding = self.policy.padding
        self.padding_mode = padding.layer_mode(self.axes, self.geometry.axes)
        self.pads, self.full = padding.amount != "keep", padding.amount == "full"
        self.absorbed: dict[fx.Node, list[tuple[int, int]]] = {}
        self._grids_before: dict[fx.Node, dict[int, AxisGrid]] = {}
        self._learned: Counter[str] = Counter()

    def grid_before(self, node: fx.Node) -> dict[int, AxisGrid]:
        """Returns where a node's map was before the policies, by axis of the image."""
        if node not in self._grids_before:
            self._grids_before[node] = self.original.grid_by_axis(node)
        return self._grids_before[node]

    def register_inserted(self, node: fx.Node, source: fx.Node, name: str) -> fx.Node:
        """Takes note of a new node, whose map was where another's was before the policies; returns it."""
        self._grids_before[node] = self.grid_before(source)
        self.graph.layer_names[node] = name
        return node

    def call_layer(self, node: fx.Node, layer: nn.Module, name: str) -> None:
        """Makes a node call a new layer."""
        node.op, node.target = "call_module", self.add_layer(name, layer)
        node.args, node.kwargs = (node.all_input_nodes[0],), {}

    def add_layer(self, name: str, layer: nn.Module) -> str:
        """Adds a layer, or takes the one with weights that the graph before added there; returns its path."""
        if next(layer.parameters(), None) is None:
            return self.network.add_layer(name, layer)
        self._learned[name] += 1
        key = (name, self._learned[name])
        if key not in self.network.learned:
            self.network.learned[key] = self.network.add_layer(name, layer)
        return self.network.learned[key]


class GraphJob:
    """Base of what changes nodes of one graph.

    Args:
        edit: The graph that is being changed.
    """

    def __init__(self, edit: GraphEdit) -> None:
        self.edit, self.network, self.policy, self.report = edit, edit.network, edit.policy, edit.report
        self.graph, self.original, self.geometry = edit.graph, edit.original, edit.geometry
