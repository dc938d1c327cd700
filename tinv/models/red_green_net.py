"""The network of the Red-Green experiment."""

from __future__ import annotations

from tinv.models.plain import PlainBuilder, PlainNetwork
from tinv.policies.cards import Padding, Subsampling


def red_green_net(
    *,
    num_classes: int = 2,
    in_channels: int = 3,
    input_size: tuple[int, ...] = (32, 32),
    padding: Padding = "keep",
    subsampling: Subsampling = "keep",
) -> PlainNetwork:
    """Four 3x3 convolutions with total stride 8, global maximum, linear layer (Kayhan & van Gemert 2020).

    Args:
        num_classes: numbers in the output vector.
        in_channels: of the image.
        input_size: (H, W) in pixels.
        padding: policy of the convolutions; `keep` is `same_zero`.
        subsampling: policy of the three strided convolutions.
    """
    builder = PlainBuilder(in_channels, padding, subsampling)
    for number, (channels, stride) in enumerate([(32, 1), (32, 2), (64, 2), (64, 2)], start=1):
        builder.conv(f"conv{number}", channels, kernel_size=3, stride=stride, bias=False)
    return PlainNetwork(builder.build(), "gmp", num_classes, (in_channels, *input_size))
