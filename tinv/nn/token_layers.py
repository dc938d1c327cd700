"""Layers of vision transformers whose grid follows the content: patch embedding and patch merging.

They hold the weights of the layer whose place they take, under the same names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from tinv.nn.pad_widths import to_ntuple
from tinv.nn.precision import without_autocast
from tinv.nn.tokens import check_grid, exact_sums, first_largest, pixel_energies, roll_each, sum_by_phase

Energy = Literal["tokens", "pixels"]
"""What says how strong a patch grid is: the norm of the tokens that are made of it, or of its first pixels alone."""


class TokenLayer(nn.Module):
    """Base of layers of a grid of tokens that follow every circular shift of it.

    Attributes:
        token_axes: The two axes of its input, and of its output, that hold the grid.
        step: Positions of the input for each of the output, along both axes.
    """

    token_axes: tuple[int, int] = (1, 2)
    step: tuple[int, int] = (1, 1)

    def multiple(self) -> tuple[int, int]:
        """Returns the numbers that its input's sizes have to be multiples of."""
        return self.step

    def inner_values(self, shape: Sequence[int]) -> int:
        """Returns how many numbers its steps make, besides its output, of an input of a shape."""
        return math.prod(shape)


def take_over(layer: nn.Module, old: nn.Module) -> None:
    """Gives a layer the parameters, buffers and layers of another, under their names and in their order."""
    layer._parameters.update(old._parameters)
    layer._buffers.update(old._buffers)
    layer._non_persistent_buffers_set |= old._non_persistent_buffers_set
    layer._modules.update(old._modules)


class AdaptivePatchEmbedding(nn.Conv2d, TokenLayer):
    """A patch embedding whose patch grid is chosen by the image: A-token (Rojas-Gomez et al., CVPR 2024).

    There are p*q ways to lay a grid of patches of p x q pixels on a circular image. Energies are

    - `tokens`: the squared norm of all tokens that a grid gives, so that p*q rolled images are embedded, without a
      gradient;
    - `pixels`: the squared norm of the first pixels of the patches (Ding et al., 2023), which costs next to nothing.

    The first grid of largest energy is rolled to the origin and embedded, with a gradient. A circular shift of the
    image shifts the tokens by whole positions, if sizes are divisible by the patch and there are no ties.

    Args:
        in_channels: Channels C of the image.
        out_channels: Channels D of a token.
        patch: Pixels of a patch, one number or (p, q).
        energy: What says how strong a grid is.
        bias: Whether a bias is added.
        device: Device of the weights.
        dtype: Type of the weights.

    Shape:
        (N, C, H, W) -> (N, D, H / p, W / q).

    Raises:
        TinvError: When run, for images whose sizes the patch does not divide.

    Source:
        Rojas-Gomez et al., Making Vision Transformers Truly Shift-Equivariant, CVPR 2024, arXiv 2305.16316.

    Examples:
        >>> embed = AdaptivePatchEmbedding(3, 8, 4)
        >>> images = torch.randn(1, 3, 16, 16)
        >>> shifted, tokens = embed(images.roll((1, 6), (2, 3))).flatten(2), embed(images).flatten(2)
        >>> torch.allclose(shifted.sum(2), tokens.sum(2), atol=1e-5)
        True
    """

    token_axes = (2, 3)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        patch: int | Sequence[int],
        energy: Energy = "tokens",
        bias: bool = True,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        rows, columns = to_ntuple(patch, 2)
        patches = (rows, columns)
        super().__init__(in_channels, out_channels, patches, patches, bias=bias, device=device, dtype=dtype)
        self.step, self.energy = (rows, columns), energy

    @classmethod
    def of(cls, conv: nn.Conv2d, energy: Energy) -> AdaptivePatchEmbedding:
        """Returns one with the weights of a convolution whose kernel is its stride."""
        made = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            energy,
            conv.bias is not None,
            conv.weight.device,
            conv.weight.dtype,
        )
        take_over(made, conv)
        return made

    def forward(self, images: Tensor) -> Tensor:
        check_grid("pixels are no whole number of patches", images.shape[2:], self.step)
        with torch.no_grad():
            phase = first_largest(self.energies(images))
        return super().forward(roll_each(images, -phase))

    def energies(self, images: Tensor) -> Tensor:
        """Returns the energy (N, p, q) of every patch grid."""
        if self.energy == "pixels":
            return pixel_energies(images, self.step)
        rows, columns = self.step
        # autocast would round energies into ties
        with without_autocast(images):
            found = [
                exact_sums(super(AdaptivePatchEmbedding, self).forward(self._typed(images.roll((-i, -j), (2, 3)))))
                .square()
                .sum(dim=(1, 2, 3))
                for i in range(rows)
                for j in range(columns)
            ]
        return torch.stack(found, dim=1).view(-1, rows, columns)

    def _typed(self, images: Tensor) -> Tensor:
        return images.to(self.weight.dtype)

    def extra_repr(self) -> str:
        return f"{nn.Conv2d.extra_repr(self)}, energy={self.energy}"  # type: ignore[no-untyped-call]


class AdaptivePatchMerging(TokenLayer):
    """Patch merging whose 2x2 grid is chosen by the tokens: A-PMerge (Rojas-Gomez et al., CVPR 2024).

    Of the four polyphase components [i::2, j::2] of a map of tokens, the first of largest Euclidean norm is rolled to
    the origin. Then each 2x2 block becomes one token of 4C features: that at its corner, the one below, the one to the
    right, and that of both; a linear layer and a norm follow, in the order of the layer whose place this takes.

    Args:
        merging: Layer with the children `reduction` and `norm`, which are taken over.
        norm_first: Whether the norm comes before the reduction, as in Swin; in Swin V2 it comes after.

    Shape:
        (N, H, W, C) -> (N, H / 2, W / 2, D).

    Raises:
        TinvError: When run, for a map with an odd number of tokens along an axis.

    Source:
        Rojas-Gomez et al., Making Vision Transformers Truly Shift-Equivariant, CVPR 2024, arXiv 2305.16316.

    Examples:
        >>> from torchvision.models.swin_transformer import PatchMerging
        >>> merge = AdaptivePatchMerging(PatchMerging(6), norm_first=True)
        >>> merge(torch.randn(1, 8, 4, 6)).shape
        torch.Size([1, 4, 2, 12])
    """

    step = (2, 2)

    def __init__(self, merging: nn.Module, norm_first: bool) -> None:
        super().__init__()
        take_over(self, merging)
        self.norm_first = norm_first

    def forward(self, tokens: Tensor) -> Tensor:
        check_grid("tokens are no whole number of blocks", tokens.shape[1:3], self.step)
        with torch.no_grad():
            norms = exact_sums(tokens).square().sum(dim=-1)
            phase = first_largest(sum_by_phase(norms, self.step))
        rolled = roll_each(tokens, -phase, self.token_axes)
        count, height, width, channels = rolled.shape
        blocks = rolled.reshape(count, height // 2, 2, width // 2, 2, channels)
        merged = blocks.permute(0, 1, 3, 4, 2, 5).flatten(3)
        layers = [self.get_submodule("norm"), self.get_submodule("reduction")]
        for layer in layers if self.norm_first else layers[::-1]:
            merged = layer(merged)
        return merged

    def inner_values(self, shape: Sequence[int]) -> int:
        """Returns the numbers of the rolled map, of its blocks and, where the norm comes first, of that."""
        return (3 if self.norm_first else 2) * math.prod(shape)
