"""DenseNet-121 as the location experiment has it."""

from __future__ import annotations

import timm
from torch import nn


def densenet121(*, num_classes: int = 2, in_channels: int = 3, pretrained: bool = False) -> nn.Module:
    """DenseNet-121 of timm, here so that one key chooses among the networks of the location experiment.

    Args:
        num_classes: Output classes.
        in_channels: Channels of the image.
        pretrained: Torchvision's first ImageNet weights, by timm.
    """
    network: nn.Module = timm.create_model(
        "densenet121.tv_in1k", pretrained=pretrained, num_classes=num_classes, in_chans=in_channels
    )
    return network
