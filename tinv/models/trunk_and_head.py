"""Networks whose head has a size that the last map of their trunk decides, and with it the policies."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from tinv.errors import unknown
from tinv.policies.conversion import ConversionPolicy

Head = Literal["flatten", "gap", "gmp"]


class TrunkAndHead(nn.Module):
    """Base of networks of a trunk, which policies treat, and a head that is made when the trunk is under its policies.

    Attributes:
        trunk_name: Name of the trunk among the submodules.
    """

    trunk_name: ClassVar[str] = "features"

    @abstractmethod
    def make_head(self, maps: Tensor, policy: ConversionPolicy) -> None:
        """Adds the layers behind the trunk.

        Args:
            maps: (1, C', *spatial') what the trunk makes of one image.
            policy: That the trunk is under.

        Raises:
            TinvError: If the head cannot take such maps.
        """


class PlainNetwork(TrunkAndHead):
    """A chain of layers, one way to reduce the last map, one linear layer.

    Args:
        features: (N, C, H, W) -> (N, C', H', W').
        head: What happens to the last map: `flatten` keeps every position apart, `gap` averages over positions, `gmp`
            takes their maximum.
        num_classes: Output classes.

    Shape:
        (N, C, H, W) -> (N, num_classes).
    """

    def __init__(self, features: nn.Module, head: Head, num_classes: int) -> None:
        super().__init__()
        if head not in ("flatten", "gap", "gmp"):
            raise unknown("head", head, ("flatten", "gap", "gmp"))
        self.features, self.head, self.num_classes = features, head, num_classes

    def make_head(self, maps: Tensor, policy: ConversionPolicy) -> None:
        """Adds the linear layer, which has an input for each value of the reduced map."""
        self.classifier = nn.Linear(self.reduce(maps).shape[1], self.num_classes)

    def reduce(self, maps: Tensor) -> Tensor:
        """Returns the vector (N, features) that the head makes of the last map (N, C', H', W')."""
        if self.head == "gap":
            return maps.mean(dim=(2, 3))
        if self.head == "gmp":
            return F.adaptive_max_pool2d(maps, 1).flatten(1)
        return maps.flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.reduce(self.features(images)))
        return logits


def conv_chain(
    in_channels: int, layers: Sequence[tuple[int, int]], kernel_size: int, bias: bool
) -> OrderedDict[str, nn.Module]:
    """Returns convolutions that keep the size of the map but for their stride, each followed by a ReLU.

    Args:
        in_channels: Channels of the image.
        layers: Output channels and stride of each.
        kernel_size: Odd number of pixels.
        bias: Whether they have one.
    """
    chain: OrderedDict[str, nn.Module] = OrderedDict()
    channels = in_channels
    for number, (width, stride) in enumerate(layers, start=1):
        chain[f"conv{number}"] = nn.Conv2d(channels, width, kernel_size, stride, kernel_size // 2, bias=bias)
        chain[f"conv{number}_relu"] = nn.ReLU()
        channels = width
    return chain
