"""What carries the strides of a network instead: dense convolutions, blurs, or adaptive layers that share a choice."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from torch import fx, nn

from tinv.errors import LayerError, TinvError
from tinv.graph.operations import Operation
from tinv.graph.places import Place
from tinv.graph.rearrangements import expanded_index
from tinv.graph.tracing import layer_of
from tinv.graph.windows import Window, sizes_text
from tinv.nn.subsampling import (
    AdaptivePolyphase,
    BlurPool,
    FollowingPolyphase,
    LeadingPolyphase,
)
from tinv.policies.padding import PaddingPolicy

if TYPE_CHECKING:
    from tinv.surgery.graph_builder import GraphBuilder


class Strides:
    """Takes strides out of the layers of one graph.

    Args:
        graph_builder: changes the graph.
    """

    def __init__(self, graph_builder: GraphBuilder) -> None:
        self.g = graph_builder
        self.policy = graph_builder.policy.subsampling
        self.leaders: dict[tuple[Any, ...], fx.Node] = {}

    def replace(
        self, node: fx.Node, op: Operation, stride: tuple[int, ...], layer: str, pointwise: bool
    ) -> fx.Node | None:
        """Adds the layer that carries a stride; returns it if it runs before the node."""
        pre = pointwise and op.kind == "conv"
        added = self.layer(stride, op.inputs[0] if pre else node)
        self.g.builder.changed(layer, f"stride {sizes_text(stride)} by {self.policy}", "strides replaced")
        if added is None:
            return None
        path = self.g.add_layer(f"{layer}_subsample", added)
        if pre:
            source = node.all_input_nodes[0]
            with self.g.graph.inserting_before(node):
                new = self.g.graph.call_module(path, (source,))
            node.replace_input_with(source, new)
            self.g.origins[new] = self.g.origin(node)
            new.meta["layer"] = f"{layer} + {self.policy}"
            return new
        last = node
        while op.kind == "conv" and self._is_followed_alone(last):
            [last] = last.users
        with self.g.graph.inserting_after(last):
            new = self.g.graph.call_module(path, (last,))
        last.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
        self.g.adopt(new, last)
        new.meta["layer"] = f"{layer} + {self.policy}"
        return None

    def _is_followed_alone(self, node: fx.Node) -> bool:
        """Returns whether a map is only read by its norm or activation, after which the blur belongs."""
        if len(node.users) != 1:
            return False
        [user] = node.users
        op = self.g.original.operations.get(user)
        return op is not None and op.kind in ("norm", "pointwise") and op.inputs == [node]

    def share_choice(self, node: fx.Node) -> fx.Node | None:
        """Makes the first adaptive layer of a resolution choose for all."""
        path = str(node.target)
        sampler = cast(AdaptivePolyphase, self.g.walk.operations[node].module)
        source = cast(fx.Node, node.args[0])
        # maps of one resolution that were subsampled by the same choices before
        places = [place for axis, place in self.g.walk.on_axes(source).items() if axis in self.g.axes]
        before = tuple((place.stride, place.choices) for place in places)
        key = (before, tuple(cast(Sequence[int], sampler.stride)))
        leader = self.leaders.get(key)
        if leader is not None:
            chooser = self.g.twin.get_submodule(str(cast(fx.Node, leader.args[0]).target))
            self.g.put_layer(path, FollowingPolyphase(sampler, cast(LeadingPolyphase, chooser).group))
            node.args = (source, leader)
            self.g.walk.step(node)
            return None
        self.g.put_layer(path, LeadingPolyphase(sampler, path))
        with self.g.graph.inserting_after(node):
            choice = self.g.graph.call_function(operator.getitem, (node, 1))
            chosen = self.g.graph.call_function(operator.getitem, (node, 0))
        self.leaders[key] = choice
        for item in (choice, chosen):
            item.meta["layer"] = node.meta["layer"]
        self.g.origins[chosen] = self.g.origin(node)
        node.replace_all_uses_with(chosen, delete_user_cb=lambda user: user not in (choice, chosen))
        for new in (node, chosen, choice):
            self.g.walk.step(new)
        return choice.next

    def blur(self, node: fx.Node, window: Window, layer: str) -> fx.Node | None:
        """Keeps a blur that the network has, with the border of the policy, or makes it adaptive.

        Returns the node if it is now a layer of ours, to be visited as such.
        """
        kernel, stride = list(window.kernel), window.stride
        content = self.g.content if self.g.pads else window.content
        border = PaddingPolicy("full" if self.g.full else "same", content)
        try:
            new = self.policy.in_place_of_blur(kernel, stride, self.channels(node), border)
        except TinvError as error:
            raise LayerError(f"layer {layer} cannot take it: {error}") from error
        if new is not None:
            self.g.builder.changed(layer, f"blur {sizes_text(window.kernel)} -> {self.policy}", "strides replaced")
        elif content != window.content or self.g.full:
            new = BlurPool(kernel, list(stride), content, self.g.full)
            said = f"{'full ' if self.g.full else ''}{content}"
            self.g.builder.changed(layer, f"padding {window.content} -> {said}", "windows changed")
        if self.policy.treats_strides and not isinstance(new, AdaptivePolyphase):
            self.g.builder.leave(layer, "it blurs already")
        if new is not None:
            self.g.call_layer(node, new, layer)
            node.meta["layer"] = layer
            self.g.origin(node)
            del self.g.original.operations[node]
            return node
        return None

    def slice(self, node: fx.Node, op: Operation) -> fx.Node | None:
        """Puts the policy on a map of which every other position is taken, as in the shortcuts of CIFAR ResNets.

        Returns the new node, which has to be run, or None if the policy treats nothing here.
        """
        source = op.inputs[0]
        if not self.policy.treats_strides or self.policy.dilates or not self.g.original.spatial(source):
            return None
        places = self.g.original.places_of(source)
        index = expanded_index(op, len(places)) or []
        steps = {
            dim: (i.start or 0, i.step)
            for dim, i in enumerate(i for i in index if i is not None)
            if isinstance(i, slice) and (i.step or 1) > 1 and isinstance(places[dim], Place)
        }
        treated = {d: s for d, s in steps.items() if d - 2 in self.g.axes}
        if not treated:
            return None
        layer = f"{layer_of(node)} (every {max(s for _, s in treated.values())} positions)"
        if len(index) != len(places) or not self.g.walk.is_map(source) or any(start for start, _ in treated.values()):
            self.g.builder.refuse(layer, "it takes positions that do not begin at the first one")
            return None
        rest = tuple(slice(i.start, i.stop, None) if d in treated else i for d, i in enumerate(index))
        node.args = (source, rest)
        self.g.walk.step(node)
        stride = tuple(treated.get(axis + 2, (0, 1))[1] for axis in range(self.g.walk.axes))
        return self.after(node, stride, layer)

    def after(self, last: fx.Node, stride: tuple[int, ...], layer: str) -> fx.Node:
        """Adds the layer that carries a stride behind a node; returns it."""
        added = self.layer(stride, last)
        assert added is not None
        self.g.builder.changed(layer, f"stride {sizes_text(stride)} by {self.policy}", "strides replaced")
        with self.g.graph.inserting_after(last):
            new = self.g.graph.call_module(self.g.add_layer(f"{layer}_subsample", added), (last,))
        last.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
        self.g.adopt(new, last)
        new.meta["layer"] = f"{layer} + {self.policy}"
        return new

    def channels(self, node: fx.Node) -> int:
        """Returns the channels of the map that a node gives, or gave before the policies."""
        walk = self.g.walk if node in self.g.walk.values else self.g.original
        return int(walk.values[node].shape[1])

    def layer(self, stride: tuple[int, ...], node: fx.Node) -> nn.Module | None:
        """Returns the layer that carries a stride of a node's map; None where none is needed."""
        mode: str = self.g.content
        if self.g.policy.blur_padding != "as_padding":
            mode = "zeros" if self.g.policy.blur_padding == "zero" else self.g.policy.blur_padding
        return self.policy.layer(stride, self.channels(node), PaddingPolicy("full" if self.g.full else "same", mode))
