"""Copies of a network in float64 whose norms and biases are random, so that nothing is exact by chance of zeros."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


def exact_copy(network: nn.Module) -> nn.Module:
    """Returns a copy of a network in float64 and in evaluation; the network is left as it is."""
    return copy.deepcopy(network).double().eval()


@torch.no_grad()
def with_random_statistics(network: nn.Module, seed: int = 0) -> nn.Module:
    """Returns a copy in float64 and in evaluation, with random norms and biases of convolutions.

    A fresh network has no biases, and norms that change nothing, so that a border of zeros is harmless by chance. Means
    and variances of running statistics, factors and shifts of norms, and biases of convolutions are changed at random
    about what they are: variances and factors by 0.5 to 1.5 times.

    Args:
        network: It is left as it is.
        seed: Seed of the random numbers.
    """
    found, random = exact_copy(network), torch.Generator().manual_seed(seed)
    for module in found.modules():
        if isinstance(module, (_ConvNd, _ConvTransposeNd)):
            if module.bias is not None:
                _add(module.bias, 0.1, random)
            continue
        mean, variance = getattr(module, "running_mean", None), getattr(module, "running_var", None)
        if isinstance(mean, Tensor) and isinstance(variance, Tensor):
            _add(mean, 0.1 * float(variance.mean().sqrt()), random)
            _scale(variance, random)
        if isinstance(mean, Tensor) or isinstance(module, (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)):
            for factors, shifts in _affine(module):
                if not factors.any():
                    # a branch that begins at zero would hide all that lies in it
                    factors.fill_(1.0)
                _scale(factors, random)
                if shifts is not None:
                    _add(shifts, 0.2 * float(factors.abs().mean()), random)
    return found


def _affine(module: nn.Module) -> Iterator[tuple[Tensor, Tensor | None]]:
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if isinstance(weight, Tensor):
        yield weight, bias if isinstance(bias, Tensor) else None


def _add(values: Tensor, scale: float, random: torch.Generator) -> None:
    noise = torch.randn(values.shape, generator=random, dtype=torch.double)
    values.add_(noise.to(values.device), alpha=scale)


def _scale(values: Tensor, random: torch.Generator) -> None:
    factors = 0.5 + torch.rand(values.shape, generator=random, dtype=torch.double)
    values.mul_(factors.to(values.device))
