"""ResNet-18 as the location experiment has it."""

from __future__ import annotations

import timm
from torch import nn


def resnet18_max(*, num_classes: int = 2, in_channels: int = 3, pretrained: bool = False) -> nn.Module:
    """ResNet-18 with a max pool of 2 and a global maximum, the location experiment's (Kayhan & van Gemert 2020).

    Args:
        num_classes: numbers in the output vector.
        in_channels: of the image.
        pretrained: torchvision's first ImageNet weights, by timm.
    """
    network: nn.Module = timm.create_model(
        "resnet18.tv_in1k",
        pretrained=pretrained,
        num_classes=num_classes,
        in_chans=in_channels,
        global_pool="max",
        zero_init_last=False,  # as torchvision: a random network whose every layer counts
    )
    network.maxpool = nn.MaxPool2d(2)
    return network
