"""The polyphase component that was chosen for each image, taken with a gradient that is computed in one copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tinv.nn.pad_widths import to_ntuple


def take_phase(images: Tensor, strides: int | Sequence[int], choice: Tensor) -> Tensor:
    """Returns each image's chosen polyphase component, without a copy of the others.

    Args:
        images: (N, C, *spatial); the strides divide the sizes.
        strides: Pixels, one number for all axes or one for each.
        choice: (N,) the number of the component, 0 to P - 1, P the product of the strides of all axes. The phase of the
            last axis counts fastest.

    Returns:
        (N, C, *(spatial / stride)); a map in channels_last stays so.

    Examples:
        >>> images = torch.arange(6.0).expand(2, 1, 6)
        >>> take_phase(images, 2, torch.tensor([0, 1]))
        tensor([[[0., 2., 4.]],
        <BLANKLINE>
                [[1., 3., 5.]]])
    """
    each = to_ntuple(strides, images.dim() - 2)
    if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and images.requires_grad):
        return _taken(images, each, choice)
    taken: Tensor = _TakePhase.apply(images, each, choice)
    return taken


def by_phase(images: Tensor, strides: Sequence[int]) -> Tensor:
    """Returns a view (N, *strides, C, *(spatial / stride)) of a map (N, C, *spatial) whose sizes the strides divide."""
    axes = len(strides)
    split = [part for size, s in zip(images.shape[2:], strides, strict=True) for part in (size // s, s)]
    phases, positions = range(3, 3 + 2 * axes, 2), range(2, 2 + 2 * axes, 2)
    # (N, C, h, s, w, s) -> (N, s, s, C, h, w)
    return images.reshape(*images.shape[:2], *split).permute(0, *phases, 1, *positions)


def channels_last(images: Tensor) -> bool:
    """Returns whether the channels of a map lie side by side; torch's own question is not implemented under vmap."""
    return images.dim() == 4 and images.shape[1] > 1 and images.stride(1) == 1


def _index(strides: Sequence[int], choice: Tensor) -> tuple[Tensor, ...]:
    """Returns what picks the chosen component of each image out of the view of `by_phase`."""
    phases: list[Tensor] = []
    for s in reversed(strides):
        phases.insert(0, choice % s)
        choice = choice // s
    return torch.arange(choice.shape[0], device=choice.device), *phases


def _taken(images: Tensor, strides: Sequence[int], choice: Tensor) -> Tensor:
    return by_phase(images, strides)[_index(strides, choice)]


class _TakePhase(torch.autograd.Function):
    """The chosen component; the gradient that torch derives copies the whole map, and adds where it could write."""

    generate_vmap_rule = True

    @staticmethod
    def forward(images: Tensor, strides: Sequence[int], choice: Tensor) -> Tensor:
        return _taken(images, strides, choice)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        images, ctx.strides, choice = inputs
        ctx.shape = images.shape
        ctx.channels_last = channels_last(images)
        ctx.save_for_backward(choice)
        ctx.save_for_forward(choice)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        [gradient], [choice] = gradients, ctx.saved_tensors
        count, channels, *sizes = ctx.shape
        if ctx.channels_last:
            whole = gradient.new_zeros(count, *sizes, channels).movedim(-1, 1)
        else:
            whole = gradient.new_zeros(ctx.shape)
        by_phase(whole, ctx.strides)[_index(ctx.strides, choice)] = gradient
        return whole, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        [choice] = ctx.saved_tensors
        return _taken(tangents[0], ctx.strides, choice)
