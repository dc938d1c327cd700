"""A border of zeros around the image: the padding of the first convolution, made as wide as wanted."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from tinv.errors import TinvError
from tinv.graph.converted import graph_of
from tinv.graph.operations import operation


def widen_border(network: nn.Module, border: int) -> None:
    """Lays zeros around every image that the network gets, from now on.

    Zeros that the first convolution adds itself are counted in: with `border` the image has so many zeros around it
    as if the padding of that convolution had been set to it (Kayhan & van Gemert 2020, section 3). Parameters keep
    their names.

    Args:
        network: Maps (N, C, H, W) to (N, classes); changed.
        border: Zeros a side in pixels; 0 changes nothing.

    Raises:
        TinvError: If the first convolution pads by more already.
    """
    if border == 0:
        return
    own = _first_padding(network)
    if border < own:
        raise TinvError(f"border={border}: the first convolution adds {own} zeros by itself; use 0 or {own} and more")
    more = border - own

    def widen(_: nn.Module, images: tuple[Tensor, ...]) -> Any:
        return (F.pad(images[0], (more,) * 4), *images[1:])

    network.register_forward_pre_hook(widen)


def _first_padding(network: nn.Module) -> int:
    """Returns the zeros a side that the first convolution adds."""
    for node in graph_of(network).nodes:
        found = operation(node, network, axes=2)
        if found.kind == "conv" and found.window is not None:
            if found.window.padding_mode != "zeros" or found.window.pad_widths is None:
                return 0
            return max(side for sides in found.window.pad_widths for side in sides)
    return 0
