"""Activations on a finer grid against transforms written out, and how far they follow shifts by parts of a pixel."""

import pytest
import torch
from band_limited import moved, noise, relative
from torch import nn
from torch.nn import functional as F

from tinv.errors import TinvError
from tinv.nn import BandLimitedActivation, PolynomialActivation, UpsampledActivation


def slow(images: torch.Tensor, function, dims: tuple[int, ...], factor: int = 2) -> torch.Tensor:
    """The formula by complex transforms: zeros around the centred spectrum, the function, the spectrum cut again."""
    found = images
    for dim in dims:
        n = images.shape[dim]
        lines = torch.fft.fft(found.movedim(dim, -1).to(torch.cdouble), dim=-1)
        wide = torch.zeros(*lines.shape[:-1], factor * n, dtype=torch.cdouble)
        for k in range(-((n - 1) // 2), (n - 1) // 2 + 1):
            wide[..., k] = lines[..., k] * factor
        if n % 2 == 0:
            wide[..., n // 2] = wide[..., -(n // 2)] = lines[..., n // 2] * factor / 2
        found = torch.fft.ifft(wide, dim=-1).movedim(-1, dim)
    found = function(found.real).to(torch.cdouble)
    for dim in dims:
        n = images.shape[dim]
        wide = torch.fft.fft(found.movedim(dim, -1), dim=-1)
        lines = torch.zeros(*wide.shape[:-1], n, dtype=torch.cdouble)
        for k in range(-((n - 1) // 2), (n - 1) // 2 + 1):
            lines[..., k] = wide[..., k] / factor
        found = torch.fft.ifft(lines, dim=-1).movedim(-1, dim)
    return found.real


def polynomial(channels: int = 3, **options) -> PolynomialActivation:
    layer = PolynomialActivation(channels, dtype=torch.double, **options)
    with torch.no_grad():
        layer.coefficients += 0.1 * torch.randn(3, channels, dtype=torch.double)
    return layer


@pytest.mark.parametrize("shape", [(16,), (15,), (2,), (8, 13), (9, 6), (4, 5, 6)])
@pytest.mark.parametrize("factor", [2, 3])
def test_an_upsampled_activation_is_the_formula(shape, factor):
    images = torch.randn(2, 3, *shape, dtype=torch.double)
    for function in (torch.relu, F.gelu):
        expected = slow(images, function, tuple(range(2, 2 + len(shape))), factor)
        layer = UpsampledActivation(function, factor=factor)
        torch.testing.assert_close(layer(images), expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(layer(images.float()).double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(15,), (8, 13), (4, 5, 6)])
def test_a_polynomial_activation_is_the_formula(shape):
    images, layer = torch.randn(2, 3, *shape, dtype=torch.double), polynomial(scale=2.0)

    def function(values):
        a0, a1, a2 = layer.coefficients.detach().view(3, 3, *(1 for _ in shape))
        return 2 * (a0 + a1 * (values / 2) + a2 * (values / 2) ** 2)

    torch.testing.assert_close(layer(images).detach(), slow(images, function, tuple(range(2, 2 + len(shape)))))


def test_axes_of_any_layout_are_treated_alone():
    images = torch.randn(2, 3, 4, 6, 7, dtype=torch.double)
    found = UpsampledActivation(torch.relu, axes=(-2, -1))(images)
    torch.testing.assert_close(found, slow(images, torch.relu, (3, 4)))
    frames = images.movedim(2, 1).flatten(0, 1)
    torch.testing.assert_close(found.movedim(2, 1).flatten(0, 1), UpsampledActivation(torch.relu)(frames))
    last = PolynomialActivation(3, axes=(1, 2), channel_axis=-1, dtype=torch.double)
    first = PolynomialActivation(3, dtype=torch.double)
    torch.testing.assert_close(last(frames.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), first(frames))


def followed(function, by=(0.3, 0.2), size=32, deviation=0.5) -> float:
    images = noise(4, 8, size, size, deviation=deviation)
    return relative(function(moved(images, by)), moved(function(images), by))


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (torch.relu, 0.40),
        (F.gelu, 0.36),
        (UpsampledActivation(torch.relu), 0.048),
        (UpsampledActivation(nn.GELU()), 0.0054),
        (UpsampledActivation(torch.relu, factor=4), 0.0053),
    ],
)
def test_how_far_a_shift_by_parts_of_a_pixel_is_followed(function, error):
    assert followed(function) == pytest.approx(error, rel=0.1)


@pytest.mark.parametrize("size", [32, 31])
@pytest.mark.parametrize("by", [(0.3, 0.2), (1.7, -2.4)])
def test_a_polynomial_activation_follows_every_shift(size, by):
    assert followed(polynomial(8), by, size) < 1e-14
    # a square on the grid itself does not, nor one of a map with its Nyquist frequency removed too late
    assert followed(lambda images: images + images.square(), by, size) > 0.05


def test_the_nyquist_frequency_itself_is_not_followed():
    images = torch.randn(1, 3, 8, dtype=torch.double)
    turned = torch.fft.irfft(torch.fft.rfft(images) * torch.exp(-1j * torch.pi * torch.arange(5.0) * 0.125), n=8)
    layer = polynomial()
    assert relative(layer(turned), moved(layer(images), (0.5,))) > 1e-3


@pytest.mark.parametrize("make", [lambda: UpsampledActivation(torch.relu), polynomial])
@pytest.mark.parametrize("size", [8, 9])
def test_shifts_by_whole_pixels_are_followed_exactly(make, size):
    images, layer = torch.randn(2, 3, size, size + 3, dtype=torch.double), make()
    torch.testing.assert_close(layer(images.roll((3, -2), (2, 3))), layer(images).roll((3, -2), (2, 3)))


def test_a_constant_and_axes_of_one_pixel_are_left_to_the_function():
    images = torch.randn(2, 3, 1, 1)
    assert torch.equal(UpsampledActivation(nn.SiLU())(images), F.silu(images))
    torch.testing.assert_close(
        UpsampledActivation(nn.SiLU())(images.expand(2, 3, 6, 5)), F.silu(images).expand(2, 3, 6, 5)
    )
    line = torch.randn(2, 3, 1, 7, dtype=torch.double)
    torch.testing.assert_close(
        UpsampledActivation(nn.SiLU())(line)[:, :, 0], UpsampledActivation(nn.SiLU())(line[:, :, 0])
    )


def test_the_first_coefficients_and_what_the_scale_does():
    layer = PolynomialActivation(2, scale=1.0)
    torch.testing.assert_close(layer.coefficients[:, 0], torch.tensor([0.01694, 0.5, 0.3078]))
    # the quadratic that is closest to GELU on -1.42 to 1.42, by least squares; on -2 to 2 it is another one
    for end, closest in ((1.42, True), (2.0, False)):
        values = torch.linspace(-end, end, 2001, dtype=torch.double)
        powers = torch.stack([values**0, values, values**2], 1)
        fit = torch.linalg.lstsq(powers, F.gelu(values)[:, None]).solution[:, 0]
        assert bool((fit - layer.coefficients[:, 0].detach()).abs().max() < 1e-3) == closest

    def after(scale: float) -> float:
        value = torch.full((1, 1, 1, 1), 4.0, dtype=torch.double)
        for _ in range(8):
            value = PolynomialActivation(1, scale=scale, dtype=torch.double)(value)
        return float(value)

    # as on the path of a ResNet from block to block
    assert after(1.0) > 1e20
    assert after(7.0) < 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
@pytest.mark.parametrize("layer", [UpsampledActivation(nn.GELU()), PolynomialActivation(3)])
def test_half_precision_autocast_and_memory_format(layer, dtype):
    images = torch.randn(2, 3, 10, 12)
    assert layer(images.to(dtype)).dtype == dtype
    torch.testing.assert_close(layer(images.to(dtype)), layer(images.to(dtype).float()).to(dtype), rtol=0, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(layer(images), layer(images), rtol=0, atol=0)
        assert layer(images).dtype == torch.float
    assert layer(images.contiguous(memory_format=torch.channels_last)).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("make", [lambda: UpsampledActivation(F.gelu), polynomial])
def test_gradients_and_export_at_other_sizes(make):
    layer = make()
    images = torch.randn(1, 3, 4, 5, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(layer, images)
    height = torch.export.Dim("height", min=3, max=32)
    exported = torch.export.export(layer, (torch.randn(1, 3, 8, 5, dtype=torch.double),), dynamic_shapes=({2: height},))
    torch.testing.assert_close(exported.module()(images), layer(images))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UpsampledActivation(torch.relu, factor=1), "factor of UpsampledActivation is an integer of 2 or more"),
        (lambda: PolynomialActivation(3, scale=0), "scale of PolynomialActivation is a number above 0"),
        (lambda: PolynomialActivation(3)(torch.zeros(1, 4, 5, 5)), "is for 3 channels; axis 1 of its map has 4"),
        (lambda: UpsampledActivation(torch.relu, (4,))(torch.zeros(1, 4, 5)), "1x4x5 does not have the axes"),
    ],
)
def test_bad_input_is_one_clear_line(make, message):
    with pytest.raises(TinvError, match=message):
        make()


def test_a_subclass_without_a_function_is_named():
    with pytest.raises(NotImplementedError, match="BandLimitedActivation does not say which function"):
        BandLimitedActivation()(torch.zeros(1, 1, 4))
