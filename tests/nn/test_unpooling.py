"""Unpooling puts pixels back to where they were chosen from."""

import pytest
import torch

from tinv.errors import TinvError
from tinv.nn import AdaptivePolyphaseSampling, LearnedPolyphaseSampling, PaddedConv2d, PolyphaseUnpooling


@pytest.mark.parametrize(
    ("shape", "stride"), [((9,), 2), ((8,), 3), ((6, 8), 2), ((7, 9), (2, 3)), ((4, 6, 5), (1, 2, 2))]
)
def test_what_was_kept_stands_where_it_was_and_all_else_is_zero(shape, stride):
    images = torch.randn(4, 3, *shape, dtype=torch.double)
    kept, choice = AdaptivePolyphaseSampling(stride).sample_with_choice(images)
    back = PolyphaseUnpooling(stride)(kept, choice, shape)
    assert back.shape == images.shape
    there = back != 0
    assert torch.equal(back[there], images[there])
    torch.testing.assert_close(back.sum(), kept.sum())
    # of each image the pixels of one component: no two closer than the stride
    strides = (stride,) * len(shape) if isinstance(stride, int) else stride
    for mask in there[:, 0]:
        for axis, step in enumerate(strides):
            assert len({int(i) % step for i in mask.nonzero()[:, axis]}) == 1


def test_it_is_the_transpose_of_weighted_sampling():
    layer = LearnedPolyphaseSampling(3, temperature=(2.0, 1.0)).double().train()
    images = torch.randn(4, 3, 7, 6, dtype=torch.double)
    kept, weights = layer.sample_with_choice(images)
    others = torch.randn_like(kept)
    back = PolyphaseUnpooling(2)(others, weights.detach(), (7, 6))
    sampled = layer.select(layer.components(images), weights.detach())
    torch.testing.assert_close((sampled * others).sum(), (images * back).sum())


@pytest.mark.parametrize("make", [lambda: AdaptivePolyphaseSampling(2), lambda: LearnedPolyphaseSampling(3)])
def test_pool_convolution_and_unpooling_follow_every_circular_shift(make):
    torch.manual_seed(0)
    pool, unpool = make().double().eval(), PolyphaseUnpooling(2)
    conv = PaddedConv2d(3, 4, 3, padding_mode="circular").double()

    def network(images: torch.Tensor) -> torch.Tensor:
        maps, choice = pool.sample_with_choice(images)
        return unpool(conv(maps).relu(), choice, images.shape[2:])

    images = torch.randn(2, 3, 8, 12, dtype=torch.double)
    before = network(images)
    for by in ((1, 0), (0, 1), (3, 5), (2, 4)):
        torch.testing.assert_close(network(images.roll(by, (2, 3))), before.roll(by, (2, 3)), rtol=0, atol=1e-12)
    odd = torch.randn(2, 3, 7, 7, dtype=torch.double)
    assert (network(odd.roll(1, 2)) - network(odd).roll(1, 2)).abs().max() > 1e-2


def test_maps_and_choices_that_do_not_fit_are_one_clear_line():
    with pytest.raises(TinvError, match="maps of 3x3 cannot fill 8x8 pixels at stride 2x2, which takes 4x4"):
        PolyphaseUnpooling(2)(torch.zeros(1, 2, 3, 3), torch.zeros(1, dtype=torch.long), (8, 8))
    with pytest.raises(TinvError, match="the choice is among 9 components, the stride has 4"):
        PolyphaseUnpooling(2)(torch.zeros(1, 2, 4, 4), torch.zeros(1, 9), (8, 8))
