"""The smallest network that can tell where a patch lies by the border alone."""

from __future__ import annotations

from torch import nn

from tinv.models.trunk_and_head import PlainNetwork, conv_chain


def rook_net(*, num_classes: int = 2, in_channels: int = 1) -> PlainNetwork:
    """One 5x5 convolution of one channel, ReLU, global maximum, linear layer (Kayhan & van Gemert 2020).

    Args:
        num_classes: Output classes.
        in_channels: Channels of the image.
    """
    return PlainNetwork(nn.Sequential(conv_chain(in_channels, [(1, 1)], kernel_size=5, bias=False)), "gmp", num_classes)
