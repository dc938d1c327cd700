"""The network of the Red-Green experiment."""

from __future__ import annotations

from torch import nn

from tinv.models.trunk_and_head import PlainNetwork, conv_chain


def red_green_net(*, num_classes: int = 2, in_channels: int = 3) -> PlainNetwork:
    """Four 3x3 convolutions with total stride 8, global maximum, linear layer (Kayhan & van Gemert 2020).

    Args:
        num_classes: Output classes.
        in_channels: Channels of the image.
    """
    layers = [(32, 1), (32, 2), (64, 2), (64, 2)]
    return PlainNetwork(nn.Sequential(conv_chain(in_channels, layers, kernel_size=3, bias=False)), "gmp", num_classes)
