"""How a map is thinned out: by strides, not at all (dense), after a blur, or where its content says (adaptive)."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinv.errors import TinvError, unknown
from tinv.policies.cards import SUBSAMPLINGS, Subsampling
from tinv.policies.padding import Content, check_kernel_fits, pad


def check_subsampling(policy: str) -> Subsampling:
    """Returns `policy` if it is the name of a subsampling policy, else raises TinvError naming the nearest ones."""
    if policy not in SUBSAMPLINGS:
        raise unknown("subsampling", policy, SUBSAMPLINGS)
    return policy


def subsampler(policy: Subsampling, stride: int | Sequence[int], content: Content = "zero") -> nn.Module | None:
    """Returns the layer that carries a stride under a policy, after a layer whose own stride is now 1.

    Args:
        policy: of subsampling.
        stride: pixels.
        content: of the border that the layer's blur sees.

    Returns:
        None for `keep` and `dense`, which need no layer.
    """
    if policy.startswith("blur"):
        return BlurPool(int(policy.removeprefix("blur")), stride, content)
    if policy.startswith("aps"):
        return AdaptivePolyphase(stride, int(policy.removeprefix("aps").removeprefix("_blur") or 1), content)
    return None


class BlurPool(nn.Module):
    """Low-pass filter, then stride: the anti-aliased subsampling of Zhang (ICML 2019).

    The filter is the outer product of the binomial row of `size` numbers ([1, 2, 1] / 4 for 3). Every stride and every
    map size gives ceil(size / stride) pixels. Even filters look half a pixel to the right (their extra padding pixel
    goes right), so 32 pixels become 16, never 17.

    Args:
        size: of the filter, 1 to 7; 1 is plain sampling.
        stride: pixels, one number for all axes or one for each.
        content: of the (size - 1) padding pixels an axis; `background` takes it from a PolicySequential.

    Shape:
        (N, C, *spatial) -> (N, C, *ceil(spatial / stride)), one to three spatial axes.

    Raises:
        TinvError: if the size is not 1 to 7.
    """

    def __init__(self, size: int, stride: int | Sequence[int] = 2, content: Content = "zero") -> None:
        super().__init__()
        if not 1 <= size <= 7:
            raise TinvError(f"blur filter size must be 1 to 7, not {size}")
        self.size, self.stride, self.padding_content = size, stride, content
        row = torch.tensor([comb(size - 1, i) for i in range(size)], dtype=torch.float64) / 2 ** (size - 1)
        # a constant, not part of the state dict: published weights must still load
        self.register_buffer("row", row.to(torch.get_default_dtype()), persistent=False)
        self.row: Tensor

    def forward(self, images: Tensor, background: Tensor | None = None) -> Tensor:
        axes = images.dim() - 2
        stride = [self.stride] * axes if isinstance(self.stride, int) else list(self.stride)
        if self.size == 1:
            return images[(slice(None), slice(None), *(slice(None, None, s) for s in stride))]
        reach = self.size - 1
        images = pad(images, [(reach // 2, reach - reach // 2)] * axes, self.padding_content, background)
        check_kernel_fits("blur", [self.size] * axes, images.shape[2:])
        return self._filter(images, stride)

    def _filter(self, images: Tensor, stride: list[int]) -> Tensor:
        channels, axes = images.shape[1], len(stride)
        row = self.row.to(images.dtype)
        kernel = row
        for _ in range(axes - 1):
            kernel = kernel.unsqueeze(-1) * row
        kernel = kernel.expand(channels, 1, *kernel.shape)
        conv = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
        return conv(images, kernel, stride=stride, groups=channels)

    def blank_response(self, background: Tensor) -> Tensor:
        """Returns this layer's output for an image that is `background` everywhere: the filter sums to one."""
        return background

    def extra_repr(self) -> str:
        return f"size={self.size}, stride={self.stride}, {self.padding_content}"


class AdaptivePolyphase(nn.Module):
    """Keeps, of all ways to take every s-th pixel, the one of largest norm (Chaman & Dokmanic, CVPR 2021).

    A map of stride s has s polyphase components an axis: those that begin at pixel 0, 1, .., s-1. Which of them is the
    strongest moves with the content, so a circular shift of the map leaves the same set of pixels, shifted: after a
    network of circular convolutions, a global pool is unchanged under every circular shift, before any training.
    The choice is made for each image by itself.

    Args:
        stride: pixels, one number for all axes or one for each.
        blur: size (1 to 7) of a binomial filter before the choice; 1 for none.
        content: of the border that the filter sees, and of the pixels added where the stride does not divide the size.

    Shape:
        (N, C, *spatial) -> (N, C, *ceil(spatial / stride)), one to three spatial axes.
    """

    def __init__(self, stride: int | Sequence[int] = 2, blur: int = 1, content: Content = "zero") -> None:
        super().__init__()
        self.stride, self.padding_content = stride, content
        self.blur = BlurPool(blur, 1, content)

    def forward(self, images: Tensor, background: Tensor | None = None) -> Tensor:
        components = self.components(images, background)
        return self.select(components, self.choose(components))

    def components(self, images: Tensor, background: Tensor | None = None) -> Tensor:
        """Returns the components of the blurred map: (N, P, C, *ceil(spatial / stride)), P the product of strides."""
        images = self.blur(images, background)
        axes = images.dim() - 2
        stride = [self.stride] * axes if isinstance(self.stride, int) else list(self.stride)
        missing = [(0, -size % s) for size, s in zip(images.shape[2:], stride, strict=True)]
        images = pad(images, missing, self.padding_content, background)
        split = [part for size, s in zip(images.shape[2:], stride, strict=True) for part in (size // s, s)]
        images = images.reshape(*images.shape[:2], *split)
        # (N, C, h, s, w, s) -> (N, s, s, C, h, w)
        phases, places = range(3, 3 + 2 * axes, 2), range(2, 2 + 2 * axes, 2)
        return images.permute(0, *phases, 1, *places).flatten(1, axes)

    @staticmethod
    def choose(components: Tensor) -> Tensor:
        """Returns the number (N,) of the component of largest Euclidean norm, the first of equals."""
        return components.flatten(2).float().square().sum(dim=2).argmax(dim=1)

    @staticmethod
    def select(components: Tensor, choice: Tensor) -> Tensor:
        """Returns each image's chosen component (N, C, ...). Branches that meet again must share one choice."""
        return components[torch.arange(len(choice), device=choice.device), choice]

    def blank_response(self, background: Tensor) -> Tensor:
        """Returns this layer's output for an image that is `background` everywhere: the same constant."""
        return background

    def extra_repr(self) -> str:
        return f"stride={self.stride}"
