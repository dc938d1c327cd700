"""Puts the policies onto one layer with a window: its stride, its dilation, and how its border is padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from tinv.errors import LayerError
from tinv.graph.grid import AxisGrid, Grid, Lost, holds_positions
from tinv.graph.network_graph import layer_name
from tinv.graph.operations import Operation
from tinv.graph.windows import Window, padding_text, plain_conv, set_conv, sizes_text
from tinv.nn.pad_widths import fills_pools, window_widths
from tinv.nn.padding import PADDED, pad, padded_conv, padding_inside
from tinv.nn.pooling import Pool
from tinv.policies.padding import PaddingPolicy
from tinv.surgery.edit import GraphEdit, GraphJob
from tinv.surgery.strides import Strides


class Windows(GraphJob):
    """Changes the layers of one graph that slide a window.

    Args:
        edit: The graph that is being changed.
        strides: Takes the strides out of its layers.
    """

    def __init__(self, edit: GraphEdit, strides: Strides) -> None:
        super().__init__(edit)
        self.strides = strides
        self.stem: fx.Node | None = None

    def window(self, node: fx.Node, op: Operation) -> fx.Node | None:
        """Puts the policies onto a convolution, pool or blur; returns a new node that has to be run before it."""
        source, window, layer = node.all_input_nodes[0], op.window, layer_name(node)
        assert window is not None
        if op.kind == "conv" and self.stem is None:
            self.stem = source
        touched = {a for a in range(len(window.kernel)) if window.kernel[a] > 1 or window.stride[a] > 1}
        axes = self.sliding_axes(node, op, window, touched)
        if axes is None:
            self.stays(node, op, window)
            return None
        grid = self.geometry.grid_by_axis(source)
        subsampled = tuple(
            s if axis in axes and self.policy.subsampling.treats_strides else 1 for axis, s in enumerate(window.stride)
        )
        # parallel branches of a stem keep their strides together
        first_conv = op.kind == "conv" and self.stem is source
        if first_conv and self.policy.stem == "keep" and any(s > 1 for s in subsampled):
            subsampled = (1,) * len(subsampled)
            self.report.skip(layer, "the stride of the first convolution, by stem=keep")
        if op.kind == "blur":
            return self.strides.blur(node, window, layer)
        dilates = self.policy.subsampling.dilates
        new = replace(
            window,
            stride=tuple(1 if t > 1 else s for s, t in zip(window.stride, subsampled, strict=True)),
            dilation=tuple(
                # the distance between the taps of a window of one pixel means nothing
                d * self.factor(source, grid[axis], axis) if dilates and axis in grid and window.kernel[axis] > 1 else d
                for axis, d in enumerate(window.dilation)
            ),
            padding_mode=self.fill(op, window),
        )
        new = replace(new, pad_widths=self.pad_widths(node, op, new, subsampled, axes))
        if new.pad_widths is not None and not new.is_padded and not new.ceil_mode:
            # nothing is filled, whatever it would be filled with
            new = replace(new, padding_mode=window.padding_mode)
        if op.kind != "conv" and self.policy.pool != "keep":
            new = replace(new, count_include_pad=self.policy.pool == "full", ceil_mode=False)
        elif window.ceil_mode and any(t > 1 for t in subsampled):
            # what ceil_mode adds is never counted
            new = replace(new, ceil_mode=False, count_include_pad=window.count_include_pad and window.is_padded)
        before = self.strides.replace(node, op, subsampled, layer) if any(t > 1 for t in subsampled) else None
        if new == window:
            self.stays(node, op, window)
            return before
        padded = self.change(node, op, new, layer, axes)
        return before or padded

    def fill(self, op: Operation, window: Window) -> str:
        """Returns what the padding of a layer holds."""
        if not self.edit.pads:
            return window.padding_mode
        if op.kind == "conv" or self.policy.pool != "keep" or fills_pools(self.edit.padding_mode):
            return self.edit.padding_mode
        return window.padding_mode

    def pad_widths(
        self, node: fx.Node, op: Operation, new: Window, subsampled: Sequence[int], axes: Sequence[int]
    ) -> Any:
        """Returns the padding of a layer whose stride and dilation are known.

        Args:
            node: Node of the layer.
            op: What it did before the policies.
            new: Its window under the policies, but for the padding.
            subsampled: For each axis, the stride that another layer carries from now on, or 1.
            axes: Spatial axes that the policies treat in this layer.

        Returns:
            A pair (left, right) in pixels for each spatial axis; None where the size of the map decides.
        """
        widths: list[tuple[int, int]] = []
        old = op.window
        assert old is not None
        policy = self.policy.padding if op.kind == "conv" else PaddingPolicy(self.policy.pool)
        keeps = policy.amount == "keep"
        absorbed = self.edit.absorbed.get(node) if op.kind != "conv" else None
        for axis in range(len(old.kernel)):
            kernel, dilation = old.kernel[axis], new.dilation[axis]
            if axis in axes and not keeps:
                [pair] = policy.widths([kernel], [dilation])
            elif old.pad_widths is not None:
                factor = dilation // old.dilation[axis]
                left, right = old.pad_widths[axis]
                pair = (left * factor, right * factor)
            elif new.stride == old.stride and new.dilation == old.dilation and new.padding_mode == old.padding_mode:
                return None
            elif new.stride == old.stride:
                pair = old.widths(axis, self.original.grid_by_axis(op.inputs[0])[axis].size)
            else:
                [pair] = window_widths("same", [kernel], [dilation])
            if absorbed and keeps:
                pair = (pair[0] + absorbed[axis][0], pair[1] + absorbed[axis][1])
            furthest = dilation * (kernel - 1)
            if new.mode_of(axis) == "circular" and subsampled[axis] > 1 and op.kind != "conv":
                # a pool of stride 1 on a ring has as many positions as the ring
                pair = (pair[0], max(pair[1], furthest - pair[0]))
            elif old.ceil_mode and subsampled[axis] > 1:
                # the last window of ceil_mode, of which only the beginning lies on the map
                pair = (pair[0], min(pair[1] + subsampled[axis] - 1, max(pair[1], furthest)))
            widths.append(pair)
        return tuple(widths)

    def change(self, node: fx.Node, op: Operation, new: Window, layer: str, axes: Sequence[int]) -> fx.Node | None:
        """Changes a layer to a window; returns the node that pads its input, if one was needed."""
        old = op.window
        assert old is not None
        said = [
            f"{name} {sizes_text(before)} -> {sizes_text(after)}"
            for name, before, after in (("stride", old.stride, new.stride), ("dilation", old.dilation, new.dilation))
            if before != after
        ]
        if new.pad_widths != old.pad_widths or new.padding_mode != old.padding_mode:
            said.append(f"padding {padding_text(old)} -> {padding_text(new)}")
        pads = self.edit.pads and op.kind == "conv"
        padded = pads and any(old.kernel[axis] > 1 or new.pad_widths != old.pad_widths for axis in axes)
        if said:
            self.report.change(layer, ", ".join(said), "convolutions padded" if padded else "kernels re-padded")
        if op.kind != "conv":
            self.replace_pool(node, op, new)
            return None
        assert new.pad_widths is not None
        inside = padding_inside(new.pad_widths, new.padding_mode) is not None
        outside = [(0, 0) if inside or axis not in axes else pair for axis, pair in enumerate(new.pad_widths)]
        kept = [pair[0] if inside or axis not in axes else 0 for axis, pair in enumerate(new.pad_widths)]
        if new.padding_mode in ("partial", "random"):
            self.pad_by_layer(node, op, new, layer, axes)
            return None
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
                self.network.put_layer(str(node.target), conv)
            set_conv(conv, new, kept)
        if not any(left or right for left, right in outside):
            return None
        source = node.all_input_nodes[0]
        with self.graph.inserting_before(node):
            padded_map = self.graph.call_function(pad, (source, outside, new.padding_mode))
        self.edit.register_inserted(padded_map, source, f"{layer} (padding)")
        node.replace_input_with(source, padded_map)
        return padded_map

    def pad_by_layer(self, node: fx.Node, op: Operation, new: Window, layer: str, axes: Sequence[int]) -> None:
        """Puts a `PaddedConv` where a convolution was, for padding that is more than a border."""
        if type(op.module) not in (nn.Conv1d, nn.Conv2d, nn.Conv3d, *PADDED):
            kind = f"{new.padding_mode} padding"
            raise LayerError(f"layer {layer}: {op.name} cannot take {kind}, which plain convolutions alone can")
        if any(any(pair) for axis, pair in enumerate(new.pad_widths or ()) if axis not in axes):
            raise LayerError(
                f"layer {layer}: {new.padding_mode} padding treats all axes that a layer pads; use axes=space+time"
            )
        self.once(str(node.target), new)
        conv = cast(_ConvNd, op.module)
        set_conv(conv, new, [0] * len(new.kernel))
        self.network.put_layer(str(node.target), padded_conv(conv, new.pad_widths or (), new.padding_mode))

    def sliding_axes(self, node: fx.Node, op: Operation, window: Window, touched: set[int]) -> tuple[int, ...] | None:
        """Returns the axes that the policies treat in a layer; None where they treat none, or cannot."""
        layer, before = layer_name(node), op.inputs[0]
        grid = self.original.grid(before) if self.original.has_positions(before) else ()
        slides = grid[len(grid) - len(window.kernel) :]
        if not any(holds_positions(entry) for axis, entry in enumerate(slides) if axis in touched):
            if touched:
                self.report.skip(layer, "does not slide over the image's axes")
            # a layer of one pixel with no stride needs no policy, but for its padding
            return self.edit.axes if not touched and self.original.is_feature_map(before) else None
        problem = self.problem(node, op, window, grid)
        if problem and window.pad_widths is not None and not window.is_padded:
            sizes = tuple(self.original.values[before].shape[-len(window.kernel) :])
            if sizes == window.kernel and not any(isinstance(entry, AxisGrid) for entry in slides):
                self.report.skip(layer, "as large as its map, whose size is fixed: a fully connected layer")
                return None
        if problem:
            self.report.refuse(layer, problem)
            return None
        return tuple(axis for axis in self.edit.axes if isinstance(slides[axis], AxisGrid))

    def problem(self, node: fx.Node, op: Operation, window: Window, grid: Grid) -> str:
        """Returns why a layer cannot take the policies; empty if it can."""
        source, before, rank = node.all_input_nodes[0], op.inputs[0], self.geometry.axes + 2
        here = self.geometry.grids.get(source)
        if len(window.kernel) != self.geometry.axes or len(grid) != rank or any(map(holds_positions, grid[:2])):
            return "the positions of its input are not along its axes"
        for axis, entry in enumerate(grid[2:]):
            now = here[axis + 2] if isinstance(here, tuple) else None
            if not holds_positions(entry):
                size = self.original.values[before].shape[axis + 2]
                if window.kernel[axis] > 1 and any(window.widths(axis, size)):
                    return "it pads an axis without positions"
            elif not isinstance(entry, AxisGrid) or not isinstance(now, AxisGrid):
                lost = self.lost_at(before)
                return f"the positions of its input are not known after {lost}" if lost else "its input has no order"
            elif entry.axis != axis:
                return "the positions of its input are not along its axes"
        now_on = self.geometry.grid_by_axis(source)
        if self.policy.subsampling.dilates and not all(self.factor(source, now_on[axis], axis) for axis in now_on):
            return "its map was resized, so that no dilation stands for the strides before"
        if any(not isinstance(self.original.values[n], Tensor) for n in op.inputs):
            return "its window depends on the size of the map"
        return ""

    def factor(self, source: fx.Node, now: AxisGrid, axis: int) -> int:
        """Returns how often positions lie closer than before the policy; 0 where that is no integer."""
        ratio = self.edit.grid_before(source)[axis].stride / now.stride
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
            lost = [n for n in op.inputs if any(isinstance(e, Lost) for e in self.original.grids.get(n) or ())]
            if lost:
                stack += lost
            elif self.original.has_positions(node):
                return f"{layer_name(node)} ({op.name})"
        return ""

    def stays(self, node: fx.Node, op: Operation, window: Window) -> None:
        """Takes note of a layer that is not changed, as another run of it must not change it either."""
        if op.kind == "conv" and op.module is not None:
            self.once(str(node.target), window)

    def once(self, path: str, window: Window) -> None:
        """Checks that a layer that runs several times is to be changed in one way."""
        if self.network.windows.setdefault(path, window) != window:
            raise LayerError(f"layer {path} runs several times, and the policies want it different each time")

    def replace_pool(self, node: fx.Node, op: Operation, new: Window) -> None:
        """Puts a `Pool` where a pool was."""
        kind: Any = op.kind
        layer = Pool(
            kind, list(new.kernel), list(new.stride), list(new.pad_widths or ()), list(new.dilation),
            padding_mode=new.padding_mode, ceil_mode=new.ceil_mode, count_include_pad=new.count_include_pad,
        )  # fmt: skip
        graphs = self.network.distinct_graphs
        alone = sum(n.target == node.target for graph in graphs for n in graph.nodes) <= len(graphs)
        if op.module is not None and alone and self.network.windows.get(str(node.target), new) == new:
            self.network.windows[str(node.target)] = new
            self.network.put_layer(str(node.target), layer)
        else:
            self.edit.call_layer(node, layer, layer_name(node))
        if node.op == "call_module":
            node.args, node.kwargs = (node.all_input_nodes[0],), {}
