"""What carries the strides of a network instead: dilation, blurs, or adaptive layers that share a choice."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, cast

from torch import fx, nn

from tinv.errors import LayerError, TinvError
from tinv.graph.grid import AxisGrid
from tinv.graph.network_graph import layer_name
from tinv.graph.operations import Operation
from tinv.graph.rearrangements import expanded_index
from tinv.graph.windows import Window, sizes_text
from tinv.nn.pad_widths import ZERO_MODES
from tinv.nn.subsampling import AdaptivePolyphaseSampling, BlurPool, PhaseSelector, SharedPhaseSampling
from tinv.policies.padding import PaddingPolicy
from tinv.surgery.edit import GraphEdit, GraphJob


class Strides(GraphJob):
    """Takes strides out of the layers of one graph.

    Args:
        edit: The graph that is being changed.
    """

    def __init__(self, edit: GraphEdit) -> None:
        super().__init__(edit)
        self.subsampling = edit.policy.subsampling
        self.leaders: dict[tuple[Any, ...], fx.Node] = {}

    def replace(self, node: fx.Node, op: Operation, stride: tuple[int, ...], layer: str) -> fx.Node | None:
        """Adds the layer that carries a stride; returns it if it runs before the node."""
        before = op.kind == "conv" and op.window is not None and all(k == 1 for k in op.window.kernel)
        added = self.layer(stride, op.inputs[0] if before else node)
        self.report.change(layer, f"stride {sizes_text(stride)} by {self.subsampling}", "strides replaced")
        if added is None:
            return None
        if before:
            source = node.all_input_nodes[0]
            with self.graph.inserting_before(node):
                new = self.call(added, source, node, layer)
            node.replace_input_with(source, new)
            return new
        last = node
        while op.kind == "conv" and self._is_followed_alone(last):
            [last] = last.users
        self.insert_after(last, added, layer)
        return None

    def call(self, added: nn.Module, source: fx.Node, like: fx.Node, layer: str) -> fx.Node:
        """Makes a node that runs an added layer, whose map was where that of `like` was."""
        new = self.graph.call_module(self.network.add_layer(f"{layer}_subsample", added), (source,))
        return self.edit.register_inserted(new, like, f"{layer} + {self.subsampling}")

    def insert_after(self, last: fx.Node, added: nn.Module, layer: str) -> fx.Node:
        """Makes a node that runs an added layer on the map of another node, for all that read it."""
        with self.graph.inserting_after(last):
            new = self.call(added, last, last, layer)
        last.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
        return new

    def _is_followed_alone(self, node: fx.Node) -> bool:
        """Returns whether a map is only read by its norm or activation, after which the blur belongs."""
        if len(node.users) != 1:
            return False
        [user] = node.users
        op = self.original.operations.get(user)
        return op is not None and op.kind in ("norm", "pointwise") and op.inputs == [node]

    def share_choice(self, node: fx.Node) -> fx.Node | None:
        """Makes the first adaptive layer of a resolution choose for all."""
        path = str(node.target)
        sampler = cast(AdaptivePolyphaseSampling, self.geometry.operations[node].module)
        source = cast(fx.Node, node.args[0])
        # maps of one resolution that were subsampled by the same choices before
        grid = [axis_grid for axis, axis_grid in self.geometry.grid_by_axis(source).items() if axis in self.edit.axes]
        before = tuple((axis_grid.stride, axis_grid.choices) for axis_grid in grid)
        key = (before, tuple(cast(Sequence[int], sampler.stride)))
        leader = self.leaders.get(key)
        if leader is not None:
            chooser = self.network.meta_copy.get_submodule(str(cast(fx.Node, leader.args[0]).target))
            self.network.put_layer(path, SharedPhaseSampling(sampler, cast(PhaseSelector, chooser).phase_group))
            node.args = (source, leader)
            self.geometry.step(node)
            return None
        self.network.put_layer(path, PhaseSelector(sampler, path))
        with self.graph.inserting_after(node):
            choice = self.graph.call_function(operator.getitem, (node, 1))
            chosen = self.graph.call_function(operator.getitem, (node, 0))
        self.leaders[key] = choice
        for item in (choice, chosen):
            self.edit.register_inserted(item, node, layer_name(node))
        node.replace_all_uses_with(chosen, delete_user_cb=lambda user: user not in (choice, chosen))
        for new in (node, chosen, choice):
            self.geometry.step(new)
        return choice.next

    def blur(self, node: fx.Node, window: Window, layer: str) -> fx.Node | None:
        """Keeps a blur that the network has, with the border of the policy, or makes it adaptive.

        Returns the node if it is now a layer of ours, to be visited as such.
        """
        kernel, stride = list(window.kernel), window.stride
        mode = self.edit.padding_mode if self.edit.pads else window.padding_mode
        mode = "zeros" if mode in ZERO_MODES else mode
        border = PaddingPolicy("full" if self.edit.full else "same", mode)
        try:
            new = self.subsampling.in_place_of_blur(kernel, stride, self.channels(node), border)
        except TinvError as error:
            raise LayerError(f"layer {layer} cannot take it: {error}") from error
        if new is not None:
            self.report.change(layer, f"blur {sizes_text(window.kernel)} -> {self.subsampling}", "strides replaced")
        elif mode != window.padding_mode or self.edit.full:
            new = BlurPool(kernel, list(stride), mode, self.edit.full)
            said = f"{'full ' if self.edit.full else ''}{mode}"
            self.report.change(layer, f"padding {window.padding_mode} -> {said}", "kernels re-padded")
        if self.subsampling.treats_strides and not isinstance(new, AdaptivePolyphaseSampling):
            self.report.skip(layer, "it blurs already")
        if new is not None:
            self.edit.call_layer(node, new, layer)
            self.edit.register_inserted(node, node, layer)
            del self.original.operations[node]
            return node
        return None

    def slice(self, node: fx.Node, op: Operation) -> fx.Node | None:
        """Puts the policy on a map of which every other position is taken, as in the shortcuts of CIFAR ResNets.

        Returns the new node, which has to be run, or None if the policy treats nothing here.
        """
        source = op.inputs[0]
        if not self.subsampling.treats_strides or not self.original.has_positions(source):
            return None
        grid = self.original.grid(source)
        index = expanded_index(op, len(grid)) or []
        steps = {
            dim: (i.start or 0, i.step)
            for dim, i in enumerate(i for i in index if i is not None)
            if isinstance(i, slice) and (i.step or 1) > 1 and isinstance(grid[dim], AxisGrid)
        }
        treated = {d: s for d, s in steps.items() if d - 2 in self.edit.axes}
        if not treated:
            return None
        layer = f"{layer_name(node)} (every {max(s for _, s in treated.values())} positions)"
        if (
            len(index) != len(grid)
            or not self.geometry.is_feature_map(source)
            or any(start for start, _ in treated.values())
        ):
            self.report.refuse(layer, "it takes positions that do not begin at the first one")
            return None
        rest = tuple(slice(i.start, i.stop, None) if d in treated else i for d, i in enumerate(index))
        node.args = (source, rest)
        self.geometry.step(node)
        stride = tuple(treated.get(axis + 2, (0, 1))[1] for axis in range(self.geometry.axes))
        added = self.layer(stride, node)
        self.report.change(layer, f"stride {sizes_text(stride)} by {self.subsampling}", "strides replaced")
        return None if added is None else self.insert_after(node, added, layer)

    def channels(self, node: fx.Node) -> int:
        """Returns the channels of the map that a node gives, or gave before the policies."""
        geometry = self.geometry if node in self.geometry.values else self.original
        return int(geometry.values[node].shape[1])

    def layer(self, stride: tuple[int, ...], node: fx.Node) -> nn.Module | None:
        """Returns the layer that carries a stride of a node's map; None where none is needed."""
        mode: str = self.edit.padding_mode
        if self.policy.blur_padding != "as_padding":
            mode = "zeros" if self.policy.blur_padding == "zero" else self.policy.blur_padding
        mode = "zeros" if mode in ZERO_MODES else mode
        padding = PaddingPolicy("full" if self.edit.full else "same", mode)
        return self.subsampling.layer(stride, self.channels(node), padding)
