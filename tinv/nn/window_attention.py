"""Window attention whose grid is chosen by the tokens: the attention of Swin that follows every circular shift."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinv.errors import TinvError
from tinv.nn.token_layers import TokenLayer, take_over
from tinv.nn.tokens import check_grid, exact_sums, first_largest, roll_each, sum_by_phase

_LARGEST_SCALE = math.log(100.0)
"""Bound of the logarithm of the factor of cosine attention (Liu et al., Swin V2, CVPR 2022)."""


class AdaptiveWindowAttention(TokenLayer):
    """Window attention of Swin whose window grid is chosen by the tokens: A-WSA (Rojas-Gomez et al., CVPR 2024).

    There are h*w ways to lay a grid of windows of h x w tokens on a circular map. That of largest energy
    (`window_energies`), the first of equals, is rolled to the origin; a shifted window is rolled by its shift more.
    Attention runs in each window, without the mask of the border, since the map is a ring, and the map is rolled back.
    Along an axis that one window covers, there is one grid, and relative positions are those on the ring
    (`relative_index`). So a circular shift of the map shifts the output alike, if the window divides the map and there
    are no ties.

    The weights are those of a window attention of timm or torchvision, of Swin and Swin V2 (cosine attention, whose
    relative positions come from a small network), under their own names.

    Args:
        attention: The attention whose place it takes.
        window: Tokens (h, w) of a window.
        shift: Tokens by which windows are shifted against the chosen grid.

    Shape:
        (N, H, W, C) -> the same; h divides H, and w divides W.

    Raises:
        TinvError: When run, for a map that windows do not divide.

    Source:
        Rojas-Gomez et al., Making Vision Transformers Truly Shift-Equivariant, CVPR 2024, arXiv 2305.16316.

    Examples:
        >>> from torchvision.models.swin_transformer import ShiftedWindowAttention
        >>> attend = AdaptiveWindowAttention(ShiftedWindowAttention(6, [4, 4], [2, 2], 2), (4, 4), (2, 2))
        >>> tokens = torch.randn(1, 8, 8, 6)
        >>> torch.allclose(attend(tokens.roll((1, 3), (1, 2))), attend(tokens).roll((1, 3), (1, 2)), atol=1e-6)
        True
    """

    qkv: nn.Linear
    proj: nn.Linear

    def __init__(self, attention: nn.Module, window: Sequence[int], shift: Sequence[int] = (0, 0)) -> None:
        super().__init__()
        own: Any = attention
        take_over(self, attention)
        self.window, self.shift = check_window(window), (int(shift[0]), int(shift[1]))
        self.num_heads = int(own.num_heads)
        self.dropouts = tuple(
            float(getattr(own, plain) if hasattr(own, plain) else getattr(own, layer).p)
            for plain, layer in (("attention_dropout", "attn_drop"), ("dropout", "proj_drop"))
        )

    def multiple(self) -> tuple[int, int]:
        """Returns the sizes of a window."""
        return self.window

    def inner_values(self, shape: Sequence[int]) -> int:
        """Returns the numbers of both rolls, windows, queries, keys, values, products, weights and projection."""
        return 8 * math.prod(shape) + 3 * math.prod(shape[:3]) * self.num_heads * math.prod(self.window)

    def forward(self, tokens: Tensor) -> Tensor:
        check_grid("tokens are no whole number of windows", tokens.shape[1:3], self.window)
        height, width = tokens.shape[1:3]
        circular = (height == self.window[0], width == self.window[1])
        if all(circular):
            return self.attend(tokens, circular)
        with torch.no_grad():
            origin = self.origin(tokens, circular)
        return roll_each(self.attend(roll_each(tokens, -origin, (1, 2)), circular), origin, (1, 2))

    def origin(self, tokens: Tensor, circular: tuple[bool, bool]) -> Tensor:
        """Returns the row and the column (N, 2) of the token at which the chosen windows begin."""
        energies = window_energies(tokens, self.window)
        # one window that goes round an axis is the same wherever it begins
        energies = energies[:, :1] if circular[0] else energies
        energies = energies[:, :, :1] if circular[1] else energies
        shift = [0 if is_ring else by for is_ring, by in zip(circular, self.shift, strict=True)]
        return first_largest(energies) + torch.tensor(shift, device=tokens.device)

    def attend(self, tokens: Tensor, circular: tuple[bool, bool]) -> Tensor:
        """Returns attention (N, H, W, C) in the windows of a grid that begins at the first token."""
        count, height, width, channels = tokens.shape
        rows, columns = self.window
        windows = tokens.reshape(count, height // rows, rows, width // columns, columns, channels)
        windows = windows.permute(0, 1, 3, 2, 4, 5).reshape(-1, rows * columns, channels)
        query, key, value = self._queries(windows)
        attention, (of_attention, of_output) = self._logits(query, key), self.dropouts
        weights = (attention + self.position_bias(circular)).softmax(dim=-1)
        found = F.dropout(weights, of_attention, self.training) @ value
        found = self.proj(found.transpose(1, 2).flatten(2))
        found = F.dropout(found, of_output, self.training)
        found = found.view(count, height // rows, width // columns, rows, columns, -1)
        return found.permute(0, 1, 3, 2, 4, 5).reshape(count, height, width, -1)

    def position_bias(self, circular: tuple[bool, bool]) -> Tensor:
        """Returns what is added for each pair of tokens of a window, (1, heads, h w, h w)."""
        network, index = self._modules.get("cpb_mlp"), relative_index(self.window, circular, self.proj.weight.device)
        if network is None:
            return cast(Tensor, self.relative_position_bias_table)[index].permute(2, 0, 1).unsqueeze(0)
        table: Tensor = network(self.relative_coords_table).view(-1, self.num_heads)
        return 16 * table[index].permute(2, 0, 1).unsqueeze(0).sigmoid()

    def _queries(self, windows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns queries, keys and values, (windows, heads, h w, features) each."""
        parts = F.linear(windows, self.qkv.weight, self._bias())
        query, key, value = parts.view(*parts.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def _bias(self) -> Tensor | None:
        """Returns the bias of queries, keys and values; in cosine attention keys have none."""
        bias, query = self.qkv.bias, self._parameters.get("q_bias")
        if query is not None:
            own = torch.cat((query, torch.zeros_like(query), cast(Tensor, self.v_bias)))
            return own if bias is None else own + bias
        if bias is None or "logit_scale" not in self._parameters:
            return bias
        of_query, _, of_value = bias.chunk(3)
        return torch.cat((of_query, torch.zeros_like(of_query), of_value))

    def _logits(self, query: Tensor, key: Tensor) -> Tensor:
        """Returns how much each token of a window attends to each, (windows, heads, h w, h w), before the softmax."""
        scale = self._parameters.get("logit_scale")
        if scale is None:
            return (query / math.sqrt(query.shape[-1])) @ key.transpose(-2, -1)
        cosine = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1)
        logits: Tensor = cosine * scale.clamp(max=_LARGEST_SCALE).exp()
        return logits

    def extra_repr(self) -> str:
        return f"window={self.window}, shift={self.shift}, heads={self.num_heads}"


def relative_index(window: tuple[int, int], circular: tuple[bool, bool], device: torch.device | None = None) -> Tensor:
    """Returns the row of a table of relative positions for each pair of tokens of a window: A-RPE.

    The table holds the distances -(h-1)..h-1 and -(w-1)..w-1, by rows. Along a circular axis, distances are those on
    the ring of its positions, from -(h//2) to (h-1)//2.

    Args:
        window: Tokens (h, w).
        circular: For both axes, whether the window goes round the whole map.
        device: Where to.

    Returns:
        (h w, h w) integers.

    Examples:
        >>> relative_index((1, 3), (False, False))
        tensor([[2, 1, 0],
                [3, 2, 1],
                [4, 3, 2]])
        >>> relative_index((1, 3), (False, True))
        tensor([[2, 1, 3],
                [3, 2, 1],
                [1, 3, 2]])
    """
    by_axis = []
    for size, is_ring in zip(window, circular, strict=True):
        places = torch.arange(size, device=device)
        distance = places[:, None] - places[None, :]
        if is_ring:
            distance = (distance + size // 2) % size - size // 2
        by_axis.append(distance + size - 1)
    rows, columns = by_axis
    height, width = window
    index = rows[:, None, :, None] * (2 * width - 1) + columns[None, :, None, :]
    return index.reshape(height * width, height * width)


def window_energies(tokens: Tensor, window: tuple[int, int]) -> Tensor:
    """Returns how strong each window grid is, (N, h, w): the variance, over its windows, of their mean token norm.

    The norm of a token is the sum of its magnitudes, since layer norms make the Euclidean norms of all tokens nearly
    equal. The mean over all windows is the same for every grid, so that the largest variance is the largest sum of
    squares.

    Args:
        tokens: (N, H, W, C), whose sizes the window divides.
        window: Tokens (h, w).
    """
    norms = exact_sums(exact_sums(tokens).abs().sum(dim=-1))
    rows, columns = window
    means = F.avg_pool2d(F.pad(norms[:, None], (0, columns - 1, 0, rows - 1), mode="circular"), window, 1)[:, 0]
    return sum_by_phase((means - norms.mean(dim=(1, 2), keepdim=True)).square(), window)


def check_window(window: Sequence[int]) -> tuple[int, int]:
    """Returns the two sizes of a window; raises TinvError if they are not two numbers of one token or more."""
    sizes = tuple(int(size) for size in window)
    if len(sizes) != 2 or min(sizes) < 1:
        raise TinvError(f"a window has two sizes of 1 token or more, not {tuple(window)}")
    return sizes[0], sizes[1]
