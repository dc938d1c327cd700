"""The ResNets of the action recognition experiment."""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn
from torchvision.models.video.resnet import BasicBlock, Bottleneck, Conv3DSimple, VideoResNet

from tinv.errors import unknown

TemporalStem = Literal["dense", "strided"]
BLOCKS = {18: (BasicBlock, [2, 2, 2, 2]), 34: (BasicBlock, [3, 4, 6, 3]), 50: (Bottleneck, [3, 4, 6, 3])}


def resnet3d(
    *, num_classes: int = 101, in_channels: int = 3, depth: int = 18, temporal_stem: TemporalStem = "dense"
) -> nn.Module:
    """3D ResNet of any depth for clips (Hara, Kataoka & Satoh, CVPR 2018).

    A 7x7x7 convolution that halves height and width, a 3x3x3 max pool of stride 2, blocks with projection shortcuts
    (type B), global average pooling. From torchvision's blocks, whose own `r3d_18` has a smaller stem and no pool.

    Args:
        num_classes: Output classes.
        in_channels: Channels of the clip.
        depth: 18, 34 or 50 layers.
        temporal_stem: `strided` halves the number of frames in the first convolution too, as the network that is fully
            convolutional in time does in the code of Kayhan & van Gemert (2020).
    """
    if depth not in BLOCKS:
        raise unknown("depth", str(depth), list(map(str, BLOCKS)))
    if temporal_stem not in get_args(TemporalStem):
        raise unknown("temporal_stem", temporal_stem, get_args(TemporalStem))
    block, layers = BLOCKS[depth]
    stride = (2 if temporal_stem == "strided" else 1, 2, 2)

    class Stem(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(
                nn.Conv3d(in_channels, 64, 7, stride=stride, padding=3, bias=False),
                nn.BatchNorm3d(64),
                nn.ReLU(inplace=True),
                nn.MaxPool3d(3, stride=2, padding=1),
            )

    network: nn.Module = VideoResNet(block, [Conv3DSimple] * 4, layers, Stem, num_classes=num_classes)
    return network
