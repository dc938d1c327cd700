"""Changes one graph: puts a padding and a subsampling policy on its layers, in the order in which they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from tinv.errors import LayerError
from tinv.graph import functions
from tinv.graph.geometry import Walk
from tinv.graph.operations import Operation
from tinv.graph.places import Lost, Place, Places, holds_positions
from tinv.graph.tracing import is_geometric, is_in_place, layer_of
from tinv.graph.windows import Window, padding_text, set_conv, sizes_text
from tinv.nn.padding import Content, fit, flat, pad, padding_amounts, padding_content
from tinv.nn.pooling import Pool
from tinv.nn.subsampling import AdaptivePolyphase, BlurPool
from tinv.policies.cards import Padding
from tinv.policies.settings import policy_axes
from tinv.surgery.alignment import Aligner
from tinv.surgery.background import add_background
from tinv.surgery.explicit_padding import fold_pads
from tinv.surgery.strides import Strides

if TYPE_CHECKING:
    from tinv.surgery.builder import Builder


class GraphBuilder:
    """Changes one graph, node by node, with a walk that is always complete up to the node at hand."""

    def __init__(self, builder: Builder, original: Walk, example: Tensor) -> None:
        self.builder, self.settings, self.twin = builder, builder.settings, builder.twin
        self.original, self.graph = original, original.graph
        self.walk = Walk(self.graph, self.twin, example)
        self.axes = policy_axes(self.settings, self.walk.axes)
        self.content: Content = padding_content(self.settings.padding)
        self.full = self.settings.padding.startswith("full_")
        self.origins: dict[fx.Node, dict[int, Place]] = {}
        self.strides = Strides(self)
        # padding of a step of its own, by the layer that it was left to
        self.folded: dict[fx.Node, list[tuple[int, int]]] = {}
        self.concatenations: dict[tuple[Any, ...], fx.Node] = {}
        self.stem: fx.Node | None = None
        self.done: set[fx.Node] = set()
        self.aligner = Aligner(
            self.walk, self.origin, self.content, self.settings.padding == "valid", builder.leave, self.adopt
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
        if self.settings.padding != "keep":
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
        """Changes and runs a node; returns the node to go on with, if it is not the next one."""
        op = self.original.operations.get(node)
        if op is None or node in self.done:
            # one of ours, or changed already before what was put in front of it
            self.walk.step(node)
            if isinstance(self.walk.operations[node].module, AdaptivePolyphase):
                return self.strides.share_choice(node)
            return None
        if op.kind in ("conv", "max", "average", "blur") and op.inputs:
            self.done.add(node)
            first = self.window(node, op)
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
        pads, strides = self.settings.padding != "keep", self.settings.subsampling != "keep"
        if op.kind == "transposed" and pads:
            self.builder.refuse(layer_of(node), f"{op.name}, whose blocks overlap, cannot take {self.settings}")
        elif op.kind == "patches" and (pads or strides) and not self.is_single_pixel(op):
            self.builder.refuse(layer_of(node), "it takes patches of the map")
        elif op.kind == "opaque" and self.has_window(op) and (pads or strides):
            self.builder.refuse(layer_of(node), f"{op.name} cannot take {self.settings}")

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
        if (
            op.module is not None
            or size is None
            or not whole
            or not self.settings.padding.startswith(("full_", "valid"))
        ):
            return
        factor = [float(a // b) for a, b in zip(after, before, strict=True)]
        kept = {key: value for key, value in node.kwargs.items() if key not in ("size", "scale_factor")}
        for position, key in ((3, "mode"), (4, "align_corners")):
            if op.argument(position, key) is not None:
                kept[key] = op.argument(position, key)
        node.args, node.kwargs = (source,), {**kept, "scale_factor": factor}
        by = sizes_text([int(f) for f in factor])
        self.builder.changed(layer_of(node), f"resized by {by}, not to a size", "windows changed")

    # windows

    def window(self, node: fx.Node, op: Operation) -> fx.Node | None:
        """Puts the policies onto a convolution, pool or blur; returns a new node that has to be run before it."""
        source, window, layer = node.all_input_nodes[0], op.window, layer_of(node)
        assert window is not None
        if op.kind == "conv" and self.stem is None:
            self.stem = source
        touched = {a for a in range(len(window.kernel)) if window.kernel[a] > 1 or window.stride[a] > 1}
        axes = self.sliding_axes(node, op, window, touched)
        if axes is None:
            self.stays(node, op, window)
            return None
        places = self.walk.on_axes(source)
        subsampled = tuple(
            s if axis in axes and self.settings.subsampling != "keep" else 1 for axis, s in enumerate(window.stride)
        )
        # parallel branches of a stem keep their strides together
        first_conv = op.kind == "conv" and self.stem is source
        if first_conv and self.settings.stem == "keep" and any(s > 1 for s in subsampled):
            subsampled = (1,) * len(subsampled)
            self.builder.leave(layer, "the stride of the first convolution, by stem=keep")
        if op.kind == "blur":
            return self.strides.blur(node, window, layer)
        dense = self.settings.subsampling == "dense"
        new = replace(
            window,
            stride=tuple(1 if t > 1 else s for s, t in zip(window.stride, subsampled, strict=True)),
            dilation=tuple(
                d * self.factor(source, places[axis], axis) if dense and axis in places else d
                for axis, d in enumerate(window.dilation)
            ),
            content=self.fill(op, window),
        )
        new = replace(new, amounts=self.amounts(node, op, new, subsampled, axes))
        if new.amounts is not None and not any(flat(new.amounts)) and not new.ceil_mode:
            # nothing is filled, whatever it would be filled with
            new = replace(new, content=window.content)
        if op.kind != "conv" and self.settings.pool != "keep":
            new = replace(new, counts_padding=self.settings.pool == "full", ceil_mode=False)
        elif window.ceil_mode and any(t > 1 for t in subsampled):
            # what ceil_mode adds is never counted
            counts = window.counts_padding and any(flat(window.amounts or ()))
            new = replace(new, ceil_mode=False, counts_padding=counts)
        pointwise = all(k == 1 for k in window.kernel)
        before: fx.Node | None = None
        if any(t > 1 for t in subsampled):
            before = self.strides.replace(node, op, subsampled, layer, pointwise)
        if new == window:
            self.stays(node, op, window)
        else:
            padded = self.edit(node, op, new, layer, axes)
            if before is None:
                before = padded
        return before

    def fill(self, op: Operation, window: Window) -> Content:
        """Returns what the padding of a layer holds."""
        if self.settings.padding == "keep":
            return window.content
        if op.kind == "conv" or self.settings.pool != "keep" or self.content in ("circular", "background"):
            return self.content
        return window.content

    def amounts(self, node: fx.Node, op: Operation, new: Window, subsampled: Sequence[int], axes: Sequence[int]) -> Any:
        """Returns the padding of a layer whose stride and dilation are known; None where its size decides."""
        amounts: list[tuple[int, int]] = []
        old = op.window
        assert old is not None
        if op.kind == "conv":
            policy = self.settings.padding
        elif self.settings.pool == "keep":
            policy = "keep"
        else:
            # the amounts of a policy are the first half of its name
            policy = cast(Padding, {"valid": "valid", "same": "same_zero", "full": "full_zero"}[self.settings.pool])
        folded = self.folded.get(node) if op.kind != "conv" else None
        for axis in range(len(old.kernel)):
            kernel, dilation = old.kernel[axis], new.dilation[axis]
            if axis in axes and policy != "keep":
                [pair] = padding_amounts(policy, [kernel], [dilation])
            elif old.amounts is not None:
                factor = dilation // old.dilation[axis]
                left, right = old.amounts[axis]
                pair = (left * factor, right * factor)
            elif new.stride == old.stride and new.dilation == old.dilation and new.content == old.content:
                return None
            elif new.stride == old.stride:
                pair = old.padding(axis, self.original.on_axes(op.inputs[0])[axis].size)
            else:
                [pair] = padding_amounts("same_zero", [kernel], [dilation])
            if folded and policy == "keep":
                pair = (pair[0] + folded[axis][0], pair[1] + folded[axis][1])
            reach = dilation * (kernel - 1)
            if new.content == "circular" and subsampled[axis] > 1 and op.kind != "conv":
                # a dense pool of a ring has as many cells as the ring
                pair = (pair[0], max(pair[1], reach - pair[0]))
            elif old.ceil_mode and subsampled[axis] > 1:
                # the last window of ceil_mode, of which only the beginning lies on the map
                pair = (pair[0], min(pair[1] + subsampled[axis] - 1, max(pair[1], reach)))
            amounts.append(pair)
        return tuple(amounts)

    def edit(self, node: fx.Node, op: Operation, new: Window, layer: str, axes: Sequence[int]) -> fx.Node | None:
        """Changes a layer to a window; returns the node that pads its input, if one was needed."""
        old = op.window
        assert old is not None
        said = []
        if new.stride != old.stride:
            said.append(f"stride {sizes_text(old.stride)} -> {sizes_text(new.stride)}")
        if new.dilation != old.dilation:
            said.append(f"dilation {sizes_text(old.dilation)} -> {sizes_text(new.dilation)}")
        if new.amounts != old.amounts or new.content != old.content:
            said.append(f"padding {padding_text(old)} -> {padding_text(new)}")
        padded = [
            axis
            for axis in axes
            if self.settings.padding != "keep"
            and op.kind == "conv"
            and (old.kernel[axis] > 1 or new.amounts != old.amounts)
        ]
        if said:
            self.builder.changed(layer, ", ".join(said), "convolutions padded" if padded else "windows changed")
        if op.kind != "conv":
            self.replace_pool(node, op, new)
            return None
        assert new.amounts is not None
        inside = new.content == "zero" and all(left == right for left, right in new.amounts)
        outside = [(0, 0) if inside or axis not in axes else pair for axis, pair in enumerate(new.amounts)]
        kept = [pair[0] if inside or axis not in axes else 0 for axis, pair in enumerate(new.amounts)]
        if op.module is None:
            node.args = node.args[:2] if len(node.args) < 3 else node.args[:3]
            bias = {"bias": node.kwargs["bias"]} if "bias" in node.kwargs else {}
            groups = op.argument(6, "groups", 1)
            how = {"stride": new.stride, "padding": tuple(kept), "dilation": new.dilation, "groups": groups}
            node.kwargs = {**bias, **how}
        else:
            self.once(str(node.target), new)
            set_conv(cast(_ConvNd, op.module), new, kept)
        if not any(left or right for left, right in outside):
            return None
        source = node.all_input_nodes[0]
        with self.graph.inserting_before(node):
            padded_map = self.graph.call_function(pad, (source, outside, new.content))
        padded_map.meta["layer"] = f"{layer} (padding)"
        self.adopt(padded_map, source)
        node.replace_input_with(source, padded_map)
        return padded_map

    def sliding_axes(self, node: fx.Node, op: Operation, window: Window, touched: set[int]) -> tuple[int, ...] | None:
        """Returns the axes that the policies treat in a layer; None where they treat none, or cannot."""
        layer, before = layer_of(node), op.inputs[0]
        places = self.original.places_of(before) if self.original.spatial(before) else ()
        slides = places[len(places) - len(window.kernel) :]
        if not any(holds_positions(entry) for axis, entry in enumerate(slides) if axis in touched):
            if touched:
                self.builder.leave(layer, "does not slide over the image's axes")
            # a layer of one pixel with no stride needs no policy, but for its padding
            return tuple(axis for axis in self.axes) if not touched and self.original.is_map(before) else None
        problem = self.problem(node, op, window, places)
        if problem and window.amounts is not None and not any(flat(window.amounts)):
            sizes = tuple(self.original.values[before].shape[-len(window.kernel) :])
            if sizes == window.kernel and not any(isinstance(entry, Place) for entry in slides):
                self.builder.leave(layer, "as large as its map, whose size is fixed: a fully connected layer")
                return None
        if problem:
            self.builder.refuse(layer, problem)
            return None
        return tuple(axis for axis in self.axes if isinstance(slides[axis], Place))

    def problem(self, node: fx.Node, op: Operation, window: Window, places: Places) -> str:
        """Returns why a layer cannot take the policies; empty if it can."""
        source, before, rank = node.all_input_nodes[0], op.inputs[0], self.walk.axes + 2
        here = self.walk.places.get(source)
        if len(window.kernel) != self.walk.axes or len(places) != rank or any(map(holds_positions, places[:2])):
            return "the positions of its input are not along its axes"
        for axis, entry in enumerate(places[2:]):
            now = here[axis + 2] if isinstance(here, tuple) else None
            if not holds_positions(entry):
                if window.kernel[axis] > 1 and any(window.padding(axis, self.original.values[before].shape[axis + 2])):
                    return "it pads an axis without positions"
            elif not isinstance(entry, Place) or not isinstance(now, Place):
                lost = self.lost_at(before)
                return f"the positions of its input are not known after {lost}" if lost else "its input has no order"
            elif entry.axis != axis:
                return "the positions of its input are not along its axes"
        here_on = self.walk.on_axes(source)
        if self.settings.subsampling == "dense" and not all(self.factor(source, p, a) for a, p in here_on.items()):
            return "its map was resized, so that no dilation stands for the strides before"
        if any(not isinstance(self.original.values[n], Tensor) for n in op.inputs):
            return "its window depends on the size of the map"
        return ""

    def factor(self, source: fx.Node, now: Place, axis: int) -> int:
        """Returns how often cells lie closer than before the policy; 0 where that is no integer."""
        ratio = self.origin(source)[axis].stride / now.stride
        return int(ratio) if ratio.denominator == 1 and ratio >= 1 else 0

    def lost_at(self, source: fx.Node) -> str:
        """Returns the layer at which the positions of a map were lost."""
        stack, seen = [source], set()
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            op = self.original.operations[node]
            lost = [n for n in op.inputs if any(isinstance(e, Lost) for e in self.original.places.get(n) or ())]
            if lost:
                stack += lost
            elif self.original.spatial(node):
                return f"{layer_of(node)} ({op.name})"
        return ""

    def stays(self, node: fx.Node, op: Operation, window: Window) -> None:
        """Takes note of a layer that is not changed, as another run of it must not change it either."""
        if op.kind == "conv" and op.module is not None:
            self.once(str(node.target), window)

    def once(self, path: str, window: Window) -> None:
        """Checks that a layer that runs several times is to be changed in one way."""
        if self.builder.edited.setdefault(path, window) != window:
            raise LayerError(f"layer {path} runs several times, and the policies want it different each time")

    def replace_pool(self, node: fx.Node, op: Operation, new: Window) -> None:
        """Puts a `Pool` where a pool was."""
        kind: Any = op.kind
        policy = cast(Padding, f"same_{new.content}")
        layer = Pool(
            kind,
            list(new.kernel),
            list(new.stride),
            policy,
            list(new.dilation),
            amounts=[(int(left), int(right)) for left, right in new.amounts or ()],
            ceil_mode=new.ceil_mode,
            count_padding=new.counts_padding,
        )
        runs = {n for g in self.builder.graphs.values() for n in g.nodes if n.target == node.target}
        alone = len(runs) <= len({id(g) for g in self.builder.graphs.values()})
        if op.module is not None and alone and self.builder.edited.get(str(node.target), new) == new:
            self.builder.edited[str(node.target)] = new
            _set_module(self.twin, str(node.target), layer)
        else:
            self.call_layer(node, layer, layer_of(node))
        if node.op == "call_module":
            node.args, node.kwargs = (node.all_input_nodes[0],), {}

    def call_layer(self, node: fx.Node, layer: nn.Module, name: str) -> None:
        """Makes a node call a new layer."""
        node.op, node.target = "call_module", self.add_layer(name, layer)
        node.args, node.kwargs = (node.all_input_nodes[0],), {}

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
        if self.settings.padding.startswith(("full", "valid")):
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
            return module.padding_content == "background" and (module.ceil_mode or any(flat(module.amounts or ())))
        return isinstance(module, (BlurPool, AdaptivePolyphase)) and module.padding_content == "background"


def _set_module(network: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)
