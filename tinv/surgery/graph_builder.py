"""Changes one graph: puts a padding and a subsampling policy on its layers, in the order in which they run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, fx, nn

from tinv.graph import functions
from tinv.graph.geometry import Walk
from tinv.graph.operations import Operation
from tinv.graph.places import Place
from tinv.graph.tracing import is_geometric, is_in_place, layer_of
from tinv.graph.windows import sizes_text
from tinv.nn.padding import Content, fit, flat, pad
from tinv.nn.pooling import Pool
from tinv.nn.subsampling import AdaptivePolyphase, Subsampler
from tinv.surgery.alignment import Aligner
from tinv.surgery.background import add_background
from tinv.surgery.explicit_padding import fold_pads
from tinv.surgery.strides import Strides
from tinv.surgery.windows import Windows

if TYPE_CHECKING:
    from tinv.surgery.builder import Builder


class GraphBuilder:
    """Changes one graph, node by node; its geometry is always known up to the current node."""

    def __init__(self, builder: Builder, original: Walk, example: Tensor) -> None:
        self.builder, self.policy, self.twin = builder, builder.policy, builder.twin
        self.original, self.graph = original, original.graph
        self.walk = Walk(self.graph, self.twin, example)
        self.axes = self.policy.treated_axes(self.walk.axes)
        self.content: Content = self.policy.padding.mode
        self.full = self.policy.padding.amount == "full"
        self.pads = self.policy.padding.amount != "keep"
        self.origins: dict[fx.Node, dict[int, Place]] = {}
        self.strides, self.windows = Strides(self), Windows(self)
        # padding of a step of its own, by the layer that it was left to
        self.folded: dict[fx.Node, list[tuple[int, int]]] = {}
        self.concatenations: dict[tuple[Any, ...], fx.Node] = {}
        self.done: set[fx.Node] = set()
        self.aligner = Aligner(
            self.walk, self.origin, self.content, self.policy.padding.amount == "valid", builder.leave, self.adopt
        )

    def origin(self, node: fx.Node) -> dict[int, Place]:
        """Returns where a node's map was before the policy."""
        if node not in self.origins:
            self.origins[node] = self.original.on_axes(node)
        return self.origins[node]

    def walk_original_again(self, node: fx.Node) -> None:
        """Runs a changed node of the unconverted graph again."""
        self.original.step(node)

    def adopt(self, node: fx.Node, source: fx.Node) -> None:
        """Takes note of a new node, whose map has the original place of another's."""
        self.origins[node] = self.origin(source)

    def build(self) -> None:
        if self.pads:
            fold_pads(self)
        node = next(iter(self.graph.nodes))
        while node.op != "root":
            following = self.visit(node)
            node = following or node.next
        if self.content == "background":
            needs = [n for n in self.graph.nodes if self.fills_border(n)]
            add_background(self.walk, self.axes, needs)
        self.twin.eval()

    def visit(self, node: fx.Node) -> fx.Node | None:
        """Changes and runs a node; returns the node to visit next, if it is not the one behind it."""
        op = self.original.operations.get(node)
        if op is None or node in self.done:
            # one of ours, or changed already before what was put in front of it
            self.walk.step(node)
            if isinstance(self.walk.operations[node].module, AdaptivePolyphase):
                return self.strides.share_choice(node)
            return None
        if op.kind in ("conv", "max", "average", "blur") and op.inputs:
            self.done.add(node)
            first = self.windows.window(node, op)
            if first is not None:
                return first
        elif op.kind in ("merge", "concatenate", "stack"):
            if op.kind == "concatenate":
                self.running_concatenation(node)
            if self.aligner.align(node, node.all_input_nodes):
                self.builder.changed(layer_of(node), "branches aligned", "branches aligned")
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
        self.walk.step(node)
        return None

    def refuse_unknown(self, node: fx.Node, op: Operation) -> None:
        """Refuses windows that tinv cannot change."""
        if not any(map(self.original.spatial, op.inputs)):
            return
        pads, strides = self.pads, self.policy.subsampling.treats_strides
        if op.kind == "transposed" and pads:
            self.builder.refuse(layer_of(node), f"{op.name}, whose blocks overlap, cannot take {self.policy}")
        elif op.kind == "patches" and (pads or strides) and not self.is_single_pixel(op):
            self.builder.refuse(layer_of(node), "it takes patches of the map")
        elif op.kind == "opaque" and self.has_window(op) and (pads or strides):
            self.builder.refuse(layer_of(node), f"{op.name} cannot take {self.policy}")

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
        self.builder.changed(layer_of(node), f"resized by {by}, not to a size", "windows changed")

    def call_layer(self, node: fx.Node, layer: nn.Module, name: str) -> None:
        """Makes a node call a new layer."""
        node.op, node.target = "call_module", self.add_layer(name, layer)
        node.args, node.kwargs = (node.all_input_nodes[0],), {}

    def put_layer(self, path: str, layer: nn.Module) -> None:
        """Puts a layer in the place of another."""
        set_module(self.twin, path, layer)

    def add_layer(self, name: str, layer: nn.Module) -> str:
        layers = cast(nn.ModuleDict, self.twin.policy_layers)
        key = base = name.replace(".", "_")
        number = 1
        while key in layers:
            number += 1
            key = f"{base}_{number}"
        layers[key] = layer
        return f"policy_layers.{key}"

    # merges

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
                if earlier is not None and not any(is_in_place(user, self.twin) for user in earlier.users):
                    node.args = ([earlier, *parts[length:]], *node.args[1:])
                    break
        self.concatenations[(parts, rest)] = node

    # borders

    def fills_border(self, node: fx.Node) -> bool:
        """Returns whether a node fills a border with the background."""
        if node.op == "call_function" and node.target in (pad, fit):
            return "background" in node.args
        module = self.walk.operations[node].module if node in self.walk.operations else None
        if isinstance(module, Pool):
            window = self.walk.operations[node].window
            assert window is not None
            return module.padding_content == "background" and (module.ceil_mode or any(flat(window.amounts or ())))
        return isinstance(module, Subsampler) and module.padding_content == "background"


def set_module(network: nn.Module, path: str, module: nn.Module) -> None:
    """Puts a layer in the place of another."""
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)
