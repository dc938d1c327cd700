"""Sizes that a network reads of an earlier map, for a map that had the same size before the policies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, fx

from tinv.graph.grid import AxisGrid, grids_of
from tinv.graph.network_graph import layer_name
from tinv.graph.operations import Operation, function_name
from tinv.surgery.edit import GraphJob


class Sizes(GraphJob):
    """Makes steps such as `x.view(n, c, height, width)` read their sizes where their own map has them.

    Networks with tokens read the size of a map once, run layers that keep it, and shape the tokens by it later. Where
    the policy has made one of these layers change the size, it is read of the last map before the tokens.
    """

    def follow(self, node: fx.Node, op: Operation) -> None:
        """Changes the sizes that a node is given, where they are no longer those of its map."""
        if op.kind != "reshape" or not op.inputs or not self.policy.padding.resizes:
            return
        source = node.all_input_nodes[0]
        if not self._now(source):
            return
        copies: dict[fx.Node, fx.Node] = {}
        for number in node.all_input_nodes:
            if not isinstance(self.geometry.values.get(number), (Tensor, list)) and self._is_stale(number, source):
                copied = self._copy(number, source, node, copies)
                node.replace_input_with(number, copied)
        if copies:
            self.report.change(layer_name(node), "sizes read of its own map", "branches aligned")

    def _is_stale(self, number: fx.Node, source: fx.Node) -> bool:
        """Returns whether a number comes from the size of a map that was as large as the node's and is no more."""
        found = list(self._read(number))
        return bool(found) and any(self._parted(owner, source) and self._owner(number, source) for owner in found)

    def _read(self, number: fx.Node) -> Iterator[fx.Node]:
        """Yields the maps whose size a number comes from."""
        stack, seen = [number], set[fx.Node]()
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            for earlier in node.all_input_nodes:
                if isinstance(self.geometry.values.get(earlier), Tensor):
                    yield earlier
                else:
                    stack.append(earlier)

    def _now(self, node: fx.Node) -> dict[int, AxisGrid]:
        """Returns the positions of a map by axis of the image, those of tokens too."""
        return _by_axis(self.geometry.grids.get(node))

    def _before(self, node: fx.Node) -> dict[int, AxisGrid]:
        """Returns the positions that a map had before the policies."""
        return _by_axis(self.original.grids.get(node)) or self.edit.grid_before(node)

    def _parted(self, owner: fx.Node, source: fx.Node) -> bool:
        """Returns whether two maps had the same positions before the policies and have not now."""
        before, now = self._before, self._now
        if not before(owner) or before(owner).keys() != before(source).keys():
            return False
        same = all(_size(before(owner)[a]) == _size(before(source)[a]) for a in before(owner))
        return same and {a: g.size for a, g in now(owner).items()} != {a: g.size for a, g in now(source).items()}

    def _owner(self, number: fx.Node, source: fx.Node) -> fx.Node | None:
        """Returns the last map that has the positions of the node's own, laid out as the map that was read."""
        owner = next((o for o in self._read(number) if self._parted(o, source)), None)
        if owner is None:
            return None
        sizes = {axis: grid.size for axis, grid in self._now(source).items()}
        layout = _layout(self.geometry.grids.get(owner))
        node, ancestors = source, {source}
        while node.op != "placeholder":
            if node in ancestors:
                found = {axis: grid.size for axis, grid in self._now(node).items()}
                if found == sizes and layout and _layout(self.geometry.grids.get(node)) == layout:
                    return node
                ancestors.update(node.all_input_nodes)
            node = node.prev
        return None

    def _copy(self, number: fx.Node, source: fx.Node, before: fx.Node, copies: dict[fx.Node, fx.Node]) -> fx.Node:
        """Returns a copy of a number that is read of another map, where that changes a size and not the channels."""
        if number in copies:
            return copies[number]
        owner = next((n for n in number.all_input_nodes if isinstance(self.geometry.values.get(n), Tensor)), None)
        if owner is None and not any(self._parted(o, source) for o in self._read(number)):
            return number
        replaced: dict[fx.Node, fx.Node] = {}
        if owner is not None:
            read = self._owner(number, source) if self._parted(owner, source) else None
            if read is None or (function_name(number) != "getattr" and len(number.args) < 2):
                return number
            replaced[owner] = read
        for earlier in number.all_input_nodes:
            if earlier not in replaced and not isinstance(self.geometry.values.get(earlier), Tensor):
                replaced[earlier] = self._copy(earlier, source, before, copies)
        if function_name(number) == "getitem" and not self._is_spatial(number):
            return number
        with self.graph.inserting_before(before):
            copied = self.graph.node_copy(number, lambda n: replaced.get(n, n))
        self.edit.register_inserted(copied, number, f"{layer_name(before)} (size)")
        self.geometry.step(copied)
        copies[number] = copied
        return copied

    def _is_spatial(self, item: fx.Node) -> bool:
        """Returns whether an item of a shape is the size of an axis with positions, or several items."""
        shape, index = item.args[0], item.args[1]
        owner = next(iter(self._read(item)), None)
        grid: Any = self.geometry.grids.get(owner) if owner is not None else None
        if not isinstance(shape, fx.Node) or not isinstance(index, int) or not isinstance(grid, tuple):
            return True
        if function_name(shape) not in ("getattr", "size"):
            return True
        return isinstance(grid[index], AxisGrid)


def _by_axis(grid: Any) -> dict[int, AxisGrid]:
    return {part.axis: part for part in grids_of(grid)} if isinstance(grid, tuple) else {}


def _size(grid: AxisGrid) -> tuple[Any, ...]:
    return grid.size, grid.stride


def _layout(grid: Any) -> tuple[int | None, ...]:
    """Returns the axis of the image that each axis of a map holds; nothing for one that holds several in one."""
    if not isinstance(grid, tuple) or any(entry is not None and not isinstance(entry, AxisGrid) for entry in grid):
        return ()
    return tuple(entry.axis if isinstance(entry, AxisGrid) else None for entry in grid)
