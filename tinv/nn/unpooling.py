"""How a subsampled map is put back to the pixels that it was taken from: for decoders, such as that of a U-Net."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tinv.errors import TinvError
from tinv.nn.pad_widths import to_ntuple
from tinv.nn.padding import check_axes


class PolyphaseUnpooling(nn.Module):
    """Puts a map back to the component that it was chosen from, of a map that is zero elsewhere (APS-U and LPS-U).

    It is the transpose of adaptive or learned polyphase sampling without a blur (Chaman & Dokmanic, 2021, arXiv
    2105.04040; Rojas-Gomez et al., NeurIPS 2022, arXiv 2210.08001). Pool, circular convolutions and unpooling together
    follow every circular shift exactly, on sizes that the stride divides.

    Args:
        stride: Pixels, one number for all axes or one for each; that of the layer that chose.

    Shape:
        maps (N, C, *spatial'), choice (N,) or (N, P), size *spatial -> (N, C, *spatial), one to three spatial axes;
        spatial' = ceil(spatial / stride). What was added at the end, where the stride does not divide, is left out.

    Raises:
        TinvError: When run, for maps whose size does not fit, or a choice of another number of components.

    Examples:
        >>> from tinv.nn import AdaptivePolyphaseSampling, PaddedConv2d, PolyphaseUnpooling
        >>> pool, unpool = AdaptivePolyphaseSampling(2), PolyphaseUnpooling(2)
        >>> conv = PaddedConv2d(3, 5, 3, padding_mode="circular").double()
        >>> def network(images):
        ...     maps, choice = pool.sample_with_choice(images)
        ...     return unpool(conv(maps), choice, images.shape[2:])
        >>> images = torch.randn(2, 3, 8, 6, dtype=torch.double)
        >>> network(images).shape
        torch.Size([2, 5, 8, 6])
        >>> moved = network(images.roll((3, 1), (2, 3)))
        >>> torch.allclose(moved, network(images).roll((3, 1), (2, 3)), rtol=0, atol=1e-12)
        True
    """

    def __init__(self, stride: int | Sequence[int] = 2) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, maps: Tensor, choice: Tensor, size: Sequence[int]) -> Tensor:
        axes = len(size)
        check_axes("unpooling", maps, axes)
        stride = to_ntuple(self.stride, axes)
        expected = tuple(-(-pixels // s) for pixels, s in zip(size, stride, strict=True))
        if tuple(maps.shape[2:]) != expected:
            raise TinvError(
                f"unpooling: maps of {_text(maps.shape[2:])} cannot fill {_text(size)} pixels at stride "
                f"{_text(stride)}, which takes {_text(expected)}"
            )
        phases = torch.Size(stride).numel()
        weights = nn.functional.one_hot(choice, phases) if choice.dim() == 1 else choice
        if weights.shape[1] != phases:
            raise TinvError(f"unpooling: the choice is among {weights.shape[1]} components, the stride has {phases}")
        # (N, s, s, 1, 1, 1) * (N, 1, 1, C, h, w)
        ones = (1,) * axes
        placed = weights.to(maps.dtype).view(-1, *stride, 1, *ones) * maps.view(maps.shape[0], *ones, *maps.shape[1:])
        # (N, s, s, C, h, w) -> (N, C, h, s, w, s)
        order = [dim for axis in range(axes) for dim in (2 + axes + axis, 1 + axis)]
        whole = placed.permute(0, 1 + axes, *order).reshape(
            *maps.shape[:2], *(count * s for count, s in zip(expected, stride, strict=True))
        )
        return whole[(slice(None), slice(None), *(slice(0, pixels) for pixels in size))]

    def extra_repr(self) -> str:
        return f"stride={self.stride}"


def _text(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))
