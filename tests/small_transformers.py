"""Small vision transformers of timm and torchvision, with random weights everywhere, in float64."""

from __future__ import annotations

from functools import cache

import timm
import torch
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import nn
from torchvision.models import VisionTransformer
from torchvision.models import swin_transformer as tv

import tinv
from tinv.policies.cards import Tokens

_SWIN = {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2), "num_classes": 5}
_VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}
_MEAN = {"class_token": False, "global_pool": "avg"}
_V2 = {"block": tv.SwinTransformerBlockV2, "downsample_layer": tv.PatchMergingV2}

SWINS = {
    "torchvision v1": lambda: tv.SwinTransformer([2, 2], window_size=[4, 4], **_SWIN),
    "torchvision v2": lambda: tv.SwinTransformer([2, 2], window_size=[4, 4], **_SWIN, **_V2),
    # the last stage of the other networks has several windows too; that of these is one window
    "timm v1": lambda: timm.models.SwinTransformer(16, 2, window_size=4, **_SWIN),
    "timm v2": lambda: timm.models.SwinTransformerV2(16, 2, window_size=4, **_SWIN),
    "timm v1, wide": lambda: timm.models.SwinTransformer((16, 32), 2, window_size=4, **_SWIN),
}
VITS = {
    "absolute": lambda: timm.models.VisionTransformer(**_VIT),
    "deit": lambda: timm.models.deit.VisionTransformerDistilled(**_VIT),
    "torchvision": lambda: VisionTransformer(16, 4, 2, 2, 16, 32, num_classes=5),
    "no positions": lambda: timm.models.VisionTransformer(**_VIT, **_MEAN, pos_embed="none"),
    "no positions, class token": lambda: timm.models.VisionTransformer(**_VIT, pos_embed="none"),
    "relative": lambda: VisionTransformerRelPos(**_VIT, rel_pos_type="bias"),
    "relative, by a network": lambda: VisionTransformerRelPos(**_VIT),
    "relative, shared": lambda: VisionTransformerRelPos(**_VIT, shared_rel_pos=True),
    "relative, class token": lambda: VisionTransformerRelPos(
        **_VIT, rel_pos_type="bias", class_token=True, global_pool="token"
    ),
}
ABSOLUTE = ("absolute", "deit", "torchvision")


def made(name: str) -> nn.Module:
    """Returns a network by its name, in evaluation, whose weights all are random: none is zero or one by chance."""
    torch.manual_seed(0)
    network: nn.Module = (SWINS | VITS)[name]().double().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3 if parameter.dim() > 1 else 0.5)
    return network


def images(name: str, count: int = 2) -> torch.Tensor:
    """Returns random images of the size that a network takes."""
    size = (16, 32) if name.endswith("wide") else (32, 32) if name.startswith("torchvision v") else (16, 16)
    return torch.randn(count, 3, *size, dtype=torch.double, generator=torch.Generator().manual_seed(1))


@cache
def converted(name: str, tokens: Tokens) -> nn.Module:
    """Returns a network under a token policy, which is made once: it is not to be changed."""
    return tinv.convert(made(name), tokens=tokens, example_input=images(name))
