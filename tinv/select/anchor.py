"""The patch grid of a transformer laid where the content says: the same patches for every circular shift."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tinv.errors import TinvError
from tinv.nn.tokens import PolyphaseAnchor, exact_sums, first_largest
from tinv.select.selection import Selection, check_images, take_window
from tinv.utils.arguments import Checked, PositiveInt


class PatchAnchor(Selection, Checked):
    r"""Shows a transformer each image rolled so that its grid of patches lies at the strongest polyphase component.

    $$(i, j) = \mathrm{argmax}_{i, j} \lVert x[\ldots, i::p, j::p] \rVert, \qquad x' = \mathrm{roll}(x, (-i, -j))$$

    for patches of p pixels a side. The set of patches of x' is the same for every circular shift of x; what differs is
    their order. With `canonical` the patch of largest norm is rolled to the origin too, so that the network's input is
    the same to the last bit and any network is invariant to every circular shift, absolute positions included.
    Without, the grid of tokens is equivariant, and the network has to treat positions as circular.

    It is `tinv.nn.PolyphaseAnchor` around any callable. Of equal components the first by rows is taken, which does not
    follow the content; of equal patches the one that the whole image singles out. An image with two equal components or
    two equal largest patches has no certificate.

    Args:
        network: Any callable that takes images (N, C, H, W).
        patch: Pixels a side of a patch, the stride of the first convolution.
        canonical: Whether the strongest patch is rolled to the origin.

    Raises:
        TinvError: Later, for images whose sizes are no multiples of the patch.

    Shape:
        (N, C, H, W) -> what the network returns; the network sees (N, C, H, W).

    Source:
        Ding et al., arXiv 2306.07470. The second roll is tinv's.

    Examples:
        >>> stable = PatchAnchor(torch.nn.Conv2d(3, 8, 4, stride=4), patch=4)
        >>> images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> bool((stable(images) == stable(images.roll((5, -2), (2, 3)))).all())
        True
    """

    def __init__(self, network: Callable[[Tensor], Any], patch: PositiveInt, canonical: bool = True) -> None:
        super().__init__(network)
        self.patch, self.canonical = patch, canonical
        self.anchor = PolyphaseAnchor(patch, canonical)

    def position(self, images: Tensor) -> Tensor:
        """Returns the row and column of each image that become the first: (N, 2)."""
        self._check(images)
        return self.anchor.origin(images)

    @torch.no_grad()
    def certificate(self, images: Tensor) -> Tensor:
        """Returns how far each image may move, wrapped around, while the network surely sees the same patches.

        Without `canonical` the patches are the same, in another order. Every circular shift by whole pixels is one by
        up to half of the larger side, and all are sure unless two norms are equal to rounding.

        Args:
            images: Images (N, C, H, W).

        Returns:
            (N,) integers, pixels: max(H, W) // 2 where both maxima are unique, else 0.
        """
        energy = self._energy(images)
        components = self._components(energy)
        unique = _is_unique(components, energy)
        if self.canonical:
            unique &= _is_unique(self._patches(energy, first_largest(components[:, 0])), energy)
        return (max(images.shape[2:]) // 2 * unique).long()

    def _check(self, images: Tensor) -> None:
        """Refuses images whose sizes are no multiples of the patch."""
        check_images(images, type(self).__name__)
        if images.shape[2] % self.patch or images.shape[3] % self.patch:
            raise TinvError(
                f"PatchAnchor needs sizes that are multiples of its patch of {self.patch} pixels, and the images have "
                f"{images.shape[2]}x{images.shape[3]}"
            )

    def _energy(self, images: Tensor) -> Tensor:
        """Returns the squares of images (N, C, H, W), added over channels: (N, 1, H, W)."""
        self._check(images)
        return exact_sums(images.detach()).square().sum(1, keepdim=True)

    def _components(self, energy: Tensor) -> Tensor:
        """Returns the energy of each polyphase component of (N, 1, H, W): (N, 1, p, p)."""
        return self._split(energy).sum((2, 4))

    def _patches(self, energy: Tensor, phase: Tensor) -> Tensor:
        """Returns the energy of each patch once the phase (N, 2) is the first pixel: (N, 1, H / p, W / p)."""
        rolled = take_window(energy, phase, (energy.shape[2], energy.shape[3]))
        return self._split(rolled).sum((3, 5))

    def _split(self, energy: Tensor) -> Tensor:
        """Returns (N, 1, H, W) as (N, 1, H / p, p, W / p, p)."""
        count, channels, height, width = energy.shape
        return energy.reshape(count, channels, height // self.patch, self.patch, width // self.patch, self.patch)

    def extra_repr(self) -> str:
        return f"patch={self.patch}, canonical={self.canonical}"


def _is_unique(energies: Tensor, energy: Tensor) -> Tensor:
    """Returns whether the largest of (N, 1, h, w), sums of parts of `energy`, is one alone, beyond rounding: (N,)."""
    if energies[0].numel() == 1:
        return torch.ones(len(energies), dtype=torch.bool, device=energies.device)
    terms = energy[0].numel() // energies[0].numel()
    largest = energies.flatten(1).topk(2).values
    return largest[:, 0] - largest[:, 1] > 2 * terms * torch.finfo(energies.dtype).eps * largest[:, 0]
