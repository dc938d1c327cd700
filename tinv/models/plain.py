"""Plain networks: a chain of convolutions and pools, one way to reduce the last map, one linear layer."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinv.errors import unknown
from tinv.nn.padding import PaddedConv2d, PolicySequential, padding_content
from tinv.nn.pooling import Pool
from tinv.nn.subsampling import BlurPool, subsampler
from tinv.policies.cards import Padding, Subsampling

Head = Literal["flatten", "gap", "gmp"]


class PlainNetwork(nn.Module):
    """A chain of layers, then a head, then one linear layer.

    Args:
        features: (N, C, H, W) -> (N, C', H', W').
        head: what happens to the last map: `flatten` keeps every position apart, `gap` averages over positions, `gmp`
            takes their maximum.
        num_classes: numbers in the output vector.
        input_shape: (C, H, W) of the images; only `flatten` depends on H and W.

    Shape:
        (N, C, H, W) -> (N, num_classes).
    """

    def __init__(self, features: PolicySequential, head: Head, num_classes: int, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        if head not in ("flatten", "gap", "gmp"):
            raise unknown("head", head, ("flatten", "gap", "gmp"))
        self.features = features
        self.head = head
        with torch.no_grad():
            width = self.reduce(features(torch.zeros(1, *input_shape))).shape[1]
        self.classifier = nn.Linear(width, num_classes)

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


class PlainBuilder:
    """Adds convolutions and pools one after the other, with the policies worked in.

    Subsampling `dense` turns strides into dilation of all that follows; `blur` and `aps` put a layer that carries the
    stride after the activation or the pool.

    Args:
        in_channels: of the image.
        padding: policy of the convolutions; `keep` is `same_zero`.
        subsampling: policy of strided layers.
    """

    def __init__(self, in_channels: int, padding: Padding, subsampling: Subsampling) -> None:
        self.channels = in_channels
        self.padding: Padding = "same_zero" if padding == "keep" else padding
        self.full = self.padding.startswith("full_")
        self.subsampling = subsampling
        self.dilation = 1
        self.layers: OrderedDict[str, nn.Module] = OrderedDict()

    def conv(self, name: str, channels: int, kernel_size: int, stride: int = 1, bias: bool = True) -> None:
        """Adds convolution and ReLU."""
        self.layers[name] = PaddedConv2d(
            self.channels,
            channels,
            kernel_size,
            padding_policy=self.padding,
            stride=stride if self.subsampling == "keep" else 1,
            dilation=self.dilation,
            bias=bias,
        )
        self.layers[f"{name}_relu"] = nn.ReLU()
        self.channels = channels
        self._subsample(name, stride)

    def pool(
        self,
        name: str,
        kernel_size: int,
        stride: int,
        kind: Literal["max", "average"],
        padding: Padding,
        antialias: int | None,
    ) -> None:
        """Adds a pool; with `antialias`, a dense pool and a blur of that size that carries the stride."""
        plain = self.subsampling == "keep" and antialias is None
        self.layers[name] = Pool(kind, kernel_size, stride if plain else 1, padding, self.dilation)
        if antialias is not None:
            self.layers[f"{name}_blur"] = BlurPool(antialias, stride, padding_content(self.padding), self.full)
        else:
            self._subsample(name, stride)

    def _subsample(self, name: str, stride: int) -> None:
        if stride == 1:
            return
        layer = subsampler(self.subsampling, stride, padding_content(self.padding), self.full)
        if layer is not None:
            self.layers[f"{name}_subsample"] = layer
        elif self.subsampling == "dense":
            self.dilation *= stride

    def build(self) -> PolicySequential:
        """Returns the chain."""
        return PolicySequential(self.layers)
