"""Networks that tests of conversion share."""

import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F


def resnet18() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=10)


def narrow_resnet18() -> nn.Module:
    """A ResNet-18 whose stages have 8 to 64 channels."""
    torch.manual_seed(0)
    resnet = timm.models.resnet
    return resnet.ResNet(resnet.BasicBlock, [2, 2, 2, 2], num_classes=10, channels=(8, 16, 32, 64))


class Residual(nn.Module):
    """Two branches, one of them strided, that meet in a given way."""

    def __init__(self, axes: int = 2, merge: str = "add", kernel: int = 3, dilation: int = 1, groups: int = 1) -> None:
        super().__init__()
        conv, norm = (
            (nn.Conv1d, nn.BatchNorm1d),
            (nn.Conv2d, nn.BatchNorm2d),
            (nn.Conv3d, nn.BatchNorm3d),
        )[axes - 1]
        same = dilation * (kernel - 1) // 2
        self.first = conv(4, 8, 3, padding=1)
        self.left = conv(8, 8, kernel, stride=2, padding=same, dilation=dilation, groups=groups)
        self.norm = norm(8)
        self.second = conv(8, 8, 3, padding=1)
        self.right = conv(8, 8, 1, stride=2)
        self.head = nn.Linear(16 if merge == "cat" else 8, 5)
        self.merge = merge

    def forward(self, x):
        x = F.relu(self.first(x))
        a, b = self.second(F.relu(self.norm(self.left(x)))), self.right(x)
        if self.merge == "add":
            y = a + b
        elif self.merge == "iadd":
            a += b
            y = a
        elif self.merge == "sub_":
            y = a.sub_(b)
        elif self.merge == "mul":
            y = torch.mul(a, b)
        else:
            y = torch.cat([a, b], 1)
        return self.head(y.flatten(2).mean(2))


# the contract
