"""Puts the policies on the layers of a network, in the order in which they run: the loop over the jobs of one layer."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor, fx, nn

from tinv.errors import LayerError
from tinv.graph import functions
from tinv.graph.converted import geometry_of
from tinv.graph.decisions import DecisionError, same_decision
from tinv.graph.geometry import GeometryInterpreter, RunError
from tinv.graph.network_graph import is_in_place, layer_name
from tinv.graph.operations import Operation
from tinv.graph.tracing import is_geometric
from tinv.graph.windows import sizes_text
from tinv.nn.pad_widths import needs_background
from tinv.nn.padding import pad, pad_or_crop_like
from tinv.nn.pooling import Pool
from tinv.nn.subsampling import Subsampler
from tinv.policies.conversion import ConversionPolicy
from tinv.surgery.activations import Activations
from tinv.surgery.alignment import Aligner
from tinv.surgery.anchor import anchor_input
from tinv.surgery.background import add_background
from tinv.surgery.edit import GraphEdit, GraphJob, NetworkEdit
from tinv.surgery.explicit_padding import absorb_explicit_padding
from tinv.surgery.sizes import Sizes
from tinv.surgery.strides import Strides
from tinv.surgery.tokens import check_token_sizes
from tinv.surgery.windows import Windows


def rewrite(model: nn.Module, policy: ConversionPolicy, example: Tensor) -> NetworkEdit:
    """Puts policies on a copy of a network that has shapes but no values.

    Args:
        model: The network; it is left as it is.
        policy: All policies together.
        example: Images (N, C, *spatial) on the meta device.

    Returns:
        The changed copy, whose `conversion` says what was done.

    Raises:
        LayerError: Naming a layer that cannot be traced, cannot run on its map, or cannot take a policy.
    """
    opaque: set[str] = set()
    while True:
        try:
            return _rewritten(model, policy, example, opaque)
        except LayerError as error:
            # what holds nothing that a policy changes can do as it likes at the size that the policy gives it
            layer = _deciding_layer(error)
            if layer in opaque or not layer or any(map(is_geometric, model.get_submodule(layer).modules())):
                raise
            opaque.add(layer)


def _deciding_layer(error: BaseException | None) -> str:
    """Returns the layer whose control flow depends on a size that a policy changes; empty if that is not the error."""
    while error is not None and not isinstance(error, DecisionError):
        error = error.__cause__
    return "" if error is None or error.layer == "the network" else error.layer


def _rewritten(model: nn.Module, policy: ConversionPolicy, example: Tensor, opaque: Collection[str]) -> NetworkEdit:
    network = NetworkEdit(model, policy, example, opaque)
    check_token_sizes(network.meta_copy, policy, example.shape[2:])
    # every graph is seen before any layer is changed
    meta_copy, graphs = network.meta_copy, network.distinct_graphs
    run = [GeometryInterpreter(graph, meta_copy, example, count=True).run() for graph in graphs]
    evaluation, conversion = network.graphs[False], network.conversion
    conversion.size = tuple(example.shape[2:])
    conversion.before = next(geometry.cost for geometry in run if geometry.graph is evaluation)
    if policy.tokens.adapts_layers:
        # the layers of these graphs are the new ones
        conversion.before = geometry_of(model, example, count=True).cost
    for original in run:
        _rewrite_graph(network, original, example)
    for graph in graphs:
        anchor_input(network, graph)
    network.raise_refused()
    for graph in graphs:
        graph.lint()
    network.geometry = GeometryInterpreter(evaluation, meta_copy, example, count=True).run()
    conversion.after = network.geometry.cost
    _check_batch(network, example)
    return network


def _check_batch(network: NetworkEdit, example: Tensor) -> None:
    """Raises LayerError if control flow depends on how many images a batch has."""
    if not any(node.target is same_decision for graph in network.distinct_graphs for node in graph.nodes):
        return
    larger = example.new_empty(len(example) + 1, *example.shape[1:])
    for graph in network.distinct_graphs:
        try:
            GeometryInterpreter(graph, network.meta_copy, larger).run()
        except RunError as error:
            if not isinstance(error.__cause__, DecisionError):
                raise
            raise LayerError(
                f"layer {error.__cause__.layer}: its control flow depends on the number of images in a batch, so that "
                "a converted network could take one number alone"
            ) from error


def _rewrite_graph(network: NetworkEdit, original: GeometryInterpreter, example: Tensor) -> None:
    try:
        GraphRewriter(GraphEdit(network, original, example)).run()
    except LayerError as error:
        padding = network.policy.padding
        if network.policy.partial:
            raise
        # what cannot be converted at all says more than what follows from it
        network.raise_refused()
        if isinstance(error.__cause__, DecisionError):
            raise LayerError(
                f"layer {error.__cause__.layer}: its control flow depends on the size of its map, which "
                f"{network.policy} changes; a policy that keeps the size of maps, as same_circular does, can take it"
            ) from error
        if not isinstance(error, RunError) or padding.amount != "full":
            raise
        raise LayerError(
            f"{error}; padding={padding} changes the size of maps, which a layer with a fixed number of positions "
            "cannot take; same_circular and its like keep it, and tokens=anchor and tokens=a_token make vision "
            "transformers invariant at their own size"
        ) from error


class GraphRewriter(GraphJob):
    """Changes one graph, node by node.

    Args:
        edit: The graph that is being changed.
    """

    def __init__(self, edit: GraphEdit) -> None:
        super().__init__(edit)
        self.strides = Strides(edit)
        self.windows, self.aligner = Windows(edit, self.strides), Aligner(edit)
        self.activations, self.sizes = Activations(edit), Sizes(edit)
        self.concatenations: dict[tuple[Any, ...], fx.Node] = {}
        self.done: set[fx.Node] = set()

    def run(self) -> None:
        """Changes all nodes."""
        edit = self.edit
        if edit.pads:
            absorb_explicit_padding(edit)
        node = next(iter(edit.graph.nodes))
        while node.op != "root":
            following = self.visit(node)
            node = following or node.next
        if needs_background(edit.padding_mode):
            add_background(self.geometry, edit.axes, [n for n in edit.graph.nodes if self.fills_border(n)])
        edit.network.meta_copy.eval()

    def visit(self, node: fx.Node) -> fx.Node | None:
        """Changes and runs a node; returns the node to visit next, if it is not the one behind it."""
        op = self.original.operations.get(node)
        if op is None or node in self.done:
            # one of ours, or changed already before what was put in front of it
            if self.strides.chooses(node):
                return self.strides.share_choice(node)
            self.geometry.step(node)
            self.strides.check_size(node)
            return None
        self.sizes.follow(node, op)
        if op.kind in ("conv", "max", "average", "blur") and op.inputs and not self.returns_indices(node):
            self.done.add(node)
            first = self.windows.window(node, op)
            if first is not None:
                return first
        elif op.kind in ("merge", "concatenate", "stack"):
            if op.kind == "concatenate":
                self.running_concatenation(node)
            if self.aligner.align(node, node.all_input_nodes):
                self.report.change(layer_name(node), "branches aligned", "branches aligned")
        elif (
            op.kind == "item" and len(op.args) > 1 and not isinstance(self.original.values[op.inputs[0]], (tuple, list))
        ):
            added = self.strides.slice(node, op)
            if added is not None:
                return added
        elif op.kind == "resize":
            self.keep_factor(node, op)
        else:
            self.refuse_unknown(node, op)
            self.activations.visit(node, op)
        self.geometry.step(node)
        return None

    def refuse_unknown(self, node: fx.Node, op: Operation) -> None:
        """Refuses windows that tinv cannot change."""
        if not any(map(self.original.has_positions, op.inputs)):
            return
        pads, strides = self.edit.pads, self.policy.subsampling.treats_strides
        if op.kind == "transposed" and pads:
            self.report.refuse(layer_name(node), f"{op.name}, whose blocks overlap, cannot take {self.policy}")
        elif op.kind == "patches" and (pads or strides) and not self.is_single_pixel(op):
            self.report.refuse(layer_name(node), "it takes patches of the map")
        elif self.returns_indices(node) and (pads or strides):
            self.report.refuse(layer_name(node), "it returns where its maxima lie")
        elif op.kind == "opaque" and self.has_window(op) and (pads or strides):
            self.report.refuse(layer_name(node), f"{op.name} cannot take {self.policy}")

    def returns_indices(self, node: fx.Node) -> bool:
        """Returns whether a node is a maximum pool that says where its maxima lie, which holds for its grid alone."""
        return self.original.operations[node].kind == "max" and isinstance(self.original.values[node], tuple)

    @staticmethod
    def is_single_pixel(op: Operation) -> bool:
        """Returns whether each patch is a pixel."""
        if op.window is None:
            return bool(op.argument(2, "size") == 1)
        return all(op.window.is_trivial(axis) for axis in range(len(op.window.kernel)))

    @staticmethod
    def has_window(op: Operation) -> bool:
        """Returns whether a layer that is not known slides a window: a module or function of that kind, a script."""
        if op.module is None:
            # "forward" is the call of a scripted module
            return op.name in functions.UNKNOWN_WINDOWS or op.name == "forward"
        return is_geometric(op.module)

    def keep_factor(self, node: fx.Node, op: Operation) -> None:
        """Makes a resize to a size of a network that the policy made larger one by the same factor."""
        source, size = op.inputs[0], op.argument(1, "size")
        before, after = self.original.values[source].shape[2:], self.original.values[node].shape[2:]
        whole = all(b > 0 and a % b == 0 for a, b in zip(after, before, strict=True))
        if op.module is not None or size is None or not whole or not self.policy.padding.resizes:
            return
        factor = [float(a // b) for a, b in zip(after, before, strict=True)]
        kept = {key: value for key, value in node.kwargs.items() if key not in ("size", "scale_factor")}
        for position, key in ((3, "mode"), (4, "align_corners")):
            if op.argument(position, key) is not None:
                kept[key] = op.argument(position, key)
        node.args, node.kwargs = (source,), {**kept, "scale_factor": factor}
        by = sizes_text([int(f) for f in factor])
        self.report.change(layer_name(node), f"resized by {by}, not to a size", "kernels re-padded")

    def running_concatenation(self, node: fx.Node) -> None:
        """Builds a concatenation on an earlier one that holds its beginning.

        DenseNets concatenate all earlier maps in every layer. Where each of them has to be padded, one padded map is
        as good as many.
        """
        if not isinstance(node.args[0], (list, tuple)):
            return
        parts = tuple(node.args[0])
        rest = (node.target, *node.args[1:], *node.kwargs.items())
        if self.policy.padding.resizes:
            for length in range(len(parts) - 1, 0, -1):
                earlier = self.concatenations.get((parts[:length], rest))
                if earlier is not None and not any(is_in_place(user, self.network.meta_copy) for user in earlier.users):
                    node.args = ([earlier, *parts[length:]], *node.args[1:])
                    break
        self.concatenations[(parts, rest)] = node

    def fills_border(self, node: fx.Node) -> bool:
        """Returns whether a node fills a border with the background."""
        if node.op == "call_function" and node.target in (pad, pad_or_crop_like):
            return any(isinstance(mode, str) and needs_background(mode) for mode in node.args)
        op = self.geometry.operations.get(node)
        if op is None or not isinstance(op.module, (Pool, Subsampler)) or not needs_background(op.module.padding_mode):
            return False
        return isinstance(op.module, Subsampler) or op.module.ceil_mode or bool(op.window and op.window.is_padded)
