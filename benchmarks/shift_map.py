"""An exhaustive map of shifts of a network that its verdict proves exact, against every shift run.

Claims: all 289 shifts of a 17x17 map take at least four times as long as the map of a ResNet-20 for CIFAR under
same_circular, whose total stride is 4; that of a ResNet-18, whose total stride is 32, takes no longer; maps are
equal to 1e-6.

Run: python benchmarks/shift_map.py
"""

from __future__ import annotations

import sys
import time

import torch
import torchvision
from timing import verdict
from torch import Tensor, nn

import tinv
from tinv.metrics import TranslationSensitivityMap

IMAGES, ROUNDS = 32, 3


def measured(network: nn.Module, images: Tensor, logits: Tensor, skip: bool) -> tuple[float, dict[str, Tensor]]:
    """Returns the seconds that a map took, and the map."""
    shifts = TranslationSensitivityMap(8, 1, "circular", skip_proven=skip)
    began = time.perf_counter()
    shifts.update(network, images, logits, logits.argmax(dim=1), torch.arange(len(images)))
    return time.perf_counter() - began, shifts.maps()


def compare(name: str, network: nn.Module, images: Tensor) -> tuple[float, bool]:
    """Prints both times of a network; returns their smallest ratio and whether the maps are equal."""
    with torch.no_grad():
        logits = network(images)
        pairs = [[measured(network, images, logits, skip) for skip in (True, False)] for _ in range(ROUNDS)]
    (quick, by_phase), (slow, every) = (min((pair[k] for pair in pairs), key=lambda run: run[0]) for k in (0, 1))
    equal = all(torch.allclose(by_phase[key], every[key], rtol=0, atol=1e-6) for key in every)
    print(
        f"{name}: by phases {quick:.2f} s, every shift {slow:.2f} s, {slow / quick:.1f} times as fast; equal: {equal}"
    )
    return quick / slow, equal


def main() -> int:
    """Prints the comparison; returns 1 if a claim does not hold."""
    torch.manual_seed(0)
    small = tinv.create_backbone(
        "resnet_cifar", depth=20, padding="same_circular", num_classes=10, in_channels=3
    ).eval()
    images = torch.randn(IMAGES, 3, 32, 32)
    ratio, equal = compare("ResNet-20, stride 4", small, images)
    photographs = torch.randn(2, 3, 64, 64)
    large = tinv.convert(torchvision.models.resnet18().eval(), "same_circular", example_input=photographs)
    other, same = compare("ResNet-18, stride 32", large, photographs)
    held = [
        verdict("every shift / map by phases, ResNet-20", ratio, 4, at_least=True),
        verdict("every shift / map by phases, ResNet-18", other, 0.95, at_least=True),
    ]
    return 0 if all(held) and equal and same else 1


if __name__ == "__main__":
    sys.exit(main())
