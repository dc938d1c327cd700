"""Puts the policies onto one layer with a window: its stride, its dilation, and how its border is padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, fx
from torch.nn.modules.conv import _ConvNd

from tinv.errors import LayerError
from tinv.graph.operations import Operation
from tinv.graph.places import Lost, Place, Places, holds_positions
from tinv.graph.tracing import layer_of
from tinv.graph.windows import Window, padding_text, plain_conv, set_conv, sizes_text
from tinv.nn.padding import Content, flat, pad, same_widths
from tinv.nn.pooling import Pool
from tinv.policies.padding import PaddingPolicy

if TYPE_CHECKING:
    from tinv.surgery.graph_builder import GraphBuilder


class Windows:
    """Changes the layers of one graph that slide a window.

    Args:
        graph_builder: changes the graph.
    """

    def __init__(self, graph_builder: GraphBuilder) -> None:
        self.g = graph_builder
        self.stem: fx.Node | None = None

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
        places = self.g.walk.on_axes(source)
        subsampled = tuple(
            s if axis in axes and self.g.policy.subsampling.treats_strides else 1
            for axis, s in enumerate(window.stride)
        )
        # parallel branches of a stem keep their strides together
        first_conv = op.kind == "conv" and self.stem is source
        if first_conv and self.g.policy.stem == "keep" and any(s > 1 for s in subsampled):
            subsampled = (1,) * len(subsampled)
            self.g.builder.leave(layer, "the stride of the first convolution, by stem=keep")
        if op.kind == "blur":
            return self.g.strides.blur(node, window, layer)
        dense = self.g.policy.subsampling.dilates
        new = replace(
            window,
            stride=tuple(1 if t > 1 else s for s, t in zip(window.stride, subsampled, strict=True)),
            dilation=tuple(
                # the distance between the taps of a window of one pixel means nothing
                d * self.factor(source, places[axis], axis)
                if dense and axis in places and window.kernel[axis] > 1
                else d
                for axis, d in enumerate(window.dilation)
            ),
            content=self.fill(op, window),
        )
        new = replace(new, amounts=self.amounts(node, op, new, subsampled, axes))
        if new.amounts is not None and not any(flat(new.amounts)) and not new.ceil_mode:
            # nothing is filled, whatever it would be filled with
            new = replace(new, content=window.content)
        if op.kind != "conv" and self.g.policy.pool != "keep":
            new = replace(new, counts_padding=self.g.policy.pool == "full", ceil_mode=False)
        elif window.ceil_mode and any(t > 1 for t in subsampled):
            # what ceil_mode adds is never counted
            counts = window.counts_padding and any(flat(window.amounts or ()))
            new = replace(new, ceil_mode=False, counts_padding=counts)
        pointwise = all(k == 1 for k in window.kernel)
        before: fx.Node | None = None
        if any(t > 1 for t in subsampled):
            before = self.g.strides.replace(node, op, subsampled, layer, pointwise)
        if new == window:
            self.stays(node, op, window)
        else:
            padded = self.edit(node, op, new, layer, axes)
            if before is None:
                before = padded
        return before

    def fill(self, op: Operation, window: Window) -> Content:
        """Returns what the padding of a layer holds."""
        if not self.g.pads:
            return window.content
        if op.kind == "conv" or self.g.policy.pool != "keep" or self.g.content in ("circular", "background"):
            return self.g.content
        return window.content

    def amounts(self, node: fx.Node, op: Operation, new: Window, subsampled: Sequence[int], axes: Sequence[int]) -> Any:
        """Returns the padding of a layer whose stride and dilation are known; None where its size decides."""
        amounts: list[tuple[int, int]] = []
        old = op.window
        assert old is not None
        policy = self.g.policy.padding if op.kind == "conv" else PaddingPolicy(self.g.policy.pool)
        keeps = policy.amount == "keep"
        folded = self.g.folded.get(node) if op.kind != "conv" else None
        for axis in range(len(old.kernel)):
            kernel, dilation = old.kernel[axis], new.dilation[axis]
            if axis in axes and not keeps:
                [pair] = policy.widths([kernel], [dilation])
            elif old.amounts is not None:
                factor = dilation // old.dilation[axis]
                left, right = old.amounts[axis]
                pair = (left * factor, right * factor)
            elif new.stride == old.stride and new.dilation == old.dilation and new.content == old.content:
                return None
            elif new.stride == old.stride:
                pair = old.padding(axis, self.g.original.on_axes(op.inputs[0])[axis].size)
            else:
                [pair] = same_widths([kernel], [dilation])
            if folded and keeps:
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
            if self.g.pads and op.kind == "conv" and (old.kernel[axis] > 1 or new.amounts != old.amounts)
        ]
        if said:
            self.g.builder.changed(layer, ", ".join(said), "convolutions padded" if padded else "windows changed")
        if op.kind != "conv":
            self.replace_pool(node, op, new)
            return None
        assert new.amounts is not None
        inside = new.content == "zeros" and all(left == right for left, right in new.amounts)
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
            conv = plain_conv(cast(_ConvNd, op.module))
            if conv is not op.module:
                self.g.put_layer(str(node.target), conv)
            set_conv(conv, new, kept)
        if not any(left or right for left, right in outside):
            return None
        source = node.all_input_nodes[0]
        with self.g.graph.inserting_before(node):
            padded_map = self.g.graph.call_function(pad, (source, outside, new.content))
        padded_map.meta["layer"] = f"{layer} (padding)"
        self.g.adopt(padded_map, source)
        node.replace_input_with(source, padded_map)
        return padded_map

    def sliding_axes(self, node: fx.Node, op: Operation, window: Window, touched: set[int]) -> tuple[int, ...] | None:
        """Returns the axes that the policies treat in a layer; None where they treat none, or cannot."""
        layer, before = layer_of(node), op.inputs[0]
        places = self.g.original.places_of(before) if self.g.original.spatial(before) else ()
        slides = places[len(places) - len(window.kernel) :]
        if not any(holds_positions(entry) for axis, entry in enumerate(slides) if axis in touched):
            if touched:
                self.g.builder.leave(layer, "does not slide over the image's axes")
            # a layer of one pixel with no stride needs no policy, but for its padding
            return tuple(axis for axis in self.g.axes) if not touched and self.g.original.is_map(before) else None
        problem = self.problem(node, op, window, places)
        if problem and window.amounts is not None and not any(flat(window.amounts)):
            sizes = tuple(self.g.original.values[before].shape[-len(window.kernel) :])
            if sizes == window.kernel and not any(isinstance(entry, Place) for entry in slides):
                self.g.builder.leave(layer, "as large as its map, whose size is fixed: a fully connected layer")
                return None
        if problem:
            self.g.builder.refuse(layer, problem)
            return None
        return tuple(axis for axis in self.g.axes if isinstance(slides[axis], Place))

    def problem(self, node: fx.Node, op: Operation, window: Window, places: Places) -> str:
        """Returns why a layer cannot take the policies; empty if it can."""
        source, before, rank = node.all_input_nodes[0], op.inputs[0], self.g.walk.axes + 2
        here = self.g.walk.places.get(source)
        if len(window.kernel) != self.g.walk.axes or len(places) != rank or any(map(holds_positions, places[:2])):
            return "the positions of its input are not along its axes"
        for axis, entry in enumerate(places[2:]):
            now = here[axis + 2] if isinstance(here, tuple) else None
            if not holds_positions(entry):
                if window.kernel[axis] > 1 and any(
                    window.padding(axis, self.g.original.values[before].shape[axis + 2])
                ):
                    return "it pads an axis without positions"
            elif not isinstance(entry, Place) or not isinstance(now, Place):
                lost = self.lost_at(before)
                return f"the positions of its input are not known after {lost}" if lost else "its input has no order"
            elif entry.axis != axis:
                return "the positions of its input are not along its axes"
        here_on = self.g.walk.on_axes(source)
        dilates = self.g.policy.subsampling.dilates
        if dilates and not all(self.factor(source, p, a) for a, p in here_on.items()):
            return "its map was resized, so that no dilation stands for the strides before"
        if any(not isinstance(self.g.original.values[n], Tensor) for n in op.inputs):
            return "its window depends on the size of the map"
        return ""

    def factor(self, source: fx.Node, now: Place, axis: int) -> int:
        """Returns how often cells lie closer than before the policy; 0 where that is no integer."""
        ratio = self.g.origin(source)[axis].stride / now.stride
        return int(ratio) if ratio.denominator == 1 and ratio >= 1 else 0

    def lost_at(self, source: fx.Node) -> str:
        """Returns the layer at which the positions of a map were lost."""
        stack, seen = [source], set()
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            op = self.g.original.operations[node]
            lost = [n for n in op.inputs if any(isinstance(e, Lost) for e in self.g.original.places.get(n) or ())]
            if lost:
                stack += lost
            elif self.g.original.spatial(node):
                return f"{layer_of(node)} ({op.name})"
        return ""

    def stays(self, node: fx.Node, op: Operation, window: Window) -> None:
        """Takes note of a layer that is not changed, as another run of it must not change it either."""
        if op.kind == "conv" and op.module is not None:
            self.once(str(node.target), window)

    def once(self, path: str, window: Window) -> None:
        """Checks that a layer that runs several times is to be changed in one way."""
        if self.g.builder.edited.setdefault(path, window) != window:
            raise LayerError(f"layer {path} runs several times, and the policies want it different each time")

    def replace_pool(self, node: fx.Node, op: Operation, new: Window) -> None:
        """Puts a `Pool` where a pool was."""
        kind: Any = op.kind
        layer = Pool(
            kind,
            list(new.kernel),
            list(new.stride),
            [(int(left), int(right)) for left, right in new.amounts or ()],
            list(new.dilation),
            padding_mode=new.content,
            ceil_mode=new.ceil_mode,
            count_padding=new.counts_padding,
        )
        runs = {n for g in self.g.builder.graphs.values() for n in g.nodes if n.target == node.target}
        alone = len(runs) <= len({id(g) for g in self.g.builder.graphs.values()})
        if op.module is not None and alone and self.g.builder.edited.get(str(node.target), new) == new:
            self.g.builder.edited[str(node.target)] = new
            self.g.put_layer(str(node.target), layer)
        else:
            self.g.call_layer(node, layer, layer_of(node))
        if node.op == "call_module":
            node.args, node.kwargs = (node.all_input_nodes[0],), {}
