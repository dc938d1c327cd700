"""The ResNets of the shift tests: torchvision's, with the max pool that each method has."""

from __future__ import annotations

from typing import Literal

import timm
from torch import nn

from tinv.errors import TinvError, unknown
from tinv.policies.conversion import ConversionPolicy
from tinv.policies.subsampling import Blur
from tinv.utils.arguments import PositiveInt

Head = Literal["gap", "gmp"]
DEPTHS = (18, 34, 50, 101, 152)


def resnet(
    *,
    num_classes: PositiveInt = 1000,
    in_channels: int = 3,
    policy: ConversionPolicy | None = None,
    pretrained: bool = False,
    depth: PositiveInt = 18,
    max_pool: PositiveInt | None = None,
    head: Head = "gap",
) -> nn.Module:
    """ResNet of any depth, with the max pools of Kayhan & van Gemert (CVPR 2020, section 4.3).

    Their max pool covers 3x3 pixels in the plain network, and 2x2 without padding under full convolution and, as in
    Zhang (ICML 2019), with a blur. `source: torchvision` keeps 3x3 throughout.

    Args:
        num_classes: Output classes.
        in_channels: Channels of the image.
        policy: Policy that the network will be under; the max pool depends on it.
        pretrained: Torchvision's first ImageNet weights, by timm.
        depth: 18, 34, 50, 101 or 152 layers.
        max_pool: Side of the max pool's window in pixels, 2 or 3; None chooses as the paper.
        head: `gap` averages over positions, `gmp` takes their maximum.
    """
    if depth not in DEPTHS:
        raise unknown("depth", str(depth), list(map(str, DEPTHS)))
    if max_pool not in (None, 2, 3):
        raise TinvError(f"max_pool must be 2 or 3 pixels, or null, not {max_pool}")
    if head not in ("gap", "gmp"):
        raise unknown("head", head, ("gap", "gmp"))
    if max_pool is None:
        blurs = policy is not None and isinstance(policy.subsampling, Blur)
        max_pool = 2 if blurs or (policy is not None and policy.padding.amount == "full") else 3
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
    return network
