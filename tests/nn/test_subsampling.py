import itertools
from math import comb

import pytest
import torch
from torch.nn import functional as F

from tinv.errors import TinvError
from tinv.nn.subsampling import AdaptivePolyphaseSampling, BlurPool


@pytest.mark.parametrize("size", range(1, 8))
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("length", [7, 8, 32])
def test_blur_is_the_binomial_filter_at_every_stride_and_size(size, stride, length):
    x = torch.randn(1, 2, length, dtype=torch.double)
    blur = BlurPool(size, stride).double()
    left = (size - 1) // 2
    row = [comb(size - 1, k) / 2 ** (size - 1) for k in range(size)]
    at = range(0, length, stride)
    expected = [sum(row[k] * x[..., i + k - left] for k in range(size) if 0 <= i + k - left < length) for i in at]
    got = blur(x)
    assert got.shape[-1] == -(-length // stride)  # 32 becomes 16, also for even filters
    torch.testing.assert_close(got, torch.stack(expected, dim=-1))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_blur_in_many_dimensions_is_the_blur_of_each_axis(axes, size):
    x = torch.randn(2, 3, *[6, 7, 5][:axes], dtype=torch.double)
    expected = x
    for axis in range(2, 2 + axes):
        moved = expected.movedim(axis, -1)
        flat = BlurPool(size, 2).double()(moved.reshape(1, -1, moved.shape[-1]))
        expected = flat.reshape(*moved.shape[:-1], -1).movedim(-1, axis)
    torch.testing.assert_close(BlurPool(size, 2).double()(x), expected)


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_blur_keeps_a_constant_under_padding_that_repeats_pixels(mode):
    x = torch.full((1, 2, 7, 2), 3.0)
    torch.testing.assert_close(BlurPool(5, 2, mode)(x), torch.full((1, 2, 4, 1), 3.0))


def test_circular_blur_is_equivariant_to_multiples_of_the_stride():
    x = torch.randn(1, 2, 8, 8)
    blur = BlurPool(4, 2, "circular")
    torch.testing.assert_close(blur(x.roll((2, 4), (2, 3))), blur(x).roll((1, 2), (2, 3)))


def test_blur_under_autocast_and_without_parameters():
    blur = BlurPool(3)
    assert not blur.state_dict()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert blur(torch.randn(1, 2, 8, 8)).shape == (1, 2, 4, 4)


def test_sizes_out_of_range_are_refused():
    with pytest.raises(TinvError, match="1 to 7, not 8"):
        BlurPool(8)


@pytest.mark.parametrize("shape", [(12,), (12, 9), (12, 6, 9)])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_adaptive_polyphase_keeps_the_strongest_component(shape, stride):
    x = torch.randn(4, 2, *shape)
    kept = AdaptivePolyphaseSampling(stride)(x)
    assert kept.shape[2:] == tuple(-(-size // stride) for size in shape)
    for image, result in zip(x, kept, strict=True):
        starts = itertools.product(range(stride), repeat=len(shape))
        parts = [image[(slice(None), *(slice(start, None, stride) for start in begin))] for begin in starts]
        strongest = max(parts, key=lambda part: float(part.square().sum()))
        inner = tuple(slice(0, size) for size in strongest.shape)
        assert torch.equal(result[inner], strongest)
        assert result.square().sum() == pytest.approx(float(strongest.square().sum()), rel=1e-5)  # the rest is zero


@pytest.mark.parametrize("stride", [2, 3, (2, 1), (1, 3)])
def test_adaptive_polyphase_is_equivariant_to_every_circular_shift(stride):
    x = torch.randn(3, 2, 12, 18, dtype=torch.double)
    layer = AdaptivePolyphaseSampling(stride, 3, "circular").double()
    down, right = (stride, stride) if isinstance(stride, int) else stride
    kept = layer(x)
    for shift in ((1, 0), (0, 1), (5, 7)):
        moved = layer(x.roll(shift, (2, 3)))
        for before, after in zip(kept, moved, strict=True):
            rolls = (before.roll((i, j), (1, 2)) for i in range(12 // down) for j in range(18 // right))
            assert any(torch.allclose(roll, after, rtol=0, atol=1e-12) for roll in rolls)


def test_branches_can_share_one_choice():
    layer = AdaptivePolyphaseSampling(2)
    main, shortcut = torch.randn(2, 5, 3, 8, 8)
    parts = layer.components(main)
    choice = layer.choose(parts)
    assert choice.shape == (5,)
    assert torch.equal(layer.select(parts, choice), layer(main))
    followed = layer.select(layer.components(shortcut), choice)
    for image, result, number in zip(shortcut, followed, choice.tolist(), strict=True):
        assert torch.equal(result, image[:, number // 2 :: 2, number % 2 :: 2])


def test_a_blur_takes_every_memory_format():
    images = torch.randn(2, 3, 8, 8)
    blur = BlurPool(3)
    expected = blur(images)
    moved = blur.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(moved, expected)


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("pixels", [9, 12])
def test_a_full_blur_meets_every_pixel_with_every_filter_value(mode, size, stride, pixels):
    images = torch.randn(2, 3, pixels, pixels + 1, dtype=torch.double)
    layer = BlurPool(size, stride, mode, full=True).double()
    padded = F.pad(images, (size - 1,) * 4, mode="constant" if mode == "zeros" else mode)
    row = torch.tensor([comb(size - 1, i) for i in range(size)], dtype=torch.double) / 2 ** (size - 1)
    kernel = torch.outer(row, row).expand(3, 1, size, size)
    expected = F.conv2d(padded, kernel, stride=stride, groups=3)
    torch.testing.assert_close(layer(images), expected, rtol=0, atol=1e-12)
    if stride == 1 and mode == "zeros":
        # nothing of the image is lost
        torch.testing.assert_close(layer(images).sum(), images.sum())


@pytest.mark.parametrize(("norm", "strength"), [(1, lambda v: v.abs().sum()), ("inf", lambda v: v.abs().max())])
@pytest.mark.parametrize("shape", [(12,), (12, 9), (8, 6, 9)])
def test_adaptive_polyphase_compares_the_norm_it_is_given(norm, strength, shape):
    x = torch.randn(6, 2, *shape)
    kept = AdaptivePolyphaseSampling(3, norm=norm)(x)
    for image, result in zip(x, kept, strict=True):
        starts = itertools.product(range(3), repeat=len(shape))
        parts = [image[(slice(None), *(slice(start, None, 3) for start in begin))] for begin in starts]
        strongest = max(parts, key=strength)
        assert torch.equal(result[tuple(slice(0, size) for size in strongest.shape)], strongest)


def test_norms_keep_different_components():
    # one large value against many small ones: sums 3, 4 and 3.9, norms 3, 2 and 2.04, largest magnitudes 3, 1 and 1.3
    rows = torch.tensor([[3.0, 0, 0, 0], [1, 1, 1, 1], [1.3, 1.3, 1.3, 0]])
    x = torch.stack([rows[0], rows[1]], -1).reshape(1, 1, 8)
    kept = {norm: AdaptivePolyphaseSampling(2, norm=norm)(x).flatten().tolist() for norm in (1, 2, "inf")}
    assert kept == {1: rows[1].tolist(), 2: rows[0].tolist(), "inf": rows[0].tolist()}
    spread = torch.stack([torch.full((4,), 1.2), rows[2]], -1).reshape(1, 1, 8)
    kept = {norm: AdaptivePolyphaseSampling(2, norm=norm)(spread)[0, 0, 3].item() for norm in (1, 2, "inf")}
    assert kept == {1: pytest.approx(1.2), 2: pytest.approx(1.2), "inf": 0}


def test_an_unknown_norm_is_one_clear_line():
    with pytest.raises(TinvError, match=r"unknown norm of adaptive subsampling '3'; choose from 1, 2, inf"):
        AdaptivePolyphaseSampling(2, norm=3)
