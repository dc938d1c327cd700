"""How a map is resampled in frequencies: its discrete Fourier transform is cut or continued with zeros, and inverted.

On an axis of n pixels, wavenumber k stands for k periods. The transform of the input, what is kept of it, and the
inverse at another size m are one matrix (m, n) an axis. On a CPU that took 0.4 to 1.0 times as long as fast Fourier
transforms on maps of 8 to 225 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tinv.errors import TinvError
from tinv.nn.pad_widths import to_ntuple
from tinv.nn.padding import check_axes
from tinv.nn.precision import at_least_single, without_autocast
from tinv.nn.subsampling import ShiftKind, Subsampler


class FrequencySubsampling(Subsampler):
    """Base of layers that subsample by cutting the spectrum of each axis whose stride is above 1.

    Every position of the output sees the whole map. The ceil(n / stride) positions lie evenly over n pixels, the first
    on the first pixel: where the stride does not divide n, a little closer than the stride.

    Args:
        stride: Pixels, one number for all axes or one for each.

    Shape:
        (N, C, *spatial) -> (N, C, *ceil(spatial / stride)), one to three spatial axes. Half precision is computed in
        float32.

    Raises:
        TinvError: When run, for a map of a single pixel on an axis with a stride.
    """

    exact: frozenset[ShiftKind] = frozenset({"circular"})
    sees_all = True
    between = "shifts between its multiples move the map by parts of a position, which activations do not follow"

    def __init__(self, stride: int | Sequence[int] = 2) -> None:
        super().__init__()
        self.stride = stride

    def wavenumbers(self, size: int, stride: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns what is kept of an axis of `size` pixels.

        Returns:
            The wavenumbers (K,) that are read of the input, those (K,) that they become in the output, and the factors
            (K,) between; float64.
        """
        # not abstract: a torch module cannot be made an abstract class without a second metaclass
        raise NotImplementedError(f"{type(self).__name__} does not say which wavenumbers it keeps")

    def matrix(self, size: int, stride: int, device: torch.device | None = None) -> Tensor:
        """Returns the matrix (ceil(size / stride), size), complex128, that subsamples one axis."""
        return transform_matrix(size, -(-size // stride), *self.wavenumbers(size, stride), device)

    def gain(self, size: int, stride: int) -> float:
        """Returns what a constant is multiplied by on an axis of `size` pixels."""
        read, _, factors = self.wavenumbers(size, stride)
        return float(factors[read == 0].sum())

    def window(self, axes: int) -> tuple[int, ...]:
        """Returns ones: positions are counted as if each were a pixel, and `sees_all` says what they see."""
        return (1,) * axes

    def response(self, constant: Tensor, sizes: Sequence[int]) -> Tensor:
        """Returns the response to a constant map of `sizes` pixels, of the shape of `constant` (1 or N, C, 1, ...)."""
        axes = zip(sizes, to_ntuple(self.stride, len(sizes)), strict=True)
        return constant * math.prod(self.gain(size, stride) for size, stride in axes if stride > 1)

    def forward(self, images: Tensor) -> Tensor:
        axes = images.dim() - 2
        strides = to_ntuple(self.stride, axes)
        check_axes(type(self).__name__, images, min(max(len(strides), 1), 3))
        treated = [axis for axis, stride in enumerate(strides) if stride > 1]
        if any(images.shape[2 + axis] < 2 for axis in treated):
            sizes = "x".join(map(str, images.shape[2:]))
            raise TinvError(
                f"{type(self).__name__}: its map of {sizes} has an axis of fewer than 2 pixels to subsample; use a "
                "larger image or fewer strides"
            )
        channels_last = images.dim() == 4 and images.is_contiguous(memory_format=torch.channels_last)
        # autocast would run the products in half precision
        with without_autocast(images):
            found = at_least_single(images)
            for axis in treated:
                matrix = self.matrix(images.shape[2 + axis], strides[axis], images.device)
                found = along(found, self.cast(matrix, found), 2 + axis)
            found = (found.real if found.is_complex() else found).to(images.dtype)
        return found.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)

    @staticmethod
    def cast(matrix: Tensor, images: Tensor) -> Tensor:
        """Returns a matrix in the precision of a map."""
        return matrix.to(torch.complex128 if images.dtype in (torch.double, torch.complex128) else torch.complex64)

    def extra_repr(self) -> str:
        return f"stride={self.stride}"


def transform_matrix(
    size: int,
    count: int,
    read: Tensor,
    written: Tensor,
    factors: Tensor,
    device: torch.device | None = None,
) -> Tensor:
    """Returns the matrix (count, size), complex128, that takes an axis of `size` pixels to one of `count` positions.

    Args:
        size: Pixels of the axis.
        count: Positions, which lie evenly over it, the first on the first pixel.
        read: Wavenumbers (K,) that are read of the input.
        written: Wavenumbers (K,) that they become in the output.
        factors: What each is multiplied by between, (K,).
        device: Device of the matrix.
    """
    read, written, factors = (part.to(device) for part in (read, written, factors))
    pixels, positions = (torch.arange(n, dtype=torch.float64, device=device) for n in (size, count))
    # whole periods are taken away first, so that angles stay small and exact
    turns = torch.outer(positions, written).remainder(count) / count
    inverse = torch.polar(torch.ones_like(turns), 2 * math.pi * turns)
    turns = torch.outer(read, pixels).remainder(size) / size
    transform = torch.polar((factors / size).unsqueeze(1).expand_as(turns), -2 * math.pi * turns)
    return inverse @ transform


def _below_nyquist(size: int) -> Tensor:
    """Returns the wavenumbers that `size` pixels tell apart, without the Nyquist frequency; float64."""
    highest = (size - 1) // 2
    return torch.arange(-highest, highest + 1, dtype=torch.float64)


def subsampling_matrix(size: int, factor: int, device: torch.device | None = None) -> Tensor:
    """Returns the matrix (size, factor * size), float64, that takes one axis to `size` pixels by an ideal filter."""
    kept = _below_nyquist(size)
    return transform_matrix(factor * size, size, kept, kept, torch.ones_like(kept), device).real


def upsampling_matrix(size: int, factor: int, device: torch.device | None = None) -> Tensor:
    """Returns the matrix (factor * size, size), float64, that upsamples one axis: its spectrum continued with zeros.

    The new positions hold the trigonometric polynomial of least degree through the old ones. The Nyquist frequency of
    an even size stands for k = n / 2 and k = -n / 2 alike; each gets half of it, which makes the matrix real.
    """
    kept = torch.arange(-(size // 2), size // 2 + 1, dtype=torch.float64)
    factors = torch.where(2 * kept.abs() == size, 0.5, 1.0).double()
    return transform_matrix(size, factor * size, kept, kept, factors, device).real


def along(images: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Returns the products of a matrix (m, n) with all lines along an axis of n pixels."""
    if matrix.is_complex() and not images.is_complex():
        images = images.to(matrix.dtype)
    return (images.movedim(axis, -1) @ matrix.T).movedim(-1, axis)


class IdealSubsampling(FrequencySubsampling):
    """Ideal low-pass filter, then stride (Michaeli et al., Alias-Free Convnets, CVPR 2023, arXiv 2303.08085).

    Of an axis of n pixels, m = ceil(n / stride) are left, and the wavenumbers |k| <= (m - 1) // 2 are kept. The Nyquist
    frequency of an even m, of which half could not be told from the other, is set to zero, so that every shift of the
    input, by fractions of a pixel too, is a shift of the output (in the band-limited sense): the trigonometric
    polynomial through its pixels is moved. What follows may not follow: a ReLU makes new high frequencies.
    """

    exact: frozenset[ShiftKind] = frozenset({"circular", "fractional"})

    def wavenumbers(self, size: int, stride: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the wavenumbers -K to K that are kept, K = (m - 1) // 2, twice, and ones."""
        kept = _below_nyquist(-(-size // stride))
        return kept, kept, torch.ones_like(kept)

    @staticmethod
    def cast(matrix: Tensor, images: Tensor) -> Tensor:
        """Returns a matrix in the precision of a map; k and -k are kept together, which makes it real."""
        return matrix.real.to(images.dtype)


class FLCPooling(FrequencySubsampling):
    """FrequencyLowCut pooling (Grabinski et al., ECCV 2022, arXiv 2204.00491): the middle of the centred spectrum.

    Of an axis of n pixels whose transform has wavenumber 0 in its middle, at n // 2, the entries from n / 4 to 3 n / 4,
    rounded down, are kept and inverted; the real part is the output. With stride s, ceil(n / s) entries from
    n (s - 1) / (2 s), rounded down, are kept, which on n = 4 q + 1 is one more than in the published code.

    The Nyquist frequency of an even size is kept on one side alone, so that only multiples of the stride are followed.
    Where wavenumber 0 does not come to the middle of what is kept, as on sizes of 2 more than a multiple of 4 at stride
    2, the output is multiplied by a wave, and no shift is followed.
    """

    def wavenumbers(self, size: int, stride: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the wavenumbers of the crop, those that they become about its middle, and ones."""
        count, first = -(-size // stride), self._first(size, stride)
        entries = torch.arange(count, dtype=torch.float64)
        return entries + (first - size // 2), entries - count // 2, torch.ones_like(entries)

    @staticmethod
    def _first(size: int, stride: int) -> int:
        return size * (stride - 1) // (2 * stride)

    def circular_problem(self, size: int, stride: int) -> str:
        """Returns that the crop is off the centre, where it is."""
        centred = size // 2 - self._first(size, stride) == -(-size // stride) // 2
        return "" if centred else f"crops the frequencies of {size} positions off their centre"


class ASAPPooling(FLCPooling):
    """FLC pooling under a Hamming window of the whole spectrum (Grabinski et al., arXiv 2307.09804).

    On two axes the window is the root of the outer product of two Hamming windows, so on each axis its root.
    """

    def wavenumbers(self, size: int, stride: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the wavenumbers of the crop, those that they become about its middle, and the window there."""
        read, written, _ = super().wavenumbers(size, stride)
        window = torch.hamming_window(size, periodic=False, dtype=torch.float64).sqrt()
        return read, written, window[(read + size // 2).long()]
