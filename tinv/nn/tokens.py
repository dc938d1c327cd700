"""The grid of patches or windows that the content of each image chooses, and the roll that brings it to the origin.

A network of patches cuts the image along a grid that stays where it is when the content moves. Where the content itself
chooses the grid, the network follows it: of all ways to lay the grid, that of largest norm is taken (Rojas-Gomez et
al., CVPR 2024; Ding et al., 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinv.errors import TinvError
from tinv.nn.pad_widths import to_ntuple
from tinv.nn.precision import at_least_single


def roll_each(maps: Tensor, shifts: Tensor, axes: tuple[int, int] = (2, 3)) -> Tensor:
    """Rolls every map of a batch by its own number of positions, in one gather.

    Args:
        maps: (N, ...), of any axes behind the first.
        shifts: (N, 2) integers, positions along the two axes; positive ones move towards higher positions.
        axes: The two axes that are rolled along.

    Returns:
        The shape of `maps`.

    Examples:
        >>> maps = torch.arange(3.0).expand(2, 1, 1, 3)
        >>> roll_each(maps, torch.tensor([[0, 1], [0, -1]])).flatten(1)
        tensor([[2., 0., 1.],
                [1., 2., 0.]])
    """
    if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and maps.requires_grad):
        return _rolled(maps, shifts, axes)
    rolled: Tensor = _RollEach.apply(maps, shifts, axes)
    return rolled


def first_largest(energies: Tensor) -> Tensor:
    """Returns the row and the column (N, 2) of the largest number of each table (N, R, C), of equals the first by rows.

    Examples:
        >>> first_largest(torch.tensor([[[0.0, 2.0], [2.0, 1.0]]]))
        tensor([[0, 1]])
    """
    columns = energies.shape[2]
    best = energies.flatten(1).argmax(dim=1)
    return torch.stack((best // columns, best % columns), dim=1)


def exact_sums(values: Tensor) -> Tensor:
    """Returns values in float64, or float32 on devices without it, so that a sum hardly depends on its order."""
    return at_least_single(values) if values.device.type == "mps" else values.double()


def pixel_energies(images: Tensor, patch: tuple[int, int]) -> Tensor:
    """Returns the squared norm (N, p, q) of every polyphase component: the pixels [i::p, j::q] of all channels.

    Args:
        images: (N, C, H, W), whose sizes the patch divides.
        patch: Pixels (p, q) of a patch.
    """
    squares = exact_sums(images).square().sum(dim=1)
    return sum_by_phase(squares, patch)


def sum_by_phase(values: Tensor, step: tuple[int, int]) -> Tensor:
    """Returns the sums (N, p, q) of the values [i::p, j::q] of a table (N, H, W), whose sizes `step` (p, q) divides."""
    count, height, width = values.shape
    rows, columns = step
    return values.reshape(count, height // rows, rows, width // columns, columns).sum(dim=(1, 3))


def check_grid(what: str, size: Sequence[int], step: Sequence[int]) -> None:
    """Raises TinvError where steps do not divide a size, which names the next size that works."""
    if all(n % s == 0 for n, s in zip(size, step, strict=True)):
        return
    least = [-(-n // s) * s for n, s in zip(size, step, strict=True)]
    given, by, works = ("x".join(map(str, numbers)) for numbers in (size, step, least))
    raise TinvError(f"{given} {what} of {by}; the next size that works is {works}")


class PolyphaseAnchor(nn.Module):
    """Rolls each image so that the patch grid of largest norm begins at its first pixel (Ding et al., 2023).

    Of the p*q polyphase components [i::p, j::q], the first of largest Euclidean norm becomes [0::p, 0::q]. After that,
    whatever the circular shift, the content lies the same way in its patches. With `canonical`, the patch of largest
    norm (of equals, the one that the whole image singles out) is then rolled to the origin: the output is bit-equal for
    every circular shift of an image, so that any network behind it is exactly invariant, with absolute positions too.

    Args:
        patch: Pixels of a patch, one number or (p, q).
        canonical: Whether the strongest patch is rolled to the origin.

    Shape:
        (N, C, H, W) -> the same; p divides H, and q divides W.

    Raises:
        TinvError: When run, for images whose sizes the patch does not divide.

    Source:
        Ding et al., Reviving Shift Equivariance in Vision Transformers, 2023, arXiv 2306.07470.

    Examples:
        >>> anchor = PolyphaseAnchor(4)
        >>> images = torch.randn(2, 3, 16, 16)
        >>> torch.equal(anchor(images), anchor(images.roll((3, 5), (2, 3))))
        True
    """

    token_axes = (2, 3)

    def __init__(self, patch: int | Sequence[int], canonical: bool = True) -> None:
        super().__init__()
        rows, columns = to_ntuple(patch, 2)
        self.patch, self.canonical = (rows, columns), canonical

    def forward(self, images: Tensor) -> Tensor:
        return roll_each(images, -self.origin(images))

    @torch.no_grad()
    def origin(self, images: Tensor) -> Tensor:
        """Returns the row and the column (N, 2) of the pixel that is rolled to the origin."""
        check_grid("pixels are no whole number of patches", images.shape[2:], self.patch)
        phase = first_largest(pixel_energies(images, self.patch))
        if not self.canonical:
            return phase
        patches = F.avg_pool2d(exact_sums(roll_each(images, -phase)).square().sum(dim=1, keepdim=True), self.patch)
        return phase + first_largest(_unique(patches[:, 0])) * torch.tensor(self.patch, device=images.device)

    def extra_repr(self) -> str:
        return f"patch={self.patch}" + ("" if self.canonical else ", canonical=False")


def _unique(strengths: Tensor) -> Tensor:
    """Returns a table (N, R, C) whose largest number is that of one of the largest of another, and follows its rolls.

    Saturated areas give equal patches. Of these, the one that a fixed weighted sum over the whole ring sees as largest
    is taken, which only a table that repeats itself leaves undecided.
    """
    rows, columns = strengths.shape[1:]
    down, across = (torch.arange(size, device=strengths.device, dtype=strengths.dtype) for size in (rows, columns))
    weights = (down[:, None] * 1.618034 + across * 2.414214 + 0.5).square() % 1
    spectrum = torch.fft.rfft2(strengths) * torch.fft.rfft2(weights).conj()
    seen = torch.fft.irfft2(spectrum, s=(rows, columns))
    largest = strengths.amax(dim=(1, 2), keepdim=True)
    found: Tensor = seen.masked_fill(strengths < largest * (1 - 1e-9), -torch.inf)
    return found


def _rolled(maps: Tensor, shifts: Tensor, axes: tuple[int, int]) -> Tensor:
    moved = maps.movedim(axes, (1, 2))
    height, width = moved.shape[1:3]
    rows = (torch.arange(height, device=maps.device) - shifts[:, :1]) % height
    columns = (torch.arange(width, device=maps.device) - shifts[:, 1:]) % width
    images = torch.arange(shifts.shape[0], device=maps.device)[:, None, None]
    found = moved[images, rows[:, :, None], columns[:, None, :]].movedim((1, 2), axes)
    return found.contiguous() if maps.is_contiguous() else found


class _RollEach(torch.autograd.Function):
    """The roll, whose gradient is the roll back: a gather, where torch's own would add up one by one."""

    generate_vmap_rule = True

    @staticmethod
    def forward(maps: Tensor, shifts: Tensor, axes: tuple[int, int]) -> Tensor:
        return _rolled(maps, shifts, axes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, shifts, ctx.axes = inputs
        ctx.save_for_backward(shifts)
        ctx.save_for_forward(shifts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        [gradient], [shifts] = gradients, ctx.saved_tensors
        return roll_each(gradient, -shifts, ctx.axes), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        [shifts] = ctx.saved_tensors
        return _rolled(tangents[0], shifts, ctx.axes)
