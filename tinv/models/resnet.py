"""The ResNets of the shift tests: torchvision's, with the max pool that each method has."""

from __future__ import annotations

from typing import Literal

import timm
import torch
from torch import nn

from tinv.errors import TinvError, unknown
from tinv.policies.cards import Padding, Subsampling
from tinv.surgery.convert import PoolPolicy, Stem, convert_if_needed

Head = Literal["gap", "gmp"]
DEPTHS = (18, 34, 50, 101, 152)


def resnet(
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    input_size: tuple[int, ...] = (224, 224),
    padding: Padding = "keep",
    subsampling: Subsampling = "keep",
    pool: PoolPolicy = "keep",
    stem: Stem = "keep",
    pretrained: bool = False,
    depth: int = 18,
    max_pool: int | None = None,
    head: Head = "gap",
) -> nn.Module:
    """ResNet of any depth under policies, with the max pools of Kayhan & van Gemert (CVPR 2020, section 4.3).

    Their max pool covers 3x3 pixels in the plain network, and 2x2 without padding under full convolution and, as in
    Zhang (ICML 2019), with a blur. `source: torchvision` keeps 3x3 throughout.

    Args:
        num_classes: numbers in the output vector.
        in_channels: of the image.
        input_size: (H, W) in pixels.
        padding: policy of the convolutions.
        subsampling: policy of the strides.
        pool: padding of the max pool, see `tinv.convert`.
        stem: whether `subsampling` treats the first convolution too.
        pretrained: torchvision's first ImageNet weights, by timm.
        depth: 18, 34, 50, 101 or 152 layers.
        max_pool: side of the max pool's window in pixels, 2 or 3; None chooses as the paper.
        head: `gap` averages over positions, `gmp` takes their maximum.
    """
    if depth not in DEPTHS:
        raise unknown("depth", str(depth), list(map(str, DEPTHS)))
    if max_pool not in (None, 2, 3):
        raise TinvError(f"max_pool must be 2 or 3 pixels, or null, not {max_pool}")
    if head not in ("gap", "gmp"):
        raise unknown("head", head, ("gap", "gmp"))
    if max_pool is None:
        max_pool = 2 if padding.startswith("full") or subsampling.startswith("blur") else 3
    network: nn.Module = timm.create_model(
        f"resnet{depth}.tv_in1k",
        pretrained=pretrained,
        num_classes=num_classes,
        in_chans=in_channels,
        global_pool="max" if head == "gmp" else "avg",
        zero_init_last=False,  # as torchvision: a random network whose every layer counts
    )
    if max_pool == 2:
        network.maxpool = nn.MaxPool2d(2)
    example = torch.zeros(2, in_channels, *input_size)
    return convert_if_needed(network, example, padding=padding, subsampling=subsampling, pool=pool, stem=stem)
