"""The network of the moving shapes: Red-Green's in space and time."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn


class MovingShapesNet(nn.Module):
    """Three 3x3x3 convolutions, the maximum over all places and moments, a linear layer.

    Shape:
        (N, C, T, H, W) -> (N, num_classes).
    """

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = in_channels
        for number, (width, stride) in enumerate([(16, (1, 2, 2)), (32, (2, 2, 2)), (32, (2, 2, 2))], start=1):
            layers[f"conv{number}"] = nn.Conv3d(channels, width, 3, stride=stride, padding=1, bias=False)
            layers[f"relu{number}"] = nn.ReLU()
            channels = width
        self.features = nn.Sequential(layers)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        maps: Tensor = self.features(clips)
        logits: Tensor = self.classifier(torch.amax(maps, dim=(2, 3, 4)))
        return logits


def moving_shapes_net(*, num_classes: int = 2, in_channels: int = 3) -> nn.Module:
    """Three 3x3x3 convolutions, total stride 8 in space and 4 in time, global maximum, linear layer.

    Args:
        num_classes: Output classes.
        in_channels: Channels of the clip.
    """
    return MovingShapesNet(num_classes, in_channels)
