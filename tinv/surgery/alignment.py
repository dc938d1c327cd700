"""Brings branches that meet again to the same pixels after a policy has moved them apart.

A policy moves the positions of a branch by what it adds to, or takes from, the padding of the layers in it. Where
branches meet (add, multiply, concatenate, ...) each must have been moved alike. The one that was moved less is
padded, or under `valid` cropped, by the difference: not where they meet but where they parted, before any stride
between, so that phases match too. Branches that were apart before the policy stay as far apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import torch
from torch import fx

from tinv.errors import LayerError
from tinv.graph.grid import AxisGrid, holds_positions
from tinv.graph.network_graph import layer_name
from tinv.nn.padding import pad, pad_or_crop_like
from tinv.surgery.edit import GraphEdit, GraphJob

Edge = tuple[fx.Node, fx.Node]
"""A map and the node that reads it."""
Moves = dict[int, tuple[Fraction, int]]
"""For each axis of a branch: pixels of the image to move it by, and the positions to have where branches meet."""


class Aligner(GraphJob):
    """Aligns the branches of one graph, merge by merge, in the order of the graph.

    Args:
        edit: The graph that is being changed; its geometry is complete up to the merge that is aligned.
    """

    def __init__(self, edit: GraphEdit) -> None:
        super().__init__(edit)
        # whether branches are cropped to the one moved most, not padded
        self.crops = edit.policy.padding.amount == "valid"

    def align(self, merge: fx.Node, inputs: Iterable[fx.Node]) -> bool:
        """Aligns what meets at a node; returns whether anything had to be moved.

        Raises:
            LayerError: If branches were subsampled by different adaptive choices.
        """
        maps = list(dict.fromkeys(node for node in inputs if self.geometry.has_positions(node)))
        moves: dict[fx.Node, Moves] = {node: {} for node in maps}
        for axis in range(self.geometry.axes):
            self._axis(merge, axis, maps, moves)
        still = next((node for node in maps if not moves[node] and self.geometry.is_feature_map(node)), None)
        for node in maps:
            if moves[node]:
                self._move(merge, node, still, [n for n in maps if n is not node], moves[node])
        return any(moves.values())

    def _axis(self, merge: fx.Node, axis: int, maps: list[fx.Node], moves: dict[fx.Node, Moves]) -> None:
        grid: dict[fx.Node, AxisGrid] = {}
        shift: dict[fx.Node, Fraction] = {}
        for node in maps:
            axis_grid, before = self.geometry.grid_by_axis(node).get(axis), self.edit.grid_before(node).get(axis)
            if axis_grid is not None and before is not None:
                # by how many pixels the policy has moved this branch: negative means more padding on its left
                grid[node], shift[node] = axis_grid, axis_grid.offset - before.offset
        if len(grid) < 2 or len({axis_grid.stride for axis_grid in grid.values()}) > 1:
            # maps that run against each other, or at different strides, have no common position
            return
        if len({axis_grid.choices for axis_grid in grid.values()}) > 1:
            raise LayerError(
                f"layer {layer_name(merge)}: the branches that meet here were subsampled by different adaptive "
                f"choices; subsampling={self.policy.subsampling} cannot take this network"
            )
        furthest = max if self.crops else min
        target = furthest(shift.values())
        ends = {node: axis_grid.size + (shift[node] - target) / axis_grid.stride for node, axis_grid in grid.items()}
        size = int(min(ends.values()) if self.crops else max(ends.values()))
        for node, axis_grid in grid.items():
            if shift[node] != target or axis_grid.size != size:
                moves[node][axis] = (shift[node] - target, size)

    def _move(self, merge: fx.Node, arg: fx.Node, still: fx.Node | None, others: list[fx.Node], moves: Moves) -> None:
        """Moves one branch, and gives it its size where it merges; `still` is a branch that is not moved."""
        edges = self._edges(merge, arg, others)
        pads, ends = self._insert(merge, edges)
        end = ends.get(arg, arg) if (arg, merge) in edges else arg
        stride = {axis: axis_grid.stride for axis, axis_grid in self.geometry.grid_by_axis(arg).items()}
        subsampled = any(self.geometry.grid_by_axis(s)[axis].stride != stride[axis] for s in pads for axis in moves)
        right: dict[int, Fraction] = {}
        for axis, (pixels, size) in moves.items():
            strides = [self.geometry.grid_by_axis(source)[axis].stride for source in pads]
            left_over = [pixels - int(pixels / step) * step for step in strides]
            if any(left_over):
                apart = float(max(left_over, key=abs))
                self.report.skip(layer_name(merge), f"branches are {apart:g} pixels apart, which padding cannot fix")
            have = self.geometry.grid_by_axis(arg)[axis].size
            right[axis] = pixels if subsampled else (size - have) * stride[axis] - pixels
        for _ in range(4):
            for source, node in pads.items():
                here = self.geometry.grid_by_axis(source)
                widths = [(0, 0)] * self.geometry.axes
                for axis, (pixels, _) in moves.items():
                    widths[axis] = (int(pixels / here[axis].stride), int(right[axis] / here[axis].stride))
                node.args = (source, widths, self.edit.padding_mode)
            self._again(pads.values(), merge)
            missing = {axis: size - self.geometry.grid_by_axis(end)[axis].size for axis, (_, size) in moves.items()}
            if not any(missing.values()):
                break
            for axis, positions in missing.items():
                right[axis] += positions * stride[axis]
        if (subsampled or any(missing.values())) and still is not None and self.geometry.is_feature_map(end):
            # with a stride between, images of other sizes may come out a position longer or shorter
            with self.graph.inserting_before(merge):
                fitted = self.graph.call_function(pad_or_crop_like, (end, still, self.edit.padding_mode))
            self.edit.register_inserted(fitted, arg, f"{layer_name(merge)} (padding)")
            merge.replace_input_with(end, fitted)
            self.geometry.step(fitted)

    def _edges(self, merge: fx.Node, arg: fx.Node, others: list[fx.Node]) -> list[Edge]:
        """Returns the edges by which a branch leaves the others."""
        trunk = _ancestors(others)
        if arg in trunk:
            return [(arg, merge)]
        branch = _ancestors([arg]) - trunk
        edges: list[Edge] = []
        for node in (n for n in self.graph.nodes if n in branch):
            for source in node.all_input_nodes:
                if source in trunk and self.geometry.has_positions(source):
                    edges.append((source, node))
                elif (
                    source in trunk
                    and self.geometry.is_feature_map(node)
                    and isinstance(self.geometry.grids.get(source), list)
                ):
                    # a part of a split: moved behind the split
                    edges += [(node, user) for user in node.users if user in branch or user is merge]
        usable = edges and all(self._order(source) for source, _ in edges)
        return edges if usable else [(arg, merge)]

    def _insert(self, merge: fx.Node, edges: list[Edge]) -> tuple[dict[fx.Node, fx.Node], dict[fx.Node, fx.Node]]:
        """Puts padding on each edge, one for all that begin at the same map, as late as possible.

        Maps whose axes are in another order, as (N, H, W, C), are brought into theirs before and back after it.

        Returns:
            The padding by the map (N, C, *spatial) that it pads, and what readers get by the map that they read.
        """
        pads: dict[fx.Node, fx.Node] = {}
        ends: dict[fx.Node, fx.Node] = {}
        for source, user in sorted(edges, key=lambda edge: edge[1]):
            order = self._order(source)
            if not order:
                raise LayerError(
                    f"layer {layer_name(merge)}: a branch whose axes are in an unusual order cannot be aligned"
                )
            if source not in ends:
                name = f"{layer_name(merge)} (padding)"
                back = [order.index(dim) for dim in range(len(order))]
                usual = order == sorted(order)
                with self.graph.inserting_before(user):
                    padded = source if usual else self.graph.call_function(torch.permute, (source, order))
                    pads[padded] = self.graph.call_function(pad, (padded, [], self.edit.padding_mode))
                    ends[source] = (
                        pads[padded] if usual else self.graph.call_function(torch.permute, (pads[padded], back))
                    )
                for node in (padded, pads[padded], ends[source]):
                    if node is not source:
                        self.edit.register_inserted(node, source, name)
                if not usual:
                    self.geometry.step(padded)
            user.replace_input_with(source, ends[source])
        return pads, ends

    def _order(self, source: fx.Node) -> list[int]:
        """Returns the axes of a map in the order (N, C, *spatial); nothing where it is no such map in any order."""
        grid = self.geometry.grids.get(source)
        if not isinstance(grid, tuple) or len(grid) != self.geometry.axes + 2:
            return []
        spatial = {entry.axis: dim for dim, entry in enumerate(grid) if isinstance(entry, AxisGrid)}
        rest = [dim for dim, entry in enumerate(grid) if not holds_positions(entry)]
        if len(spatial) != self.geometry.axes or len(rest) != 2:
            return []
        return [*rest, *(spatial[axis] for axis in range(self.geometry.axes))]

    def _again(self, pads: Iterable[fx.Node], merge: fx.Node) -> None:
        """Runs again what depends on new padding, up to a merge."""
        changed = set(pads)
        node = min(changed)
        while node is not merge:
            if node in changed or any(source in changed for source in node.all_input_nodes):
                changed.add(node)
                self.geometry.step(node)
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
