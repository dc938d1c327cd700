"""Converted networks and the blur layer against their peers.

Claims: a ResNet-50 converted to what it is already takes at most 1.02 times the original's forward and backward; under
full_zero at most 1.03 times a hand-written full convolution; BlurPool at most 1.0 times timm's and kornia's layer;
converting takes under 3 s (ResNet-50) and 8 s (DenseNet-121).

Run: pip install kornia; python benchmarks/conversion.py
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable

import torch
import torchvision
from timing import in_turn, verdict
from torch import Tensor, nn
from torch.nn import functional as F

from tinv import convert
from tinv.nn.subsampling import BlurPool

BATCH, PIXELS, ROUNDS = 8, 112, 9


class FullConvolution(nn.Module):
    """A bottleneck ResNet that pads k - 1 in every layer, as one would write it by hand."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.padding = tuple(k - 1 for k in module.kernel_size)

    def forward(self, images: Tensor) -> Tensor:
        net = self.network
        x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            for block in stage:
                y = block.relu(block.bn1(block.conv1(x)))
                y = block.relu(block.bn2(block.conv2(y)))
                y = block.bn3(block.conv3(y))
                side = F.pad(x, (1, 1, 1, 1))
                if block.downsample is not None:
                    side = block.downsample(side)
                y += side
                x = block.relu(y)
        return net.fc(torch.flatten(net.avgpool(x), 1))


def step(network: nn.Module, images: Tensor) -> Callable[[], None]:
    """Returns one forward and backward pass."""

    def run() -> None:
        network.zero_grad(set_to_none=True)
        network(images).square().mean().backward()

    return run


def main() -> int:
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    images = torch.randn(BATCH, 3, PIXELS, PIXELS)
    original = torchvision.models.resnet50()
    holds = []

    peers = {"original": original, "converted": convert(original, "same_zero", example_input=images)}
    seconds = in_turn({name: step(network, images) for name, network in peers.items()}, ROUNDS)
    holds.append(verdict("kept ResNet-50 over the original", seconds["converted"] / seconds["original"], 1.02, False))

    converted = convert(original, "full_zero", example_input=images)
    by_hand = FullConvolution(torchvision.models.resnet50())
    by_hand.network.load_state_dict(original.state_dict())
    torch.testing.assert_close(converted.eval()(images), by_hand.eval()(images), rtol=1e-4, atol=1e-5)
    peers = {"by hand": by_hand.train(), "converted": converted.train()}
    seconds = in_turn({name: step(network, images) for name, network in peers.items()}, ROUNDS)
    holds.append(verdict("full_zero over hand-written", seconds["converted"] / seconds["by hand"], 1.03, False))

    maps = torch.randn(16, 64, 56, 56, requires_grad=True)
    for size in (3, 5):
        # timm reflects at the border, kornia pads with zeros
        layers = {"tinv, reflect": BlurPool(size, 2, "reflect"), "tinv, zero": BlurPool(size, 2), **_blur_peers(size)}

        def blur(layer: nn.Module) -> Callable[[], None]:
            def run() -> None:
                for _ in range(5):
                    layer(maps).sum().backward()

            return run

        seconds = in_turn({name: blur(layer) for name, layer in layers.items()}, 4 * ROUNDS)
        print({name: f"{1e3 * value / 5:.2f} ms" for name, value in seconds.items()})
        for name, ours in (("timm", "tinv, reflect"), ("kornia", "tinv, zero")):
            if name in seconds:
                holds.append(verdict(f"BlurPool {size} over {name}'s", seconds[ours] / seconds[name], 1.0, False))

    for name, bound in (("resnet50", 3.0), ("densenet121", 8.0)):
        network = torchvision.models.get_model(name, weights=None)
        for padding, subsampling in (("full_zero", "keep"), ("full_background", "aps")):
            started = time.perf_counter()
            convert(network, padding, subsampling, example_input=torch.zeros(1, 3, 224, 224))
            took = time.perf_counter() - started
            holds.append(verdict(f"seconds to convert {name} to {padding}, {subsampling}", took, bound, False))
    return 0 if all(holds) else 1


def _blur_peers(size: int) -> dict[str, nn.Module]:
    from timm.layers import BlurPool2d

    peers: dict[str, nn.Module] = {"timm": BlurPool2d(64, filt_size=size, stride=2)}
    try:
        from kornia.filters import BlurPool2D

        peers["kornia"] = BlurPool2D(size, stride=2)
    except ImportError:
        print("kornia is not installed; its layer is left out")
    return peers


if __name__ == "__main__":
    sys.exit(main())
