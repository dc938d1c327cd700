"""Grids that the content chooses, against slow obvious references."""

import itertools

import pytest
import torch
from torch import nn
from torchvision.models.swin_transformer import (
    PatchMerging,
    PatchMergingV2,
    ShiftedWindowAttention,
    ShiftedWindowAttentionV2,
)

from tinv.errors import TinvError
from tinv.nn import (
    AdaptivePatchEmbedding,
    AdaptivePatchMerging,
    AdaptiveWindowAttention,
    CircularPositionBias,
    PolyphaseAnchor,
    roll_each,
)
from tinv.nn.tokens import first_largest
from tinv.nn.window_attention import relative_index, window_energies

SHIFTS = [(0, 1), (1, 0), (3, 2), (5, 7)]


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.double, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("axes", [(2, 3), (1, 2)])
def test_each_map_is_rolled_by_its_own_shift_and_so_is_its_gradient(axes):
    maps, shifts = randn(3, 4, 5, 6).requires_grad_(), torch.tensor([[0, 1], [-2, 3], [7, 0]])
    rolled = roll_each(maps, shifts, axes)
    expected = torch.stack(
        [image.roll(by.tolist(), [a - 1 for a in axes]) for image, by in zip(maps, shifts, strict=True)]
    )
    assert torch.equal(rolled, expected)
    weights = randn(3, 4, 5, 6)
    [found], [known] = (torch.autograd.grad((y * weights).sum(), maps, retain_graph=True) for y in (rolled, expected))
    assert torch.equal(found, known)
    assert torch.equal(rolled, roll_each(maps.detach(), shifts, axes))


def test_of_equal_energies_the_first_by_rows_is_taken():
    energies = torch.tensor([[[1.0, 3.0], [3.0, 3.0]], [[0.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [2.0, 2.0]]])
    assert first_largest(energies).tolist() == [[0, 1], [0, 0], [1, 0]]


def test_an_anchor_gives_the_same_bits_for_every_shift():
    images, anchor = randn(2, 3, 8, 12).float(), PolyphaseAnchor((4, 3))
    anchored = anchor(images)
    for shift in itertools.product(range(8), range(12)):
        assert torch.equal(anchor(images.roll(shift, (2, 3))), anchored)
    # the component that begins at the origin is the strongest, and so is the first patch
    energies = [float(anchored[0, :, i::4, j::3].square().sum()) for i in range(4) for j in range(3)]
    assert energies[0] == max(energies)
    patches = [float(anchored[0, :, i : i + 4, j : j + 3].square().sum()) for i in (0, 4) for j in range(0, 12, 3)]
    assert patches[0] == max(patches)


def test_equal_patches_as_of_saturated_areas_are_told_apart_by_the_rest_of_the_image():
    images = randn(2, 3, 8, 12).clamp(-0.5, 0.5)
    images[..., 2:4, 4:6] = images[..., 4:6, 2:4] = images[..., 6:, 8:10] = 2.0
    anchor = PolyphaseAnchor(2)
    for shift in itertools.product(range(8), range(12)):
        assert torch.equal(anchor(images.roll(shift, (2, 3))), anchor(images))


def test_an_anchor_that_is_not_canonical_moves_with_the_patches():
    images, anchor = randn(1, 3, 8, 8), PolyphaseAnchor(4, canonical=False)
    seen = {
        tuple(anchor(images.roll(shift, (2, 3))).flatten().tolist()) for shift in itertools.product(range(8), repeat=2)
    }
    assert seen == {
        tuple(anchor(images).roll(by, (2, 3)).flatten().tolist()) for by in itertools.product((0, 4), repeat=2)
    }


@pytest.mark.parametrize("energy", ["tokens", "pixels"])
def test_an_embedding_takes_the_strongest_of_all_patch_grids(energy):
    images = randn(2, 3, 12, 8)
    embed = AdaptivePatchEmbedding(3, 5, (3, 4), energy).double()
    plain = nn.Conv2d(3, 5, (3, 4), (3, 4)).double()
    plain.load_state_dict(embed.state_dict())
    for image, tokens in zip(images.unbind(), embed(images).unbind(), strict=True):
        rolled = [image.roll((-i, -j), (1, 2)) for i in range(3) for j in range(4)]
        strength = [(plain(r[None]) if energy == "tokens" else r[:, ::3, ::4]).square().sum() for r in rolled]
        best = max(range(12), key=lambda k: float(strength[k].detach()))
        torch.testing.assert_close(tokens, plain(rolled[best][None])[0])


@pytest.mark.parametrize(("cls", "norm_first"), [(PatchMerging, True), (PatchMergingV2, False)])
def test_merging_is_that_of_the_map_rolled_to_its_strongest_phase(cls, norm_first):
    tokens, plain = randn(3, 4, 6, 5), cls(5).double()
    merged = AdaptivePatchMerging(plain, norm_first)(tokens)
    for image, found in zip(tokens.unbind(), merged.unbind(), strict=True):
        phases = list(itertools.product(range(2), repeat=2))
        i, j = max(phases, key=lambda at: float(image[at[0] :: 2, at[1] :: 2].square().sum()))
        torch.testing.assert_close(found, plain(image.roll((-i, -j), (0, 1))[None])[0])


def attention(cls: type[nn.Module], window: tuple[int, int], shift: tuple[int, int] = (0, 0)) -> nn.Module:
    torch.manual_seed(0)
    made = cls(6, list(window), list(shift), 2).double().eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


@pytest.mark.parametrize("cls", [ShiftedWindowAttention, ShiftedWindowAttentionV2])
def test_attention_in_the_chosen_windows_is_that_of_torchvision(cls):
    tokens, plain = randn(2, 8, 9, 6), attention(cls, (4, 3))
    layer = AdaptiveWindowAttention(plain, (4, 3)).eval()
    torch.testing.assert_close(layer.attend(tokens, (False, False)), plain(tokens))
    energies = window_energies(tokens, (4, 3))
    for image, energy, found in zip(tokens.unbind(), energies.unbind(), layer(tokens).unbind(), strict=True):
        strength = {}
        for i, j in itertools.product(range(4), range(3)):
            norms = image.roll((-i, -j), (0, 1)).abs().sum(dim=-1)
            means = norms.view(2, 4, 3, 3).mean(dim=(1, 3))
            strength[i, j] = float((means - means.mean()).square().sum())
        torch.testing.assert_close(energy.flatten(), torch.tensor(list(strength.values()), dtype=torch.double))
        best = max(strength, key=lambda at: strength[at])
        rolled = plain(image.roll([-k for k in best], (0, 1))[None])[0]
        torch.testing.assert_close(found, rolled.roll(best, (0, 1)))


@pytest.mark.parametrize("cls", [ShiftedWindowAttention, ShiftedWindowAttentionV2])
@pytest.mark.parametrize("size", [(8, 8), (4, 8), (8, 4), (4, 4)])
@pytest.mark.parametrize("shift", [(0, 0), (2, 2)])
def test_attention_follows_every_shift_where_that_of_torchvision_does_not(cls, size, shift):
    tokens, plain = randn(2, *size, 6), attention(cls, (4, 4), shift)
    layer = AdaptiveWindowAttention(plain, (4, 4), shift).eval()
    for by in SHIFTS:
        torch.testing.assert_close(layer(tokens.roll(by, (1, 2))), layer(tokens).roll(by, (1, 2)), rtol=0, atol=1e-12)
    moved, still = plain(tokens.roll((3, 2), (1, 2))).detach(), plain(tokens).detach().roll((3, 2), (1, 2))
    assert float((moved - still).abs().max()) > 1e-3


def test_distances_on_a_ring_are_all_within_the_table_and_the_same_for_every_shift():
    for window in ((4, 4), (3, 5)):
        plain, ring = (relative_index(window, (is_ring, is_ring)) for is_ring in (False, True))
        assert torch.equal(
            plain, ShiftedWindowAttention(4, list(window), [0, 0], 2).relative_position_index.view_as(plain)
        )
        assert set(ring.unique().tolist()) <= set(plain.unique().tolist())
        near = ring == plain
        assert bool(near.diagonal().all())
        pairs = ring.view(*window, *window)
        assert torch.equal(pairs, pairs.roll((1, 1), (0, 2)))
        assert torch.equal(pairs, pairs.roll((1, 1), (1, 3)))


@pytest.mark.parametrize("kind", ["RelPosBias", "RelPosMlp"])
@pytest.mark.parametrize("prefix", [0, 1])
def test_a_position_bias_on_a_ring_keeps_what_the_table_says_of_near_tokens(kind, prefix):
    import timm.layers

    plain = getattr(timm.layers, kind)((4, 5), num_heads=2, prefix_tokens=prefix).double().eval()
    found, known = CircularPositionBias(plain).eval().get_bias(), plain.get_bias()
    assert found.shape == known.shape
    assert torch.equal(found[..., :prefix, :], known[..., :prefix, :])
    assert torch.equal(found[..., :prefix], known[..., :prefix])
    near = relative_index((4, 5), (True, True)) == relative_index((4, 5), (False, False))
    assert torch.equal(found[..., prefix:, prefix:][..., near], known[..., prefix:, prefix:][..., near])
    pairs = found[..., prefix:, prefix:].reshape(2, 4, 5, 4, 5)
    assert torch.equal(pairs, pairs.roll((1, 1), (1, 3)))


@pytest.mark.parametrize(
    ("layer", "shape", "text"),
    [
        (PolyphaseAnchor(4), (1, 3, 8, 10), "8x10 pixels are no whole number of patches of 4x4; .* works is 8x12"),
        (AdaptivePatchEmbedding(3, 4, 4), (1, 3, 7, 8), "7x8 pixels are no whole number of patches .* works is 8x8"),
        (AdaptivePatchMerging(PatchMerging(4), True), (1, 3, 4, 4), "3x4 tokens .* works is 4x4"),
        (AdaptiveWindowAttention(attention(ShiftedWindowAttention, (4, 4)), (4, 4)), (1, 6, 8, 6), "6x8 .* is 8x8"),
    ],
)
def test_sizes_that_are_not_divisible_are_refused_with_the_next_that_is(layer, shape, text):
    with pytest.raises(TinvError, match=text):
        layer(torch.zeros(shape))
