from math import comb

import pytest
import torch

from tinv.errors import TinvError
from tinv.policies.cards import SUBSAMPLING_CARDS, SUBSAMPLINGS
from tinv.policies.subsampling import BlurPool, check_subsampling


def test_every_policy_has_a_card():
    assert set(SUBSAMPLING_CARDS) == set(SUBSAMPLINGS)


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


@pytest.mark.parametrize("content", ["circular", "reflect", "replicate"])
def test_blur_keeps_a_constant_under_padding_that_repeats_pixels(content):
    x = torch.full((1, 2, 7, 2), 3.0)
    torch.testing.assert_close(BlurPool(5, 2, content)(x), torch.full((1, 2, 4, 1), 3.0))


def test_circular_blur_is_equivariant_to_multiples_of_the_stride():
    x = torch.randn(1, 2, 8, 8)
    blur = BlurPool(4, 2, "circular")
    torch.testing.assert_close(blur(x.roll((2, 4), (2, 3))), blur(x).roll((1, 2), (2, 3)))


def test_blur_under_autocast_and_without_parameters():
    blur = BlurPool(3)
    assert not blur.state_dict()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert blur(torch.randn(1, 2, 8, 8)).shape == (1, 2, 4, 4)


def test_unknown_policies_and_sizes_are_refused():
    with pytest.raises(TinvError, match="did you mean blur3"):
        check_subsampling("blur33")
    with pytest.raises(TinvError, match="1 to 7, not 8"):
        BlurPool(8)
