"""Relative position biases on a ring: for attention between all tokens of a circular map."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F

from tinv.nn.token_layers import take_over
from tinv.nn.window_attention import check_window, relative_index


class CircularPositionBias(nn.Module):
    """A relative position bias of timm whose distances are those on the ring of the map: A-RPE for a whole map.

    For each pair of tokens it holds the number of their distance along both axes, from -(h//2) to (h-1)//2 and from
    -(w//2) to (w-1)//2, so that a circular shift of the tokens changes nothing. The weights are those of the bias whose
    place it takes, a table or a small network over distances, under their own names.

    Args:
        bias: `RelPosBias` or `RelPosMlp` of timm.

    Source:
        Rojas-Gomez et al., Making Vision Transformers Truly Shift-Equivariant, CVPR 2024, arXiv 2305.16316.

    Examples:
        >>> from timm.layers import RelPosBias
        >>> import torch
        >>> bias = CircularPositionBias(RelPosBias((4, 4), num_heads=2)).get_bias()
        >>> grid = bias.view(2, 4, 4, 4, 4)
        >>> torch.equal(grid, grid.roll((1, 1), (1, 3)))
        True
    """

    def __init__(self, bias: nn.Module) -> None:
        super().__init__()
        own: Any = bias
        take_over(self, bias)
        self.prefix_tokens = int(own.prefix_tokens)
        self.window, self.num_heads = check_window(own.window_size), int(own.bias_shape[-1])
        self.gain = getattr(own, "bias_gain", None)
        # made once: the traced network reads it as a constant
        index = relative_index(self.window, (True, True))
        if self.prefix_tokens and "relative_position_bias_table" in self._parameters:
            # the last three rows of the table: from the class token, to it, and between class tokens
            first = (2 * self.window[0] - 1) * (2 * self.window[1] - 1)
            index = F.pad(index, (1, 0, 1, 0), value=first + 1)
            index[0], index[0, 0] = first, first + 2
        self.register_buffer("ring_index", index, persistent=False)

    def get_bias(self) -> Tensor:
        """Returns the numbers for each pair of tokens, (1, heads, h w, h w)."""
        table = self._parameters.get("relative_position_bias_table")
        table_is_made = table is None
        if table is None:
            table = self.get_submodule("mlp")(self.rel_coords_log).view(-1, self.num_heads)
        bias: Tensor = table[cast(Tensor, self.ring_index)].permute(2, 0, 1)
        if "bias_act" in self._modules:
            bias = self.get_submodule("bias_act")(bias)
        bias = bias if self.gain is None else bias * self.gain
        if self.prefix_tokens and table_is_made:
            bias = F.pad(bias, (self.prefix_tokens, 0, self.prefix_tokens, 0))
        return bias.unsqueeze(0).contiguous()

    def forward(self, attention: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:
        """Returns attention (N, heads, h w, h w) before the softmax, with the bias added."""
        return attention + self.get_bias()

    def extra_repr(self) -> str:
        return f"window={self.window}, heads={self.num_heads}"
