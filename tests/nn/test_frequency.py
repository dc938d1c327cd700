"""Subsampling in frequencies against transforms written out from the formulas, and what is true of their shifts."""

import cmath
import itertools
import math

import pytest
import torch

from tinv.errors import TinvError
from tinv.nn import ASAPPooling, FLCPooling, IdealSubsampling


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


def cropped(image: torch.Tensor, hamming: bool) -> torch.Tensor:
    """A map (H, W) by hand: entries n // 4 to 3 n // 4 of its centred spectrum, the inverse about their middle."""
    sizes = tuple(image.shape)
    entries = [range(n // 4, n // 4 + -(-n // 2)) for n in sizes]
    total = torch.zeros([len(kept) for kept in entries], dtype=torch.cdouble)
    rows, columns = (torch.arange(n, dtype=torch.double) for n in sizes)
    for a, b in itertools.product(*entries):
        window = 1.0
        for entry, n in zip((a, b), sizes, strict=True):
            window *= math.sqrt(0.54 - 0.46 * math.cos(2 * math.pi * entry / (n - 1))) if hamming else 1.0
        k, j = a - sizes[0] // 2, b - sizes[1] // 2
        turns = k * rows[:, None] / sizes[0] + j * columns[None] / sizes[1]
        coefficient = (image * torch.exp(-2j * math.pi * turns)).sum() / image.numel()
        k, j = (e - kept[0] - len(kept) // 2 for e, kept in zip((a, b), entries, strict=True))
        at = [torch.arange(len(kept), dtype=torch.double) for kept in entries]
        turns = k * at[0][:, None] / len(at[0]) + j * at[1][None] / len(at[1])
        total += window * coefficient * torch.exp(2j * math.pi * turns)
    return total.real


@pytest.mark.parametrize("layer", [FLCPooling, ASAPPooling])
@pytest.mark.parametrize("shape", [(16, 16), (14, 12), (15, 9), (2, 3), (13, 8)])
def test_crops_of_the_spectrum_are_the_formula(layer, shape):
    images = torch.randn(1, 2, *shape, dtype=torch.double)
    expected = torch.stack([cropped(image, layer is ASAPPooling) for image in images[0]])[None]
    torch.testing.assert_close(layer(2)(images), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(layer(2)(images.float()).double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("layer", [FLCPooling, ASAPPooling])
def test_crops_of_the_spectrum_follow_multiples_of_the_stride_where_they_are_centred(layer):
    pool = layer(2)
    for size, follows in ((16, True), (12, True), (14, False), (10, False)):
        images = torch.randn(1, 2, size, size, dtype=torch.double)
        moved = pool(images.roll((2, -4), (2, 3))) - pool(images).roll((1, -2), (2, 3))
        error = float(moved.norm() / pool(images).norm())
        assert (error < 1e-12) == follows
        assert follows or error > 0.3
        assert (pool.circular_problem(size, 2) == "") == follows


@pytest.mark.parametrize(("layer", "error"), [(FLCPooling, 0.1), (ASAPPooling, 0.1), (IdealSubsampling, 0)])
def test_one_side_of_the_nyquist_frequency_does_not_follow_odd_shifts(layer, error):
    images = torch.randn(2, 3, 16, 16, dtype=torch.double)
    before = layer(2)(images)
    turns = torch.exp(-1j * math.pi * torch.fft.fftfreq(8, dtype=torch.double))
    half = torch.fft.ifft2(torch.fft.fft2(before) * turns[:, None] * turns).real
    found = float((layer(2)(images.roll((1, 1), (2, 3))) - half).norm() / before.norm())
    assert found > error if error else found < 1e-12


@pytest.mark.parametrize("layer", [FLCPooling, ASAPPooling, IdealSubsampling])
def test_the_response_to_a_constant_is_known(layer):
    constant = torch.tensor([2.0, -1.0], dtype=torch.double).view(1, 2, 1, 1)
    found = layer(2)(constant.expand(1, 2, 12, 16))
    torch.testing.assert_close(found, layer(2).response(constant, (12, 16)).expand_as(found))
    assert layer((1, 2)).response(constant, (12, 16)).shape == constant.shape
