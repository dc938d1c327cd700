"""ResNet-18 as the location experiment has it."""

from __future__ import annotations

from torch import nn

from tinv.models.backbones.resnet import resnet


def resnet18_max(*, num_classes: int = 2, in_channels: int = 3, pretrained: bool = False) -> nn.Module:
    """ResNet-18 with a max pool of 2 and a global maximum, the location experiment's (Kayhan & van Gemert 2020).

    Args:
        num_classes: Output classes.
        in_channels: Channels of the image.
        pretrained: Torchvision's first ImageNet weights, by timm.
    """
    return resnet(
        num_classes=num_classes, in_channels=in_channels, pretrained=pretrained, depth=18, max_pool=2, head="gmp"
    )
