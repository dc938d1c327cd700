"""Maps without the Nyquist frequency, and what they are after a circular shift by any part of a pixel."""

import math

import torch
from torch import Tensor


def _spectrally(images: Tensor, dim: int, factors: Tensor) -> Tensor:
    shape = [-1 if d == dim % images.dim() else 1 for d in range(images.dim())]
    return torch.fft.ifft(torch.fft.fft(images, dim=dim) * factors.view(shape), dim=dim).real


def wavenumbers(size: int) -> Tensor:
    return torch.fft.fftfreq(size, 1 / size, dtype=torch.double)


def noise(*shape: int, deviation: float = 1.0, dims: tuple[int, ...] = (-2, -1), seed: int = 3) -> Tensor:
    """White noise below the Nyquist frequency, of a standard deviation."""
    images = torch.randn(shape, dtype=torch.double, generator=torch.Generator().manual_seed(seed))
    for dim in dims:
        kept = wavenumbers(images.shape[dim]).abs() <= (images.shape[dim] - 1) // 2
        images = _spectrally(images, dim, kept.double())
    return images * (deviation / images.std())


def moved(images: Tensor, by: tuple[float, ...]) -> Tensor:
    """A map without the Nyquist frequency, its last axes moved by any number of pixels."""
    for dim, pixels in zip(range(-len(by), 0), by, strict=True):
        turns = wavenumbers(images.shape[dim]) * (pixels / images.shape[dim])
        images = _spectrally(images, dim, torch.exp(-2j * math.pi * turns))
    return images


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).detach().norm() / wanted.detach().norm())
