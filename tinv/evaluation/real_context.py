"""The same weights without padding, on a larger cut of the picture: every position of the last map sees real pixels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from tinv.errors import TinvError
from tinv.graph.converted import geometry_of
from tinv.graph.geometry import GeometryInterpreter, total_stride
from tinv.graph.grid import AxisGrid, grids_of
from tinv.graph.network_graph import layer_name
from tinv.graph.whole_maps import check_reads_no_whole_map, is_known_map, whole_readers
from tinv.surgery.convert import ConvertedNetwork, convert

APART = "branches are "
"""How a note of `convert` begins that two branches could not be brought to the same pixels."""


@dataclass(frozen=True)
class RealContext:
    """A network whose positions all see real pixels, and the cut of the picture that it needs for a view.

    Attributes:
        network: The network without padding; the given one itself if it pads nothing.
        size: (H, W) of the cut in pixels.
        start: (y, x) where the cut begins, in pixels from the first of the view; below 0 where it begins before it.
        positions: (H, W) of the last map before the head, in both networks.
        stride: Total stride in pixels: a move by multiples of it moves every map by whole positions.
    """

    network: nn.Module
    size: tuple[int, int]
    start: tuple[int, int]
    positions: tuple[int, int]
    stride: int


@dataclass(frozen=True)
class _ReadMap:
    """A map whose positions the rest of the network reads as a whole: that before the head, or before a pooled branch.

    Attributes:
        layer: Layer that gives it.
        grid: Its grid by axis of the image.
    """

    layer: str
    grid: dict[int, AxisGrid]


def real_context(network: nn.Module, example: Tensor) -> RealContext:
    """Returns the network without padding, and the cut on which its last map has the same positions.

    The cut is computed from the geometry: of position i of the last map, centered on pixel offset + stride * i, the
    padded network has n. The unpadded one gives as many on (n - 1) * stride + receptive field pixels. The cut begins
    where both offsets are the same pixel of the picture.

    Args:
        network: In evaluation mode; it is left as it is.
        example: A view (N, C, H, W), of any values.

    Raises:
        TinvError: If the network cannot run without padding (see `tinv.convert`), chooses its positions by the image,
            or reads a whole map anywhere but in its head, since that map would be another one on the larger cut.
    """
    geometry = geometry_of(network, example[:1])
    maps = _read_maps(geometry)
    stride = math.lcm(*(total_stride(geometry, axis) for axis in range(geometry.axes)))
    view: Any = tuple(example.shape[2:])
    last = _last(maps, geometry.axes)
    positions: Any = tuple(last[axis].size for axis in range(geometry.axes))
    if not any(_at_border(maps, view)) and _pads_nothing(network, example):
        return RealContext(network, view, (0, 0), positions, stride)
    check_reads_no_whole_map(geometry, "larger on the cut")
    valid, size, start = _without_padding(network, example, last)
    found = _read_maps(geometry_of(valid, example.new_zeros(1, example.shape[1], *size)))
    _check_same(maps, found, start)
    if (beyond := next(_at_border(found, size), None)) is not None:
        raise TinvError(f"layer {beyond} still sees beyond the border of a cut of {size[0]}x{size[1]} pixels")
    return RealContext(valid, size, start, positions, stride)


def _without_padding(network: nn.Module, example: Tensor, last: dict[int, AxisGrid]) -> tuple[nn.Module, Any, Any]:
    """Returns the network without padding, the size of its cut, and where the cut begins in the view."""
    size = _size(last)
    valid = _convert(network, example.new_zeros(1, example.shape[1], *size))
    for note in valid.conversion.skipped:
        if note.text.startswith(APART):
            raise TinvError(f"layer {note.layer}: {note.text}")
    maps = _read_maps(geometry_of(valid, example.new_zeros(1, example.shape[1], *size)))
    after = _last(maps, len(size))
    apart = [last[axis].offset - after[axis].offset for axis in sorted(last)]
    if any(pixels.denominator != 1 for pixels in apart):
        raise TinvError("without padding the positions of the last map lie between those of the padded network")
    # branches that were cropped may see less than those of the padded network
    size = tuple(
        math.ceil(after[axis].high + after[axis].stride * (last[axis].size - 1)) + 1 for axis in range(len(size))
    )
    return valid, size, tuple(map(int, apart))


def _size(last: dict[int, AxisGrid]) -> tuple[int, ...]:
    """Returns the pixels that all positions of a map see together, on each axis."""
    return tuple(
        math.ceil(last[axis].receptive_field + abs(last[axis].stride) * (last[axis].size - 1)) for axis in sorted(last)
    )


def _convert(network: nn.Module, example: Tensor) -> ConvertedNetwork:
    with warnings.catch_warnings():
        # that nothing was changed, or that valid follows no shift exactly, is what this is for
        warnings.simplefilter("ignore")
        made = convert(network, padding="valid", pool="valid", example_input=example).eval()
    assert isinstance(made, ConvertedNetwork)
    return made


def _pads_nothing(network: nn.Module, example: Tensor) -> bool:
    """Returns whether a conversion to `valid` leaves a network as it is."""
    try:
        return not _convert(network, example[:1]).conversion.counts
    except TinvError:  # such as for maps that become smaller than a kernel
        return False


def _read_maps(geometry: GeometryInterpreter) -> list[_ReadMap]:
    """Returns the maps that something reads whole, in the order of the graph."""
    return [
        _ReadMap(layer_name(node), {part.axis: part for part in _parts(geometry, node)})
        for node in geometry.graph.nodes
        if is_known_map(geometry, node) and whole_readers(geometry, node)
    ]


def _parts(geometry: GeometryInterpreter, node: fx.Node) -> list[AxisGrid]:
    return [part for pair in geometry.tensors(node) if pair is not None for part in grids_of(pair[1])]


def _last(maps: list[_ReadMap], axes: int) -> dict[int, AxisGrid]:
    """Returns the grid of the map before the head."""
    if not maps or set(maps[-1].grid) != set(range(axes)):
        raise TinvError("the positions of its last map are not known")
    if chosen := next((part.choices for part in maps[-1].grid.values() if part.choices), None):
        raise TinvError(f"layer {chosen[0]} chooses the positions of the last map by the image")
    return maps[-1].grid


def _at_border(maps: Iterable[_ReadMap], size: tuple[int, ...]) -> Iterator[str]:
    """Yields the layers whose map has positions that see beyond the border of images of a size."""
    return (found.layer for found in maps for axis, part in found.grid.items() if part.positions_at_border(size[axis]))


def _check_same(before: list[_ReadMap], after: list[_ReadMap], start: tuple[int, ...]) -> None:
    """Raises TinvError unless both networks read the same positions of the picture."""
    if len(before) != len(after):
        raise TinvError("without padding the network reads other maps")
    for padded, valid in zip(before, after, strict=True):
        for axis, part in padded.grid.items():
            other = valid.grid.get(axis)
            same = other is not None and (other.size, other.stride) == (part.size, part.stride)
            if other is None or not same or other.offset + start[axis] != part.offset:
                raise TinvError(f"layer {padded.layer} has other positions without padding")
