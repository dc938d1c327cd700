"""A plan of tiles tried on an image: stitched against whole, and with tiles that are one pixel off."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tinv.graph.tile_plan import TOLERANCE, TilePlan, tile_plan


@dataclass(frozen=True)
class TileProof:
    """How far stitched outputs are from those of the whole image, relative to their largest value.

    Attributes:
        image_size: (H, W) of the image that was run.
        tiles: Number of tiles.
        aligned: Largest difference of the tiles of the plan.
        unaligned: Largest difference where all tiles but those at the borders begin one pixel later; None if the total
            stride is 1 or there is no such tile.
    """

    image_size: tuple[int, ...]
    tiles: int
    aligned: float
    unaligned: float | None

    @property
    def holds(self) -> bool:
        """Whether stitched equals whole."""
        return self.aligned <= TOLERANCE

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as JSON can hold it."""
        return asdict(self) | {"holds": self.holds}

    def lines(self) -> list[str]:
        """Returns what `tinv tiles` prints of it."""
        size = "x".join(map(str, self.image_size))
        found = "equal the whole" if self.holds else "DIFFER from the whole"
        said = [
            f"tried on {size} pixels, {self.tiles} tiles: stitched tiles {found} (relative error {self.aligned:.1e})"
        ]
        if self.unaligned is not None:
            said.append(f"tiles that begin one pixel later give a relative error of {self.unaligned:.1e}")
        return said


def prove(network: nn.Module, plan: TilePlan, image: Tensor) -> TileProof:
    """Runs a network on a whole image, tile by tile, and on tiles that are not aligned.

    Args:
        network: The network that the plan was made for, in evaluation mode.
        plan: The plan.
        image: (N, C, H, W), of the size of the plan.

    Raises:
        TinvError: For an image of another size.
    """
    with torch.no_grad():
        whole = network(image)
    moved = unaligned(plan)
    off = None if moved is None else _error(moved.run(network, image), whole)
    return TileProof(plan.image_size, len(plan.tiles), _error(plan.run(network, image), whole), off)


def proof_plan(network: nn.Module, plan: TilePlan, channels: int) -> TilePlan:
    """Returns a plan of the same tiles for a smaller image, of about three tiles an axis.

    Args:
        network: The network that the plan was made for.
        plan: The plan.
        channels: Channels of the image.
    """
    sizes = []
    for image, tile, alignment in zip(plan.image_size, plan.tile_size, plan.alignment, strict=True):
        most = 3 * tile
        sizes.append(image if most >= image else most - (most - image) % alignment)
    return tile_plan(network, sizes, plan.tile_size, channels)


def unaligned(plan: TilePlan) -> TilePlan | None:
    """Returns a plan whose inner tiles begin one pixel later; None where that would be as good, or there are none.

    Args:
        plan: The plan.
    """
    axes, changed = [], False
    for tiles, alignment in zip(plan.axes, plan.alignment, strict=True):
        inner = tiles[1:-1] if alignment > 1 else ()
        changed |= bool(inner)
        moved = [replace(tile, start=tile.start + 1) for tile in inner]
        axes.append((tiles[0], *moved, tiles[-1]) if inner else tiles)
    return replace(plan, axes=tuple(axes)) if changed else None


def _error(stitched: Any, whole: Any) -> float:
    pairs = zip(pytree.tree_leaves(stitched), pytree.tree_leaves(whole), strict=True)
    return max(
        float((made - true).abs().max() / true.abs().max().clamp(min=torch.finfo(true.dtype).tiny))
        for made, true in pairs
    )
