"""Strided windows that stop before the end of their padded map, and the next size of the image where none does.

A window of k pixels (d(k-1)+1 with dilation d) and stride s on n pixels with p pixels of padding a side reads both
borders if and only if (n + 2p - k) mod s is 0. Else the last rows and columns of the padding, and without padding of
the map, are in no window: the start of the map is padded and its end is not (Alsallakh et al., "Mind the Pad", ICLR
2021).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from tinv.errors import TinvError
from tinv.graph.converted import geometry_of
from tinv.graph.functions import WINDOWS
from tinv.graph.geometry import GeometryInterpreter, total_stride
from tinv.graph.grid import AxisGrid
from tinv.graph.network_graph import layer_name


@dataclass(frozen=True)
class UnevenLayer:
    """A layer whose windows do not end where its padded map does, on one axis.

    Attributes:
        layer: Name of the layer.
        axis: Spatial axis of the image, 0 for the first.
        size: Pixels of the map that it reads along the axis, without its own padding.
        stride: Its stride.
        left_out: Pixels at the end of the padded map that are in no window; with `ceil_mode`, stride minus the pixels
            that the last window goes beyond it.
    """

    layer: str
    axis: int
    size: int
    stride: int
    left_out: int


@dataclass(frozen=True)
class UnevenPadding:
    """All layers of a network at one size whose padding is uneven.

    Attributes:
        layers: One for each layer and axis, in the order of running.
        next_even: For each spatial axis, the least size of the image, no smaller than the given one, at which no layer
            is uneven along it; None where none was found.
    """

    layers: tuple[UnevenLayer, ...]
    next_even: tuple[int | None, ...]

    def lines(self) -> list[str]:
        """Returns what `tinv inspect` prints of it; nothing where all padding is even."""
        if not self.layers:
            return []
        names = list(dict.fromkeys(found.layer for found in self.layers))
        count = "1 strided layer stops" if len(names) == 1 else f"{len(names)} strided layers stop"
        even = "x".join("?" if size is None else str(size) for size in self.next_even)
        where = f"the next size that is even everywhere is {even}"
        if None in self.next_even:
            where += " (?: no size is)"
        return [f"uneven padding: {count} before the end of the padded map ({', '.join(names)}); {where}"]


def uneven_padding(network: nn.Module, images: Tensor) -> UnevenPadding:
    """Finds the strided layers whose windows stop before the end of their padded map, and the next size that is even.

    Layers that carry a stride without windows of it (adaptive sampling, cuts of the spectrum) are never uneven, and
    neither is an axis of the image that any layer pads circularly: a ring has no border.

    Args:
        network: Converted or not; it is left as it is.
        images: One batch (N, C, *spatial) of any values.

    Raises:
        LayerError: Naming a layer that cannot be traced, or cannot run on a map of its size.

    Examples:
        >>> import torch
        >>> conv = nn.Conv2d(3, 4, 7, stride=2, padding=3)
        >>> found = uneven_padding(nn.Sequential(conv), torch.zeros(1, 3, 224, 225))
        >>> found.layers[0].left_out, found.next_even
        (1, (225, 225))
    """
    geometry = geometry_of(network, images)
    layers = tuple(_uneven(geometry))
    given = tuple(images.shape[2:])
    found: list[int | None] = [None if any(one.axis == axis for one in layers) else n for axis, n in enumerate(given)]
    # a map grows by whole strides with the image, so that all repeats from one total stride to the next
    for more in range(1, total_stride(geometry) + 1):
        missing = [axis for axis, size in enumerate(found) if size is None]
        if not missing:
            break
        size = tuple(n + more if axis in missing else n for axis, n in enumerate(given))
        try:
            example = geometry.example.new_zeros(*images.shape[:2], *size)
            larger = GeometryInterpreter(geometry.graph, geometry.network, example).run()
        except TinvError:
            # a network of one size, or a size that does not fit
            continue
        uneven = {one.axis for one in _uneven(larger)}
        for axis in missing:
            found[axis] = None if axis in uneven else size[axis]
    return UnevenPadding(layers, tuple(found))


def _uneven(geometry: GeometryInterpreter) -> Iterator[UnevenLayer]:
    rings = set(circular_axes(geometry))
    for node in geometry.graph.nodes:
        op = geometry.operations[node]
        window = op.window
        treats_all = op.kind == "polyphase" or getattr(op.module, "sees_all", False)
        if op.kind not in WINDOWS or window is None or treats_all or node in geometry.graph.background:
            continue
        grid = geometry.grid(op.inputs[0]) if geometry.has_positions(op.inputs[0]) else ()
        for number, entry in enumerate(grid[len(grid) - len(window.kernel) :]):
            if not isinstance(entry, AxisGrid) or entry.axis in rings or window.stride[number] == 1:
                continue
            free = entry.size + sum(window.widths(number, entry.size)) - window.effective_kernel_size(number)
            if free > 0 and (left_out := free % window.stride[number]):
                yield UnevenLayer(layer_name(node), entry.axis, entry.size, window.stride[number], left_out)


def circular_axes(geometry: GeometryInterpreter) -> Iterator[int]:
    """Yields the axes of the image that are padded circularly."""
    for node in geometry.graph.nodes:
        op = geometry.operations[node]
        source = op.inputs[0] if op.inputs else None
        if source is None or not geometry.has_positions(source) or not (op.window or op.pads):
            continue
        grid = geometry.grid(source)
        for dim, entry in enumerate(grid):
            if not isinstance(entry, AxisGrid):
                continue
            if op.pads is not None and any(op.pads.of(dim, len(grid))):
                circular = op.pads.mode_of(dim, len(grid)) == "circular"
            else:
                number = dim - len(grid) + len(op.window.kernel) if op.window is not None else -1
                padded = op.window is not None and number >= 0 and any(op.window.widths(number, entry.size))
                circular = padded and op.window is not None and op.window.mode_of(number) == "circular"
            if circular:
                yield entry.axis
