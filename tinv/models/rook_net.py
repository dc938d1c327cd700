"""The smallest network that can tell where a patch lies by the border alone."""

from __future__ import annotations

from tinv.models.plain import PlainBuilder, PlainNetwork
from tinv.policies.cards import Padding, Subsampling


def rook_net(
    *,
    num_classes: int = 2,
    in_channels: int = 1,
    input_size: tuple[int, ...] = (32, 32),
    padding: Padding = "keep",
    subsampling: Subsampling = "keep",
) -> PlainNetwork:
    """One 5x5 convolution of one channel, ReLU, global maximum, linear layer (Kayhan & van Gemert 2020).

    Args:
        num_classes: numbers in the output vector.
        in_channels: of the image.
        input_size: (H, W) in pixels.
        padding: policy of the convolution; `keep` is `same_zero`.
        subsampling: nothing here has a stride, so every policy gives the same network.
    """
    builder = PlainBuilder(in_channels, padding, subsampling)
    builder.conv("conv1", 1, kernel_size=5, bias=False)
    return PlainNetwork(builder.build(), "gmp", num_classes, (in_channels, *input_size))
