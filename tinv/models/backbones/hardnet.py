"""The network that describes patches."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, get_args

from torch import Tensor, nn

from tinv.errors import TinvError, unknown
from tinv.models.trunk_and_head import TrunkAndHead
from tinv.policies.conversion import ConversionPolicy

Descriptor = Literal["published", "pooled", "cropped"]

LENGTH = 128
KERNEL = 8


class HardNet(TrunkAndHead):
    """A trunk, a convolution over what its map is for 32x32 patches, and the map of that as one vector.

    Args:
        trunk: (N, C, H, W) -> (N, 128, H', W').
        descriptor: `published` takes every position of the last map, `pooled` their mean, `cropped` the middle one.
        dropout: Probability before the last convolution.

    Shape:
        (N, C, H, W) -> (N, 128), or (N, 128 * positions) for `published`.
    """

    trunk_name = "trunk"

    def __init__(self, trunk: nn.Module, descriptor: Descriptor, dropout: float) -> None:
        super().__init__()
        self.trunk = trunk
        self.dropout = nn.Dropout(dropout)
        self.descriptor = descriptor

    def make_head(self, maps: Tensor, policy: ConversionPolicy) -> None:
        """Adds the last convolution; where strides became dilation, its positions are as far apart as before.

        Raises:
            TinvError: If the map is too small for it.
        """
        dilation = 4 if policy.subsampling.dilates else 1
        height, width = maps.shape[2:]
        extent = dilation * (KERNEL - 1) + 1
        if min(height, width) < extent:
            raise TinvError(
                f"hardnet under padding {policy.padding} makes a map of {height}x{width} of these patches, its last "
                f"convolution needs {extent}x{extent}; use larger patches (data.init_args.size) or another padding"
            )
        self.describe = nn.Conv2d(LENGTH, LENGTH, KERNEL, dilation=dilation, bias=False)
        self.norm = nn.BatchNorm2d(LENGTH, affine=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.orthogonal_(module.weight, gain=0.6)

    def forward(self, patches: Tensor) -> Tensor:
        maps: Tensor = self.norm(self.describe(self.dropout(self.trunk(patches))))
        if self.descriptor == "pooled":
            return maps.mean(dim=(2, 3))
        if self.descriptor == "cropped":
            return maps[:, :, (maps.shape[2] - 1) // 2, (maps.shape[3] - 1) // 2]
        return maps.flatten(1)


def hardnet(*, in_channels: int = 1, descriptor: Descriptor = "published", dropout: float = 0.3) -> HardNet:
    """HardNet (Mishchuk et al., NeurIPS 2017): six 3x3 convolutions and one of 8x8 make a patch a descriptor.

    The policies treat the 3x3 convolutions; the last one has no padding. With `keep` its map has one position for
    patches of 32x32 pixels, and the descriptor 128 dimensions. Under `full_zero` the map has 7x7 positions: `published`
    descriptors then have 6,272 dimensions, as in the code of Kayhan & van Gemert (2020); `pooled` and `cropped` ones
    always have 128, a mean that gives up part of where things are, and a window that looks at the middle only.

    Args:
        in_channels: Channels of the patch.
        descriptor: `published`, `pooled` or `cropped`.
        dropout: Probability before the last convolution.
    """
    if descriptor not in get_args(Descriptor):
        raise unknown("descriptor", descriptor, get_args(Descriptor))
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = in_channels
    for number, (width, stride) in enumerate([(32, 1), (32, 1), (64, 2), (64, 1), (128, 2), (LENGTH, 1)], start=1):
        layers[f"conv{number}"] = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        layers[f"norm{number}"] = nn.BatchNorm2d(width, affine=False)
        layers[f"relu{number}"] = nn.ReLU(inplace=True)
        channels = width
    return HardNet(nn.Sequential(layers), descriptor, dropout)
