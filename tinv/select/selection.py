"""What all modules share that choose by content which pixels a network is shown."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tinv.errors import TinvError
from tinv.nn.phase import channels_last


class Selection(nn.Module):
    """Base of modules around a network: they choose a position for each image, and the network is shown what is there.

    The network's parameters are those of the module. Gradients reach them and the chosen pixels. The choice itself is
    piecewise constant and has no gradient.

    Args:
        network: Any callable that takes images (N, C, H, W).

    Raises:
        TinvError: If the network cannot be called.
    """

    def __init__(self, network: Callable[[Tensor], Any]) -> None:
        super().__init__()
        if not callable(network):
            raise TinvError(f"network is a {type(network).__name__}, which cannot be called; give a module or function")
        self.network = network

    @abstractmethod
    def position(self, images: Tensor) -> Tensor:
        """Returns the row and the column of each image that become the first of what the network sees: (N, 2)."""

    def size(self, images: Tensor) -> tuple[int, int]:
        """Returns the pixels (H, W) that the network sees of images (N, C, H, W)."""
        return images.shape[2], images.shape[3]

    def select(self, images: Tensor) -> Tensor:
        """Returns what the network is shown of images (N, C, H, W), as they lie in memory."""
        return take_window(images, self.position(images), self.size(images))

    def forward(self, images: Tensor) -> Any:
        """Returns what the network returns for the chosen pixels."""
        return self.network(self.select(images))


def take_window(images: Tensor, position: Tensor, size: tuple[int, int]) -> Tensor:
    """Cuts a window out of each image, at its own position, wrapped around.

    Args:
        images: Images (N, C, H, W).
        position: Row and column of the first pixel of each window, (N, 2) integers.
        size: Pixels (h, w) of the windows.

    Returns:
        (N, C, h, w); channels_last if the images are.

    Examples:
        >>> image = torch.arange(9.0).view(1, 1, 3, 3)
        >>> take_window(image, torch.tensor([[1, 2]]), (2, 2))[0, 0]
        tensor([[5., 3.],
                [8., 6.]])
    """
    height, width = size
    rows = (position[:, :1] + torch.arange(height, device=images.device)) % images.shape[2]
    columns = (position[:, 1:] + torch.arange(width, device=images.device)) % images.shape[3]
    pixels = rows[:, :, None] * images.shape[3] + columns[:, None, :]
    if channels_last(images):
        flat = images.permute(0, 2, 3, 1).flatten(1, 2)
        taken = flat.gather(1, pixels.flatten(1)[:, :, None].expand(-1, -1, images.shape[1]))
        return taken.reshape(taken.shape[0], height, width, taken.shape[2]).permute(0, 3, 1, 2)
    taken = images.flatten(2).gather(2, pixels.flatten(1)[:, None].expand(-1, images.shape[1], -1))
    return taken.reshape(taken.shape[0], taken.shape[1], height, width)


def check_images(images: Tensor, name: str) -> None:
    """Refuses what is no batch of images (N, C, H, W).

    Raises:
        TinvError: Naming the module.
    """
    if images.dim() != 4 or not images.is_floating_point():
        raise TinvError(f"{name} takes floating-point images (N, C, H, W), not {images.dtype} {tuple(images.shape)}")
