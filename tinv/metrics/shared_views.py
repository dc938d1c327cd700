"""One run of the network for each view, however many measures look at it, and few images at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

LARGEST_MAP = 16 * 2**20
"""Bytes of the largest map that a pass over images on a CPU makes. The C library asks the system for larger blocks anew
in every layer, and they fit no cache: SqueezeNet takes 4.9 ms an image in passes of 4 images, and 13.3 ms in passes of
32, on two cores with AVX-512."""


class SharedViews(nn.Module):
    """Runs a network on the images of a batch that it has not seen yet, and remembers its answers to the others.

    Measures choose their views by themselves, and many are the same: the diagonal is part of the worst case, and of
    crops so is the map. Images are told apart by a checksum of their bytes, which costs a small part of a run on a
    CPU; on other devices every batch is run, and at once.

    Args:
        network: Maps (N, C, H, W) to (N, F).
        progress: Is called after every pass.

    Attributes:
        runs: Images that the network has been run on.
        asked: Images whose answers were asked for.
    """

    def __init__(self, network: nn.Module, progress: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.network, self.progress = network, progress
        self.runs = self.asked = 0
        self._answers: dict[int, Tensor] = {}
        self._at_once: dict[tuple[int, ...], int] = {}

    def forget(self) -> None:
        """Forgets all answers, so that memory does not grow with the number of images."""
        self._answers.clear()

    def forward(self, images: Tensor) -> Tensor:
        """Returns the answers (N, F) to images (N, C, H, W)."""
        answers = self._answers_to(images)
        self.asked += len(images)
        self.progress()
        return answers

    def _answers_to(self, images: Tensor) -> Tensor:
        if images.device.type != "cpu" or not len(images):
            self.runs += len(images)
            answers: Tensor = self.network(images)
            return answers
        keys = [_checksum(image) for image in images]
        first = {key: number for number, key in reversed(list(enumerate(keys))) if key not in self._answers}
        if first:
            new = sorted(first.values())
            self.runs += len(new)
            some = images if len(new) == len(images) else images[new]
            for number, answer in zip(new, self._run(some), strict=True):
                self._answers[keys[number]] = answer
        return torch.stack([self._answers[key] for key in keys])

    def _run(self, images: Tensor) -> Tensor:
        shape = tuple(images.shape[1:])
        if shape not in self._at_once:
            self._at_once[shape] = images_at_once(self.network, images[:1])
        return torch.cat([self.network(part) for part in torch.split(images, self._at_once[shape])])


def images_at_once(network: Any, image: Tensor) -> int:
    """Returns how many images a pass of a network on a CPU holds at most so that no map is over `LARGEST_MAP`.

    Args:
        network: Takes batches of images.
        image: One image (1, C, H, W).
    """
    if not isinstance(network, nn.Module):
        return max(1, LARGEST_MAP // (image.numel() * image.element_size()))
    largest = [image.numel() * image.element_size()]

    def look(module: nn.Module, given: Any, answer: Any) -> None:
        if isinstance(answer, Tensor):
            largest.append(answer.numel() * answer.element_size())

    hooks = [module.register_forward_hook(look) for module in network.modules() if not list(module.children())]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    return max(1, LARGEST_MAP // max(largest))


def _checksum(image: Tensor) -> int:
    """Returns a checksum of an image (C, H, W), the same for every order of its axes in memory.

    64 bits, keyed by the process: of the some thousand views of a batch two are taken for each other once in 10^12
    batches. A cryptographic one takes five times as long, a tenth of a pass of a small network.
    """
    # as bytes, which numpy has no type for bfloat16 for
    ordered = image.detach().permute(1, 2, 0).contiguous().view(torch.uint8)
    return hash((tuple(image.shape), ordered.numpy().tobytes()))
