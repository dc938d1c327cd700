"""Puts the token policy onto vision transformers: an anchored input, or layers whose grid follows the content."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tinv.errors import LayerError, TinvError
from tinv.graph.account import Conversion
from tinv.graph.patches import patch_embedding
from tinv.nn.position_bias import CircularPositionBias
from tinv.nn.token_layers import AdaptivePatchEmbedding, AdaptivePatchMerging, TokenLayer
from tinv.nn.window_attention import AdaptiveWindowAttention
from tinv.policies.conversion import ConversionPolicy

_TIMM = ("timm.models.swin_transformer", "timm.models.swin_transformer_v2")
_TORCHVISION = "torchvision.models.swin_transformer"
_BLOCKS = {(_TIMM[0], "SwinTransformerBlock"), (_TIMM[1], "SwinTransformerV2Block")}
"""Blocks of timm, whose attention takes windows that the block cuts, by module and name."""
_ATTENTIONS = {(_TORCHVISION, "ShiftedWindowAttention"), (_TORCHVISION, "ShiftedWindowAttentionV2")}
"""Attentions of torchvision, which take the whole map."""
_MERGINGS = {
    (_TIMM[0], "PatchMerging"): True,
    (_TIMM[1], "PatchMerging"): False,
    (_TORCHVISION, "PatchMerging"): True,
    (_TORCHVISION, "PatchMergingV2"): False,
}
"""Layers that merge patches, each with whether its norm comes before its linear layer."""
_POSITION_BIASES = {("timm.layers.pos_embed_rel", "RelPosBias"), ("timm.layers.pos_embed_rel", "RelPosMlp")}
_WINDOWED = ("WindowAttention", "WindowMultiHead", "PartitionAttention", "PatchMerging", "LocallyGroupedAttn")
"""Parts of the names of classes of window attention and patch merging."""
_RELATIVE = (
    *("relative_position_bias_table", "relative_position_bias", "relative_attention_bias", "rel_pos_bias"),
    *("attention_biases", "attention_bias_table", "rel_pos_h", "rel_pos_w", "rel_height", "rel_width"),
)
"""Names of parameters with a number for each distance of two positions."""
_ABSOLUTE = ("pos_embed", "pos_embedding", "position_embedding", "position_embeddings", "absolute_pos_embed")
"""Names of parameters and buffers with a number for each position."""


def adapt_tokens(network: nn.Module, policy: ConversionPolicy, conversion: Conversion) -> None:
    """Replaces the layers of a network that lay a grid over its tokens by those whose grid follows the content.

    Args:
        network: Network, which is changed; the new layers hold its weights under their names.
        policy: All policies together.
        conversion: Takes notes of what is done.

    Raises:
        TinvError: For a network without a patch embedding.
        LayerError: Naming a patch embedding that is no plain convolution.
    """
    if not policy.tokens.treats_tokens:
        return
    name, conv = checked_patch_embedding(network, policy)
    if policy.tokens.anchors_input:
        return
    _Adapter(network, policy, conversion).run(name, conv)


def check_token_sizes(network: nn.Module, policy: ConversionPolicy, size: Sequence[int]) -> None:
    """Raises TinvError for images that the patches, or the windows, of a network do not divide.

    Args:
        network: Network after `adapt_tokens`.
        policy: All policies together.
        size: (H, W) in pixels.
    """
    if not policy.tokens.treats_tokens:
        return
    if policy.tokens.anchors_input:
        _, conv = checked_patch_embedding(network, policy)
        step, factors = list(conv.kernel_size), "the patch"
    else:
        step, factors = _multiple(network), "patch x window x merges"
    if all(pixels % by == 0 for pixels, by in zip(size, step, strict=True)):
        return
    works = [-(-pixels // by) * by for pixels, by in zip(size, step, strict=True)]
    given, by_text, next_size = ("x".join(map(str, numbers)) for numbers in (size, step, works))
    raise TinvError(
        f"tokens={policy.tokens} is exact on sizes divisible by {by_text} ({factors}), which {given} is not; the next "
        f"size that works is {next_size}"
    )


def to_device(network: nn.Module, device: torch.device) -> None:
    """Moves the buffers that `adapt_tokens` has added to where a network's weights are."""
    for module in network.modules():
        if isinstance(module, CircularPositionBias):
            module.to(device)


def checked_patch_embedding(network: nn.Module, policy: ConversionPolicy) -> tuple[str, nn.Conv2d]:
    """Returns the name and the convolution that embeds patches; raises TinvError for a network without one."""
    found = patch_embedding(network)
    if found is None:
        raise TinvError(
            f"tokens={policy.tokens} is for networks of patches, such as ViT, DeiT and Swin; {type(network).__name__} "
            "has none: its first convolution is no embedding of patches, with its stride for a kernel"
        )
    return found


def _multiple(network: nn.Module) -> list[int]:
    """Returns the least number of pixels, along both axes, that every layer of tokens divides."""
    stride, least = [1, 1], [1, 1]
    for module in network.modules():
        if isinstance(module, TokenLayer):
            needs = module.multiple()
            least = [math.lcm(old, by * n) for old, by, n in zip(least, stride, needs, strict=True)]
            stride = [by * step for by, step in zip(stride, module.step, strict=True)]
    return least


class _Adapter:
    def __init__(self, network: nn.Module, policy: ConversionPolicy, conversion: Conversion) -> None:
        self.network, self.policy, self.report = network, policy, conversion

    def run(self, embedding: str, conv: nn.Conv2d) -> None:
        kinds = {name: (type(m).__module__, type(m).__name__) for name, m in self.network.named_modules()}
        has_windows = any(kind in _BLOCKS | _ATTENTIONS for kind in kinds.values())
        if type(conv) is not nn.Conv2d or conv._forward_hooks or conv._forward_pre_hooks:
            # a subclass computes its weights in another way, and hooks would be lost
            raise LayerError(
                f"layer {embedding} ({type(conv).__name__}): tokens={self.policy.tokens} takes plain convolutions "
                "without hooks as embeddings of patches; tokens=anchor takes any"
            )
        layer = AdaptivePatchEmbedding.of(conv, "tokens" if has_windows else "pixels")
        grid = "x".join(map(str, layer.step))
        self.put(
            embedding, layer, f"patches of {grid} begin where their {layer.energy} are strongest", "patch grids chosen"
        )
        for name, kind in kinds.items():
            module: Any = self.network.get_submodule(name) if name else self.network
            if kind in _BLOCKS:
                self.window(f"{name}.attn", module.attn, module.window_size, module.shift_size)
            elif kind in _ATTENTIONS:
                self.window(name, module, module.window_size, module.shift_size)
            elif kind in _MERGINGS:
                merging = AdaptivePatchMerging(module, _MERGINGS[kind])
                self.put(name, merging, "patches are merged from the strongest of four phases on", "merges chosen")
            elif kind in _POSITION_BIASES:
                self.position_bias(name, module)
        self.note_positions()

    def put(self, name: str, layer: nn.Module, text: str, counted: str) -> None:
        """Puts a layer in the place of another."""
        parent, _, own = name.rpartition(".")
        setattr(self.network.get_submodule(parent), own, layer)
        layer.training = False
        self.report.change(name, text, counted)

    def window(self, name: str, attention: nn.Module, window: Sequence[int], shift: Sequence[int]) -> None:
        layer = AdaptiveWindowAttention(attention, window, shift)
        sizes = "x".join(map(str, layer.window))
        self.put(name, layer, f"windows of {sizes} begin where tokens are strongest", "window grids chosen")

    def position_bias(self, name: str, bias: nn.Module) -> None:
        self.put(
            name, CircularPositionBias(bias), "relative positions are those on a ring", "position biases made circular"
        )

    def note_positions(self) -> None:
        """Takes note of what tells positions apart, or cuts windows, and cannot be helped."""
        for name, module in self.network.named_modules():
            if any(word in type(module).__name__ for word in _WINDOWED) and not isinstance(module, TokenLayer):
                self.report.refuse(name, f"{type(module).__name__}, which tinv does not know, cuts tokens into windows")
            elif not isinstance(module, (TokenLayer, CircularPositionBias)) and any(
                key in _RELATIVE for key, _ in module.named_parameters(recurse=False)
            ):
                # its numbers may all be zero before training, and tell distances apart after
                self.report.refuse(name, f"{type(module).__name__} holds relative positions that tinv does not know")
        for name in self.absolute():
            self.report.skip(
                name,
                "an absolute position embedding tells positions apart and cannot be made circular; tokens=anchor is "
                "exact with it",
            )

    def absolute(self) -> Iterator[str]:
        tensors: list[tuple[str, Tensor]] = [*self.network.named_parameters(), *self.network.named_buffers()]
        yield from (name for name, _ in tensors if name.rpartition(".")[2] in _ABSOLUTE)
