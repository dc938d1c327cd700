"""Subsampling in frequencies against transforms written out from the formulas, and what is true of their shifts."""

import cmath
import itertools
import math

import pytest
import torch

from tinv.errors import TinvError
from tinv.nn import IdealSubsampling


def spectrum(row: list[float]) -> dict[int, complex]:
    """Coefficients of a row of n pixels by wavenumber, -(n // 2) to (n - 1) // 2."""
    n = len(row)
    return {
        k: sum(x * cmath.exp(-2j * math.pi * k * i / n) for i, x in enumerate(row)) / n
        for k in range(-(n // 2), (n - 1) // 2 + 1)
    }


def ideal(row: list[float], stride: int) -> list[float]:
    """One axis by hand: the wavenumbers |k| <= (m - 1) // 2 of m = ceil(n / stride)."""
    size = -(-len(row) // stride)
    kept = {k: c for k, c in spectrum(row).items() if abs(k) <= (size - 1) // 2}
    values = [sum(c * cmath.exp(2j * math.pi * k * j / size) for k, c in kept.items()) for j in range(size)]
    assert max(abs(value.imag) for value in values) < 1e-9
    return [value.real for value in values]


def along_each_axis(images: torch.Tensor, stride: int, function) -> torch.Tensor:
    for axis in range(2, images.dim()):
        lines = images.movedim(axis, -1)
        flat = [function(line, stride) for line in lines.reshape(-1, lines.shape[-1]).tolist()]
        images = torch.tensor(flat, dtype=images.dtype).reshape(*lines.shape[:-1], -1).movedim(-1, axis)
    return images


def smooth(shape: tuple[int, ...], shift: tuple[float, ...] = (), highest: int = 2) -> torch.Tensor:
    """A sum of waves of up to `highest` periods an axis, moved by any number of pixels: band-limited."""
    chance = torch.Generator().manual_seed(5)
    total = torch.zeros(shape, dtype=torch.double)
    for waves in itertools.product(range(-highest, highest + 1), repeat=len(shape)):
        phase, height = (torch.rand(2, generator=chance, dtype=torch.double) * 2 * math.pi).tolist()
        for axis, (k, n) in enumerate(zip(waves, shape, strict=True)):
            at = torch.arange(n, dtype=torch.double) - (shift[axis] if shift else 0)
            turns = at.view(*(-1 if a == axis else 1 for a in range(len(shape)))) * (2 * math.pi * k / n)
            phase = phase + turns
        total = total + height * torch.cos(phase)
    return total[None, None]


@pytest.mark.parametrize("shape", [(16,), (15,), (7,), (2,), (12, 9), (8, 14), (4, 6, 5)])
@pytest.mark.parametrize("stride", [2, 3, 4])
def test_ideal_subsampling_is_the_formula(shape, stride):
    images = torch.randn(2, 2, *shape, dtype=torch.double)
    expected = along_each_axis(images, stride, ideal)
    assert expected.shape[2:] == tuple(-(-n // stride) for n in shape)
    torch.testing.assert_close(IdealSubsampling(stride)(images), expected, rtol=0, atol=1e-12)
    single = IdealSubsampling(stride)(images.float())
    assert single.dtype == torch.float
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "stride"), [((16,), 2), ((15,), 2), ((18, 20), 3), ((17, 22), (2, 4)), ((9, 8, 10), 2)]
)
@pytest.mark.parametrize("shift", [0.3, 1.0, 2.7])
def test_ideal_subsampling_follows_shifts_by_parts_of_a_pixel(shape, stride, shift):
    layer = IdealSubsampling(stride)
    sizes = layer(smooth(shape)).shape[2:]
    highest = min((size - 1) // 2 for size in sizes)
    by = (shift, *(-0.4 for _ in shape[1:]))
    before, after = layer(smooth(shape, highest=highest)), layer(smooth(shape, by, highest))
    # the same waves at the smaller size, moved by the same part of the axis
    parts = tuple(pixels * m / n for pixels, m, n in zip(by, sizes, shape, strict=True))
    torch.testing.assert_close(before, smooth(tuple(sizes), highest=highest), rtol=0, atol=1e-10)
    torch.testing.assert_close(after, smooth(tuple(sizes), parts, highest), rtol=0, atol=1e-10)
    assert (before - after).abs().max() > 1e-2


def test_ideal_subsampling_of_any_map_moves_with_every_circular_shift():
    images = torch.randn(2, 3, 16, dtype=torch.double)
    layer = IdealSubsampling(2)
    kept = torch.fft.rfft(layer(images))
    for shift in (1, 2, 5):
        turned = kept * torch.exp(-2j * math.pi * torch.arange(5, dtype=torch.double) * shift / 16)
        assert (torch.fft.rfft(layer(images.roll(shift, 2))) - turned).abs().max() < 1e-12


def test_the_nyquist_frequency_is_dropped_on_both_sides():
    alternating = torch.tensor([1.0, 1, -1, -1] * 4, dtype=torch.double).view(1, 1, 16)
    # four periods: the Nyquist frequency of 8 pixels
    assert IdealSubsampling(2)(alternating).abs().max() < 1e-15
    assert IdealSubsampling(2)(alternating[..., :15]).abs().max() > 1e-2


def test_a_relu_behind_ideal_subsampling_does_not_follow():
    images = torch.randn(1, 4, 16, 16, dtype=torch.double)
    layer = IdealSubsampling(2)
    means = [torch.relu(layer(images.roll(shift, 3))).mean() for shift in (0, 1, 2)]
    assert abs(means[2] - means[0]) < 1e-14
    assert abs(means[1] - means[0]) > 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
def test_half_precision_is_computed_in_single(dtype):
    images = torch.randn(2, 3, 14, 14)
    found = IdealSubsampling(2)(images.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found, IdealSubsampling(2)(images.to(dtype).float()).to(dtype), rtol=0, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = IdealSubsampling(2)(images)
    torch.testing.assert_close(found, IdealSubsampling(2)(images), rtol=0, atol=0)


def test_memory_format_gradients_and_axes_without_a_stride():
    images = torch.randn(2, 3, 8, 6, dtype=torch.double, requires_grad=True)
    layer = IdealSubsampling((2, 1))
    assert not layer.state_dict()
    assert torch.autograd.gradcheck(layer, images)
    lines = images.detach().permute(0, 3, 1, 2).reshape(12, 3, 8)
    expected = IdealSubsampling(2)(lines).reshape(2, 6, 3, 4).permute(0, 2, 3, 1)
    torch.testing.assert_close(layer(images), expected)
    moved = layer(images.detach().contiguous(memory_format=torch.channels_last))
    assert moved.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(moved, expected)


def test_a_map_of_one_pixel_is_one_clear_line():
    with pytest.raises(TinvError, match="IdealSubsampling: its map of 4x1 has an axis of fewer than 2 pixels"):
        IdealSubsampling(2)(torch.zeros(1, 1, 4, 1))
    assert IdealSubsampling((2, 1))(torch.ones(1, 1, 4, 1)).shape == (1, 1, 2, 1)
    with pytest.raises(TinvError, match=r"takes maps \(N, C, H, W\)"):
        IdealSubsampling((2, 2))(torch.zeros(1, 4, 4))
