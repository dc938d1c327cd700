"""Brings branches that meet again to the same pixels after a policy has moved them apart.

A policy moves the cells of a branch by what it adds to, or takes from, the padding of the layers in it. Where
branches meet (add, multiply, concatenate, ...) each must have been moved alike. The one that was moved less is
padded, or under `valid` cropped, by the difference: not where they meet but where they parted, before any stride
between, so that phases match too. Branches that were apart before the policy stay as far apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import fx

from tinv.errors import LayerError
from tinv.graph.geometry import Walk
from tinv.graph.places import Place
from tinv.graph.tracing import layer_of
from tinv.nn.padding import Content, fit, pad

Edge = tuple[fx.Node, fx.Node]
"""A map and the node that reads it."""


@dataclass
class Aligner:
    """Aligns the branches of one graph, merge by merge, in the order of the graph.

    Attributes:
        walk: over the graph; complete up to the merge at hand.
        origin: returns the places of a node, by axis, before the policy.
        content: of what is added.
        crops: whether branches are cropped to the one moved most, not padded.
        note: called with a layer and a sentence for what cannot be aligned.
        inserted: called with each new node, and the node whose place it had before the policy.
    """

    walk: Walk
    origin: Callable[[fx.Node], dict[int, Place]]
    content: Content
    crops: bool
    note: Callable[[str, str], None]
    inserted: Callable[[fx.Node, fx.Node], None]

    def align(self, merge: fx.Node, inputs: Iterable[fx.Node]) -> bool:
        """Aligns what meets at a node; returns whether anything had to be moved.

        Raises:
            LayerError: if branches were subsampled by different adaptive choices.
        """
        maps = list(dict.fromkeys(node for node in inputs if self.walk.spatial(node)))
        # for each branch and axis: pixels of the image to move by, and cells to have where they meet
        moves: dict[fx.Node, dict[int, tuple[Fraction, int]]] = {node: {} for node in maps}
        for axis in range(self.walk.axes):
            self._axis(merge, axis, maps, moves)
        still = next((node for node in maps if not moves[node] and self.walk.is_map(node)), None)
        for node in maps:
            if moves[node]:
                self._move(merge, node, still, [n for n in maps if n is not node], moves[node])
        return any(moves.values())

    def _axis(
        self, merge: fx.Node, axis: int, maps: list[fx.Node], moves: dict[fx.Node, dict[int, tuple[Fraction, int]]]
    ) -> None:
        places: dict[fx.Node, Place] = {}
        shift: dict[fx.Node, Fraction] = {}
        for node in maps:
            place, before = self.walk.on_axes(node).get(axis), self.origin(node).get(axis)
            if place is not None and before is not None:
                # by how many pixels the policy has moved this branch: negative means more padding on its left
                places[node], shift[node] = place, place.offset - before.offset
        if len(places) < 2 or len({place.stride for place in places.values()}) > 1:
            # maps that run against each other, or at different strides, have no common position
            return
        if len({place.choices for place in places.values()}) > 1:
            raise LayerError(
                f"layer {layer_of(merge)}: the branches that meet here were subsampled by different adaptive choices; "
                "aps cannot take this network"
            )
        furthest = max if self.crops else min
        target = furthest(shift.values())
        ends = {node: place.size + (shift[node] - target) / place.stride for node, place in places.items()}
        size = int(min(ends.values()) if self.crops else max(ends.values()))
        for node, place in places.items():
            if shift[node] != target or place.size != size:
                moves[node][axis] = (shift[node] - target, size)

    def _move(
        self,
        merge: fx.Node,
        arg: fx.Node,
        still: fx.Node | None,
        others: list[fx.Node],
        moves: dict[int, tuple[Fraction, int]],
    ) -> None:
        """Moves one branch, and gives it its size where it merges; `still` is a branch that is not moved."""
        edges = self._edges(merge, arg, others)
        pads = self._insert(merge, edges)
        end = pads.get(arg, arg) if (arg, merge) in edges else arg
        stride = {axis: place.stride for axis, place in self.walk.on_axes(arg).items()}
        subsampled = any(self.walk.on_axes(s)[axis].stride != stride[axis] for s in pads for axis in moves)
        right: dict[int, Fraction] = {}
        for axis, (pixels, size) in moves.items():
            left_over = [pixels - int(pixels / st) * st for s in pads for st in [self.walk.on_axes(s)[axis].stride]]
            if any(left_over):
                apart = float(max(left_over, key=abs))
                self.note(layer_of(merge), f"branches are {apart:g} pixels apart, which padding cannot fix")
            right[axis] = (
                (size - self.walk.on_axes(arg)[axis].size) * stride[axis] - pixels if not subsampled else pixels
            )
        for _ in range(4):
            for source, node in pads.items():
                here = self.walk.on_axes(source)
                amounts = [(0, 0)] * self.walk.axes
                for axis, (pixels, _) in moves.items():
                    amounts[axis] = (int(pixels / here[axis].stride), int(right[axis] / here[axis].stride))
                node.args = (source, amounts, self.content)
            self._again(pads.values(), merge)
            missing = {axis: size - self.walk.on_axes(end)[axis].size for axis, (_, size) in moves.items()}
            if not any(missing.values()):
                break
            for axis, cells in missing.items():
                right[axis] += cells * stride[axis]
        if (subsampled or any(missing.values())) and still is not None and self.walk.is_map(end):
            # with a stride between, images of other sizes may come out a cell longer or shorter
            with self.walk.graph.inserting_before(merge):
                fitted = self.walk.graph.call_function(fit, (end, still, self.content))
            self._adopt(fitted, merge, arg)
            merge.replace_input_with(end, fitted)
            self.walk.step(fitted)

    def _edges(self, merge: fx.Node, arg: fx.Node, others: list[fx.Node]) -> list[Edge]:
        """Returns the edges by which a branch leaves the others."""
        trunk = _ancestors(others)
        if arg in trunk:
            return [(arg, merge)]
        branch = _ancestors([arg]) - trunk
        edges: list[Edge] = []
        for node in (n for n in self.walk.graph.nodes if n in branch):
            for source in node.all_input_nodes:
                if source in trunk and self.walk.spatial(source):
                    edges.append((source, node))
                elif source in trunk and self.walk.is_map(node) and isinstance(self.walk.places.get(source), list):
                    # a part of a split: moved behind the split
                    edges += [(node, user) for user in node.users if user in branch or user is merge]
        usable = edges and all(self.walk.is_map(source) for source, _ in edges)
        return edges if usable else [(arg, merge)]

    def _insert(self, merge: fx.Node, edges: list[Edge]) -> dict[fx.Node, fx.Node]:
        """Puts a node on each edge, one for all that begin at the same map, as late as possible; returns it by map."""
        pads: dict[fx.Node, fx.Node] = {}
        for source, user in sorted(edges, key=lambda edge: edge[1]):
            if not self.walk.is_map(source):
                raise LayerError(
                    f"layer {layer_of(merge)}: a branch whose axes are in an unusual order cannot be aligned"
                )
            if source not in pads:
                with self.walk.graph.inserting_before(user):
                    pads[source] = self.walk.graph.call_function(pad, (source, [], self.content))
                self._adopt(pads[source], merge, source)
            user.replace_input_with(source, pads[source])
        return pads

    def _adopt(self, node: fx.Node, merge: fx.Node, source: fx.Node) -> None:
        node.meta["layer"] = f"{layer_of(merge)} (padding)"
        self.inserted(node, source)

    def _again(self, pads: Iterable[fx.Node], merge: fx.Node) -> None:
        """Runs again what depends on new padding, up to a merge."""
        changed = set(pads)
        node = min(changed)
        while node is not merge:
            if node in changed or any(source in changed for source in node.all_input_nodes):
                changed.add(node)
                self.walk.step(node)
            node = node.next


def _ancestors(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    found: set[fx.Node] = set()
    stack: list[Any] = list(nodes)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack += node.all_input_nodes
    return found
