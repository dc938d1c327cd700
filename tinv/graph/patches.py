"""The patch grid of a network: the convolution that cuts the image into patches, and how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from tinv.nn.token_layers import AdaptivePatchEmbedding
from tinv.nn.tokens import PolyphaseAnchor


@dataclass(frozen=True)
class PatchGrid:
    """The patches that a network cuts its image into.

    Attributes:
        layer: Name of the convolution that embeds them.
        patch: Pixels (h, w) of a patch.
        grid: Patches along both axes.
        begins: Where the first patch begins: `at the border`, or what chooses it.
    """

    layer: str
    patch: tuple[int, int]
    grid: tuple[int, int]
    begins: str = "at the border"

    def __str__(self) -> str:
        patches, pixels = ("x".join(map(str, numbers)) for numbers in (self.grid, self.patch))
        return f"patch grid: {patches} patches of {pixels} pixels ({self.layer}), which begin {self.begins}"


def patch_grid(network: nn.Module, size: Sequence[int]) -> PatchGrid | None:
    """Returns the patch grid of a network, converted or not; None for one that does not cut its image into patches.

    Args:
        network: Network.
        size: (H, W) in pixels.

    Examples:
        >>> print(patch_grid(nn.Sequential(nn.Conv2d(3, 8, 4, stride=4)), (32, 24)))
        patch grid: 8x6 patches of 4x4 pixels (0), which begin at the border
    """
    found = patch_embedding(network)
    if found is None or len(size) != 2:
        return None
    name, conv = found
    patch = (conv.kernel_size[0], conv.kernel_size[1])
    begins = "at the border"
    if isinstance(conv, AdaptivePatchEmbedding):
        begins = f"where their {'tokens are' if conv.energy == 'tokens' else 'first pixels are'} strongest"
    elif any(isinstance(module, PolyphaseAnchor) for module in network.modules()):
        begins = "at the border of the anchored image"
    return PatchGrid(name, patch, (size[0] // patch[0], size[1] // patch[1]), begins)


def patch_embedding(network: nn.Module) -> tuple[str, nn.Conv2d] | None:
    """Returns the name and the convolution that embeds patches: the first one, if its kernel is its stride."""
    convs = ((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    name, conv = next(convs, ("", None))
    if conv is None or tuple(conv.kernel_size) != tuple(conv.stride) or max(conv.kernel_size) < 2:
        return None
    plain = conv.groups == 1 and tuple(conv.dilation) == (1, 1) and conv.padding in (0, (0, 0), "valid")
    return (name, conv) if plain else None
