"""BagNet-33: a ResNet-50 whose last positions each see 33 x 33 pixels, and whose convolutions have no padding."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from tinv.errors import unknown
from tinv.policies.conversion import ConversionPolicy
from tinv.utils.arguments import PositiveInt

Head = Literal["gap", "gmp"]


def bagnet33(
    *, num_classes: int = 1000, in_channels: int = 3, policy: ConversionPolicy | None = None, head: Head = "gmp"
) -> BagNet:
    """BagNet-33 (Brendel & Bethge, ICLR 2019), whose last positions see 33 x 33 pixels each.

    Names of parameters are those of the published weights. `keep` is the published network: no padding, and shortcuts
    cropped at the right and bottom only, which puts them one pixel beside the convolutions. Any other policy is laid
    on the network with aligned shortcuts; `valid` then crops both sides.

    Args:
        num_classes: Output classes.
        in_channels: Channels of the image.
        policy: Policy that the network will be under.
        head: `gap` averages over positions, as published; `gmp` takes their maximum (Kayhan & van Gemert 2020).
    """
    if head not in ("gap", "gmp"):
        raise unknown("head", head, ("gap", "gmp"))
    return BagNet(num_classes, in_channels, head, padded=policy is not None and not policy.keeps_all)


class BagNet(nn.Module):
    """The network; four stages of 3, 4, 6 and 3 blocks, of which the first of each has a 3x3 convolution.

    Args:
        num_classes: Output classes.
        in_channels: Channels of the image.
        head: `gap` or `gmp`.
        padded: One pixel of zeros a side at every 3x3 convolution, for policies to change; without, shortcuts are
            cropped.

    Shape:
        (N, in_channels, H, W), sides of at least 33 pixels, -> (N, num_classes).
    """

    def __init__(self, num_classes: PositiveInt, in_channels: int, head: Head, padded: bool) -> None:
        super().__init__()
        # what padding=keep stands for, where it is put under another policy
        self.own_padding = "valid" if padded else "keep"
        self.conv1 = nn.Conv2d(in_channels, 64, 1, bias=False)
        self.conv2 = nn.Conv2d(64, 64, 3, padding=int(padded), bias=False)
        self.bn1 = nn.BatchNorm2d(64, momentum=0.001)
        self.relu = nn.ReLU(inplace=True)
        channels = 64
        for number, (blocks, stride) in enumerate(zip((3, 4, 6, 3), (2, 2, 2, 1), strict=True)):
            width = 64 * 2**number
            layers: list[nn.Module] = []
            for block in range(blocks):
                first = block == 0
                layers.append(Block(channels, width, 3 if first else 1, stride if first else 1, padded))
                channels = 4 * width
            self.add_module(f"layer{number + 1}", nn.Sequential(*layers))
        self.pool = nn.AdaptiveAvgPool2d(1) if head == "gap" else nn.AdaptiveMaxPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # He et al. (2015), by the number of outputs, as the published code
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        maps = self.relu(self.bn1(self.conv2(self.conv1(images))))
        for stage in self._stages():
            maps = stage(maps)
        logits: Tensor = self.fc(self.pool(maps).flatten(1))
        return logits

    def _stages(self) -> list[nn.Module]:
        return [self.get_submodule(f"layer{number}") for number in (1, 2, 3, 4)]


class Block(nn.Module):
    """A bottleneck: 1x1, k x k with the stride, 1x1, and a shortcut around them.

    Args:
        channels: Channels of the input.
        width: Width of the middle convolution; the output has four times as many.
        kernel_size: Kernel size of the middle convolution, 1 or 3.
        stride: Stride of the middle convolution.
        padded: Whether a 3x3 convolution keeps the size.
    """

    def __init__(self, channels: int, width: int, kernel_size: PositiveInt, stride: int, padded: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, momentum=0.001)
        half = (kernel_size - 1) // 2
        self.conv2 = nn.Conv2d(width, width, kernel_size, stride, padding=half if padded else 0, bias=False)
        self.bn2 = nn.BatchNorm2d(width, momentum=0.001)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width, momentum=0.001)
        self.relu = nn.ReLU(inplace=True)
        self.crops = half > 0 and not padded
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width, momentum=0.001)
            )

    def forward(self, maps: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(maps)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        shortcut = maps if self.downsample is None else self.downsample(maps)
        if self.crops:
            shortcut = shortcut[:, :, : out.shape[2], : out.shape[3]]
        summed: Tensor = self.relu(out + shortcut)
        return summed
