"""The ResNets of He et al. for 32x32 images, with shortcuts without weights."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from tinv.errors import TinvError
from tinv.utils.arguments import PositiveInt


class Shortcut(nn.Module):
    """Takes every `stride`-th position and adds channels of zeros on both sides (option A of the paper)."""

    def __init__(self, added: int, stride: int) -> None:
        super().__init__()
        self.added, self.stride = added, stride

    def forward(self, images: Tensor) -> Tensor:
        taken = images[:, :, :: self.stride, :: self.stride]
        return F.pad(taken, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        same = stride == 1 and in_channels == channels
        self.shortcut = nn.Identity() if same else Shortcut(channels - in_channels, stride)

    def forward(self, images: Tensor) -> Tensor:
        inside = F.relu(self.bn1(self.conv1(images)))
        return F.relu(self.bn2(self.conv2(inside)) + self.shortcut(images))


def resnet_cifar(*, num_classes: PositiveInt, in_channels: int = 3, depth: PositiveInt = 20) -> nn.Module:
    """ResNet-20 to ResNet-1202 for CIFAR: 16, 32 and 64 channels, stride 4 in all (He et al., CVPR 2016, section 4.2).

    The names of its weights are those of the files that are commonly published, such as resnet20-12fca82f.th.

    Args:
        num_classes: Output classes.
        in_channels: Channels of the image.
        depth: Number of layers, 6 n + 2: 20, 32, 44, 56, 110 and 1202 in the paper.
    """
    if depth < 8 or depth % 6 != 2:
        raise TinvError(f"depth must be 6 n + 2, such as 20, 32, 44, 56 or 110, not {depth}")
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(in_channels, 16, 3, padding=1, bias=False), bn1=nn.BatchNorm2d(16), relu=nn.ReLU()
    )
    before = 16
    for stage, channels in enumerate((16, 32, 64), start=1):
        strides = [1 if stage == 1 else 2] + [1] * ((depth - 2) // 6 - 1)
        blocks = []
        for stride in strides:
            blocks.append(BasicBlock(before, channels, stride))
            before = channels
        layers[f"layer{stage}"] = nn.Sequential(*blocks)
    layers |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "linear": nn.Linear(64, num_classes)}
    network = nn.Sequential(layers)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    return network
