"""Tiles of an image too large to be run at once, whose stitched output equals that of the whole image.

Position i of an output map sees the pixels `low + stride * i` to `high + stride * i`. A tile that begins at a multiple
of the total stride has the same grid as the whole image, so that its position i - start / stride is position i of the
whole. It has the same value if all pixels that it sees lie within the tile, or beyond a border that the tile shares
with the image. All tiles have one size, which leaves the same remainder after division by the total stride as the
image: the last tile ends with the image, and padding at its end is that of the whole.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from tinv.errors import TinvError
from tinv.graph.converted import geometry_of
from tinv.graph.geometry import GeometryInterpreter, map_strides
from tinv.graph.grid import AxisGrid
from tinv.graph.network_graph import layer_name
from tinv.graph.uneven import circular_axes
from tinv.graph.whole_maps import check_reads_no_whole_map

TOLERANCE = 1e-5
"""Largest difference of a stitched output to that of the whole image, relative to its largest value, in float32."""


@dataclass(frozen=True)
class AxisTile:
    """What one tile covers, along one axis.

    Attributes:
        start: First pixel of the tile in the image.
        parts: For each output, the positions that are kept: the first in the tile's own output, the first in that of
            the whole image, and how many.
    """

    start: int
    parts: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class TilePlan:
    """Which tiles of an image are run, and which positions of their outputs are kept.

    Attributes:
        image_size: (H, W) of the image.
        tile_size: (H, W) of every tile.
        alignment: For each axis, the total stride in pixels: tiles begin at multiples of it.
        halo: For each axis, the pixels before and after a tile's own part that it reads beside it.
        outputs: (h, w) of each output of the network on the whole image.
        axes: The tiles of each axis; every pair of them is a tile.
    """

    image_size: tuple[int, ...]
    tile_size: tuple[int, ...]
    alignment: tuple[int, ...]
    halo: tuple[tuple[int, int], ...]
    outputs: tuple[tuple[int, ...], ...]
    axes: tuple[tuple[AxisTile, ...], ...] = field(repr=False)

    @property
    def tiles(self) -> list[tuple[AxisTile, ...]]:
        """All tiles, row by row, one entry for each axis."""
        return list(itertools.product(*self.axes))

    @property
    def work(self) -> float:
        """Pixels that are run, in those of the image: 1.5 means half of the image is run twice."""
        return len(self.tiles) * math.prod(self.tile_size) / math.prod(self.image_size)

    @torch.no_grad()
    def run(self, network: nn.Module, image: Tensor) -> Any:
        """Returns what the network gives for a whole image, computed tile by tile.

        Args:
            network: The network that the plan was made for, in evaluation mode.
            image: (N, C, H, W), of any values.

        Returns:
            As the network does: a map (N, C', h, w), or a list or dictionary of them.

        Raises:
            TinvError: For an image of another size.
        """
        if tuple(image.shape[2:]) != self.image_size:
            raise TinvError(f"the plan is for images of {_text(self.image_size)}, not {_text(image.shape[2:])}")
        whole: list[Tensor] = []
        structure = None
        for tile in self.tiles:
            window = _window(slice(a.start, a.start + size) for a, size in zip(tile, self.tile_size, strict=True))
            maps, structure = pytree.tree_flatten(network(image[window]))
            if not whole:
                whole = [m.new_empty(*m.shape[:2], *size) for m, size in zip(maps, self.outputs, strict=True)]
            for number, (made, into) in enumerate(zip(maps, whole, strict=True)):
                parts = [axis.parts[number] for axis in tile]
                taken = _window(slice(first, first + count) for first, _, count in parts)
                put = _window(slice(to, to + count) for _, to, count in parts)
                into[put] = made[taken]
        assert structure is not None
        return pytree.tree_unflatten(whole, structure)

    def to_dict(self) -> dict[str, Any]:
        """Returns the plan as JSON can hold it: of each tile its window and, of each output, what is kept and where."""
        tiles = [
            {
                "start": [axis.start for axis in tile],
                "kept": [
                    {
                        "from": [axis.parts[number][0] for axis in tile],
                        "to": [axis.parts[number][1] for axis in tile],
                        "size": [axis.parts[number][2] for axis in tile],
                    }
                    for number in range(len(self.outputs))
                ],
            }
            for tile in self.tiles
        ]
        return {
            "image_size": list(self.image_size),
            "tile_size": list(self.tile_size),
            "alignment": list(self.alignment),
            "halo": [list(pair) for pair in self.halo],
            "outputs": [list(size) for size in self.outputs],
            "work": self.work,
            "tiles": tiles,
        }

    def lines(self) -> list[str]:
        """Returns what `tinv tiles` prints of it."""
        starts = [", ".join(str(tile.start) for tile in axis) for axis in self.axes]
        halo = " and ".join(f"{before} before and {after} after" for before, after in dict.fromkeys(self.halo))
        outputs = ", ".join(_text(size) for size in self.outputs)
        return [
            f"{len(self.tiles)} tiles of {_text(self.tile_size)} pixels for an image of {_text(self.image_size)}",
            f"output of the whole image: {outputs} positions",
            f"tiles begin at multiples of {_text(self.alignment)} pixels",
            f"halo, pixels read beside a tile's own part: {halo}",
            f"pixels run: {self.work:.2f} times those of the image",
            f"rows begin at {starts[0]}",
            *(f"columns begin at {text}" for text in starts[1:]),
        ]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def tile_plan(network: nn.Module, image_size: Sequence[int], tile_size: int | Sequence[int], channels: int) -> TilePlan:
    """Plans tiles whose stitched outputs equal the output for the whole image, from the geometry of the network.

    Args:
        network: Converted or not; every output is a map (N, C, *spatial). `trunk_of` gives that of a classifier.
        image_size: (H, W) of the image in pixels.
        tile_size: Most pixels (H, W) of a tile, or one number for all axes; tiles are a little smaller where they have
            to be.
        channels: Channels of the image.

    Raises:
        LayerError: Naming a layer that cannot be traced, or cannot run on a map of its size.
        TinvError: If an output has no positions, a layer reads a whole map, pads circularly, chooses its positions by
            the image or is not known, or tiles are too small for what a position sees.

    Examples:
        >>> network = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.Conv2d(2, 2, 3, padding=1)).eval()
        >>> plan = tile_plan(network, (64, 90), 32, channels=1)
        >>> plan.tile_size, plan.alignment, len(plan.tiles)
        ((32, 32), (2, 2), 12)
        >>> image = torch.rand(1, 1, 64, 90)
        >>> torch.allclose(plan.run(network, image), network(image), atol=1e-6)
        True
    """
    image = tuple(image_size)
    wanted = (tile_size,) * len(image) if isinstance(tile_size, int) else tuple(tile_size)
    dtype = next((weights.dtype for weights in network.parameters() if weights.is_floating_point()), torch.float32)
    geometry = geometry_of(network, torch.zeros(1, channels, *image, device="meta", dtype=dtype))
    _check(geometry)
    alignment = tuple(_alignment(geometry, axis) for axis in range(len(image)))
    size = tuple(_tile_size(*numbers) for numbers in zip(image, wanted, alignment, strict=True))
    whole = _outputs(geometry)
    example = geometry.example.new_zeros(1, channels, *size)
    tile = _outputs(GeometryInterpreter(geometry.graph, geometry.network, example).run())
    axes, halos = [], []
    for axis in range(len(image)):
        here, there = [grids[axis] for grids in whole], [grids[axis] for grids in tile]
        _check_same_grid(here, there, axis)
        tiles = tuple(_axis_tiles(here, image[axis], size[axis], alignment[axis], axis))
        axes.append(tiles)
        halos.append(_halo(here))
    sizes = tuple(tuple(grids[axis].size for axis in range(len(image))) for grids in whole)
    return TilePlan(image, size, alignment, tuple(halos), sizes, tuple(axes))


def _tile_size(image: int, most: int, alignment: int) -> int:
    """Returns the largest size up to `most` that leaves the same remainder as the image."""
    if most >= image:
        return image
    size = most - (most - image) % alignment
    if size < 1:
        raise TinvError(f"tiles of {most} pixels are smaller than the total stride, {alignment}; give larger tiles")
    return size


def _axis_tiles(grids: list[AxisGrid], image: int, size: int, alignment: int, axis: int) -> Iterator[AxisTile]:
    """Yields the tiles of one axis, each as far on as what it must add allows."""
    done = [0] * len(grids)  # positions of each output that earlier tiles have given
    start = 0
    while True:
        ends = [_last(grid, start, image, size) + 1 for grid in grids]
        shift = [start / grid.stride for grid in grids]
        yield AxisTile(
            start,
            tuple((begin - int(by), begin, end - begin) for begin, end, by in zip(done, ends, shift, strict=True)),
        )
        if start + size == image:
            return
        done = ends
        # the last start from which every output continues where the tile before has ended
        last = min(math.floor(grid.low + grid.stride * begin) for grid, begin in zip(grids, done, strict=True))
        following = min(image - size, last // alignment * alignment)
        if following <= start:
            least = size - last + start + alignment
            least += (image - least) % alignment
            raise TinvError(
                f"tiles of {size} pixels are too small along axis {axis}: positions of the output see "
                f"{max(math.ceil(grid.receptive_field) for grid in grids)} pixels; give tiles of {least} or more"
            )
        start = following


def _last(grid: AxisGrid, start: int, image: int, size: int) -> int:
    """Returns the last position whose pixels all lie in a tile, or beyond the end of the image."""
    if start + size == image:
        return grid.size - 1
    return min(grid.size - 1, math.floor((start + size - 1 - grid.high) / grid.stride))


def _halo(grids: list[AxisGrid]) -> tuple[int, int]:
    """Returns the most pixels that a position sees before and after those that it stands for."""
    before = [-(grid.low - grid.offset + (grid.stride - 1) / 2) for grid in grids]
    after = [grid.high - grid.offset - (grid.stride - 1) / 2 for grid in grids]
    return max(0, math.ceil(max(before))), max(0, math.ceil(max(after)))


def _alignment(geometry: GeometryInterpreter, axis: int) -> int:
    """Returns the least number of pixels that is a whole number of positions of every map."""
    # a / b positions apart: a pixels are b positions
    return math.lcm(1, *(stride.numerator for stride in map_strides(geometry, axis)))


def _outputs(geometry: GeometryInterpreter) -> list[dict[int, AxisGrid]]:
    """Returns the grids of all outputs by axis of the image."""
    output = next(node for node in geometry.graph.nodes if node.op == "output")
    leaves, _ = pytree.tree_flatten(output.args[0])
    found = []
    for leaf in leaves:
        if not isinstance(leaf, fx.Node):
            raise TinvError(f"the network returns {type(leaf).__name__}, which is no map of the image")
        if not geometry.is_feature_map(leaf):
            raise TinvError(
                f"output {layer_name(leaf)} has no positions of the image, (N, C, H, W): tiles are for maps; "
                "take the trunk of a classifier"
            )
        found.append(geometry.grid_by_axis(leaf))
    return found


def _check(geometry: GeometryInterpreter) -> None:
    """Refuses layers whose output at a position depends on more than the pixels that the geometry says."""
    check_reads_no_whole_map(geometry, "another one in a tile")
    if rings := sorted(set(circular_axes(geometry))):
        raise TinvError(f"axis {rings[0]} is padded circularly, so that its border sees the opposite one; no tile does")
    for node in geometry.graph.nodes:
        if node in geometry.graph.background:
            continue
        operation, reads = geometry.operations[node], node.all_input_nodes
        if operation.kind == "opaque" and any(geometry.has_positions(source) for source in reads):
            raise TinvError(f"layer {layer_name(node)} is not known to tinv, so that nothing is proven of its tiles")
        for part in geometry.grid_by_axis(node).values():
            if part.choices:
                raise TinvError(f"layer {part.choices[0]} chooses its positions by the whole image")
            if part.stride < 0:
                raise TinvError(f"layer {layer_name(node)} runs against the image, so that tiles cannot be aligned")


def _check_same_grid(whole: list[AxisGrid], tile: list[AxisGrid], axis: int) -> None:
    for here, there in zip(whole, tile, strict=True):
        if (here.offset, here.stride, here.low, here.high) != (there.offset, there.stride, there.low, there.high):
            raise TinvError(
                f"along axis {axis} a tile has another grid than the image, as where a map is resized to a fixed size"
            )


def _window(axes: Iterable[slice]) -> tuple[slice, ...]:
    """Returns the index of a part of maps (N, C, *spatial)."""
    return (slice(None), slice(None), *axes)


def _text(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
