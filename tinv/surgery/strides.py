"""What carries the strides of a network instead: dilation, blurs, or adaptive layers that share a choice."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from torch import Tensor, fx, nn

from tinv.errors import LayerError, TinvError
from tinv.graph.grid import AxisGrid
from tinv.graph.network_graph import layer_name
from tinv.graph.operations import Operation, whole_value
from tinv.graph.rearrangements import expanded_index
from tinv.graph.windows import Window, blur_window, sizes_text
from tinv.nn.pad_widths import ZERO_MODES
from tinv.nn.subsampling import BlurPool, PhaseSelector, PolyphaseSampling, SharedPhaseSampling, Subsampler
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
        # strides, for each axis, that nodes which were added have to carry
        self.added: dict[fx.Node, tuple[int, ...]] = {}

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
                new = self.call(added, source, node, layer, stride)
            node.replace_input_with(source, new)
            return new
        last = node
        while op.kind == "conv" and self._is_followed_alone(last):
            [last] = last.users
        self.insert_after(last, added, layer, stride)
        return None

    def call(self, added: nn.Module, source: fx.Node, like: fx.Node, layer: str, stride: tuple[int, ...]) -> fx.Node:
        """Makes a node that runs an added layer, whose map was where that of `like` was."""
        new = self.graph.call_module(self.edit.add_layer(f"{layer}_subsample", added), (source,))
        self.added[new] = stride
        return self.edit.register_inserted(new, like, f"{layer} + {self.subsampling}")

    def insert_after(self, last: fx.Node, added: nn.Module, layer: str, stride: tuple[int, ...]) -> fx.Node:
        """Makes a node that runs an added layer on the map of another node, for all that read it."""
        with self.graph.inserting_after(last):
            new = self.call(added, last, last, layer, stride)
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
        sampler = cast(PolyphaseSampling, self.network.meta_copy.get_submodule(path))
        source = cast(fx.Node, node.args[0])
        # maps of one resolution that were subsampled by the same choices before
        grid = [axis_grid for axis, axis_grid in self.geometry.grid_by_axis(source).items() if axis in self.edit.axes]
        before = tuple((axis_grid.stride, axis_grid.choices) for axis_grid in grid)
        key = (before, tuple(cast(Sequence[int], sampler.stride)))
        leader = self.leaders.get(key)
        if leader is not None:
            chooser = self.network.meta_copy.get_submodule(str(cast(fx.Node, leader.args[0]).target))
            group = cast(PhaseSelector, chooser).phase_group
            self.take_role(path, SharedPhaseSampling, sampler, group)
            node.args = (source, leader)
            self.geometry.step(node)
            self.check_size(node)
            return None
        self.take_role(path, PhaseSelector, sampler, path)
        with self.graph.inserting_after(node):
            choice = self.graph.call_function(operator.getitem, (node, 1))
            chosen = self.graph.call_function(operator.getitem, (node, 0))
        self.leaders[key] = choice
        for item in (choice, chosen):
            self.edit.register_inserted(item, node, layer_name(node))
        node.replace_all_uses_with(chosen, delete_user_cb=lambda user: user not in (choice, chosen))
        for new in (node, chosen, choice):
            self.geometry.step(new)
        self.check_size(node)
        return choice.next

    def chooses(self, node: fx.Node) -> bool:
        """Returns whether a node runs an adaptive layer that was added and has no part in a choice yet."""
        if node.op != "call_module" or node in self.geometry.operations:
            return False
        return isinstance(self.network.meta_copy.get_submodule(str(node.target)), PolyphaseSampling)

    def take_role(self, path: str, role: type[SharedPhaseSampling], sampler: PolyphaseSampling, group: str) -> None:
        """Makes a layer choose for others, or follow; one with weights has one role in training and evaluation.

        Raises:
            LayerError: If it had the other role in the graph that was changed before.
        """
        if not isinstance(sampler, SharedPhaseSampling):
            self.network.put_layer(path, role(sampler, group))
        elif type(sampler) is not role or sampler.phase_group != group:
            raise LayerError(
                f"layer {path}: which branch chooses for the others differs between training and evaluation, which "
                f"subsampling={self.subsampling} cannot take, since its weights choose"
            )

    def check_size(self, node: fx.Node) -> None:
        """Raises LayerError if a layer that was added gives a map of another size than its stride asks for."""
        stride = self.added.get(node)
        if stride is None:
            return
        op, given = self.geometry.operations[node], whole_value(self.geometry.values[node])
        source = cast(Tensor, self.geometry.values[node.all_input_nodes[0]])
        sizes = tuple(source.shape[2:])
        window = blur_window(op.module, len(sizes)) if isinstance(op.module, Subsampler) else op.window
        expected = [tuple(-(-size // s) for size, s in zip(sizes, stride, strict=True))]
        if window is not None:
            window = replace(window, stride=stride)
            expected.append(tuple(window.output_size(axis, size) for axis, size in enumerate(sizes)))
        channels = tuple(source.shape[:2])
        if given is None or tuple(given.shape) not in [(*channels, *size) for size in expected]:
            found = "no map" if given is None else f"a map of shape {tuple(given.shape)}"
            either = " or ".join(dict.fromkeys(str((*channels, *size)) for size in expected))
            raise LayerError(
                f"layer {layer_name(node)}: subsampling={self.subsampling} gives {found}; of {tuple(source.shape)} "
                f"with stride {sizes_text(stride)} it has to be {either}"
            )

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
        if self.subsampling.treats_strides and not isinstance(new, PolyphaseSampling):
            self.report.skip(layer, "it blurs already")
        if new is not None:
            self.edit.call_layer(node, new, layer)
            self.edit.register_inserted(node, node, layer)
            self.added[node] = stride
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
        return None if added is None else self.insert_after(node, added, layer, stride)

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
