"""What carries the strides of a network instead: dense convolutions, blurs, or adaptive layers that share a choice."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from torch import fx, nn

from tinv.errors import LayerError
from tinv.graph.operations import Operation
from tinv.graph.places import Place
from tinv.graph.rules import expanded_index
from tinv.graph.tracing import layer_of
from tinv.graph.windows import Window, sizes_text
from tinv.nn.padding import Content
from tinv.nn.subsampling import (
    AdaptivePolyphase,
    BlurPool,
    FollowingPolyphase,
    LeadingPolyphase,
    blur_size,
    subsampler,
)

if TYPE_CHECKING:
    from tinv.surgery.graph_builder import GraphBuilder


class Strides:
    """Takes strides out of the layers of one graph.

    Args:
        graph_builder: changes the graph.
    """

    def __init__(self, graph_builder: GraphBuilder) -> None:
        self.g = graph_builder
        self.leaders: dict[tuple[Any, ...], fx.Node] = {}

    def replace(
        self, node: fx.Node, op: Operation, stride: tuple[int, ...], layer: str, pointwise: bool
    ) -> fx.Node | None:
        """Adds the layer that carries a stride; returns it if it runs before the node."""
        added = self.layer(stride)
        self.g.builder.changed(
            layer, f"stride {sizes_text(stride)} by {self.g.settings.subsampling}", "strides replaced"
        )
        if added is None:
            return None
        path = self.g.add_layer(f"{layer}_subsample", added)
        if pointwise and op.kind == "conv":
            source = node.all_input_nodes[0]
            with self.g.graph.inserting_before(node):
                new = self.g.graph.call_module(path, (source,))
            node.replace_input_with(source, new)
            self.g.origins[new] = self.g.origin(node)
            new.meta["layer"] = f"{layer} + {self.g.settings.subsampling}"
            return new
        last = node
        while op.kind == "conv" and self._is_followed_alone(last):
            [last] = last.users
        with self.g.graph.inserting_after(last):
            new = self.g.graph.call_module(path, (last,))
        last.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
        self.g.adopt(new, last)
        new.meta["layer"] = f"{layer} + {self.g.settings.subsampling}"
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
        module = cast(AdaptivePolyphase, self.g.walk.operations[node].module)
        if isinstance(module, (LeadingPolyphase, FollowingPolyphase)):
            return None
        source = cast(fx.Node, node.args[0])
        # maps of one resolution that were subsampled by the same choices before
        places = [place for axis, place in self.g.walk.on_axes(source).items() if axis in self.g.axes]
        before = tuple((place.stride, place.choices) for place in places)
        key = (before, tuple(cast(Sequence[int], module.stride)))
        leader = self.leaders.get(key)
        module.__class__ = FollowingPolyphase if leader else LeadingPolyphase
        if leader is not None:
            choice, chooser = leader, cast(fx.Node, leader.args[0])
            module.__dict__["level"] = cast(LeadingPolyphase, self.g.twin.get_submodule(str(chooser.target))).level
            node.args = (source, choice)
            self.g.walk.step(node)
            return None
        module.__dict__["level"] = str(node.target)
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
        policy, kernel = self.g.settings.subsampling, list(window.kernel)
        if policy == "dense":
            raise LayerError(f"layer {layer} blurs already; subsampling=dense needs the network without blur")
        content = self.g.content if self.g.settings.padding != "keep" else window.content
        new: nn.Module | None = None
        if policy.startswith("aps"):
            new = AdaptivePolyphase(list(window.stride), max(kernel[0], blur_size(policy)), content, self.g.full)
            self.g.builder.changed(layer, f"blur {sizes_text(window.kernel)} -> {policy}", "strides replaced")
        elif content != window.content or self.g.full:
            new = BlurPool(kernel, list(window.stride), content, self.g.full)
            said = f"{'full ' if self.g.full else ''}{content}"
            self.g.builder.changed(layer, f"padding {window.content} -> {said}", "windows changed")
        if policy.startswith("blur"):
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
        if self.g.settings.subsampling in ("keep", "dense") or not self.g.original.spatial(source):
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
        added = self.layer(stride)
        assert added is not None
        self.g.builder.changed(
            layer, f"stride {sizes_text(stride)} by {self.g.settings.subsampling}", "strides replaced"
        )
        with self.g.graph.inserting_after(last):
            new = self.g.graph.call_module(self.g.add_layer(f"{layer}_subsample", added), (last,))
        last.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
        self.g.adopt(new, last)
        new.meta["layer"] = f"{layer} + {self.g.settings.subsampling}"
        return new

    def layer(self, stride: tuple[int, ...]) -> nn.Module | None:
        """Returns the layer that carries a stride; None where none is needed."""
        content: Content = self.g.content
        if self.g.settings.blur_padding != "as_padding":
            content = cast(Content, self.g.settings.blur_padding)
        return subsampler(self.g.settings.subsampling, stride, content, self.g.full)
