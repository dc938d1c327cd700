"""Networks of any kind get the same pixels, to the last bit, of every circular shift; export of all selections."""

import itertools

import pytest
import torch
from torch import nn

from tinv.errors import TinvError
from tinv.select import CircularCanonical, CropSelect, PatchAnchor


def images(count: int = 2, height: int = 16, width: int = 12, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=dtype)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)).double()


def same(images: torch.Tensor) -> torch.Tensor:
    return images


@pytest.mark.parametrize(
    "wrap",
    [
        lambda net: CircularCanonical(net),
        lambda net: CircularCanonical(net, "laplacian"),
        lambda net: CircularCanonical(net, lambda images: images.mean(1, keepdim=True)),
        lambda net: PatchAnchor(net, 4),
        lambda net: PatchAnchor(net, 2),
    ],
    ids=["random", "laplacian", "own", "anchor4", "anchor2"],
)
def test_a_random_network_is_exact_for_every_circular_shift(wrap):
    stable, batch = wrap(network()), images()
    before = stable(batch)
    assert not torch.equal(before[0], before[1])
    for shift in itertools.product(range(16), range(12)):
        assert torch.equal(stable(batch.roll(shift, (2, 3))), before)
    assert stable.certificate(batch).tolist() == [8, 8]
    # the network alone is not
    assert not torch.equal(network()(batch.roll(1, 3)), network()(batch))


def test_the_maximum_lies_in_the_middle():
    batch = torch.zeros(1, 1, 9, 8)
    batch[0, 0, 2, 7] = 1
    rolled = CircularCanonical(same, lambda images: images)(batch)
    assert rolled.nonzero().tolist() == [[0, 0, 4, 4]]


@pytest.mark.parametrize("canonical", [True, False])
def test_the_anchor_is_that_of_loops(canonical):
    batch, p = images(3), 4
    for image, found in zip(batch, PatchAnchor(same, p, canonical)(batch), strict=True):
        norms = {(i, j): float(image[:, i::p, j::p].norm()) for i in range(p) for j in range(p)}
        i, j = max(norms, key=norms.__getitem__)
        expected = image.roll((-i, -j), (1, 2))
        if canonical:
            patches = {
                (a, b): float(expected[:, a : a + p, b : b + p].norm())
                for a in range(0, 16, p)
                for b in range(0, 12, p)
            }
            a, b = max(patches, key=patches.__getitem__)
            expected = expected.roll((-a, -b), (1, 2))
        assert torch.equal(found, expected)


def test_without_the_second_roll_the_patches_move_as_a_grid():
    batch, anchor = images(), PatchAnchor(same, 4, canonical=False)
    before = anchor(batch)
    for shift in ((1, 0), (3, 5), (-7, 2)):
        after = anchor(batch.roll(shift, (2, 3)))
        moves = itertools.product(range(0, 16, 4), range(0, 12, 4))
        assert all(
            any(torch.equal(one.roll(move, (1, 2)), other) for move in moves)
            for moves, one, other in zip([list(moves)] * 2, before, after, strict=True)
        )


@pytest.mark.parametrize("stable", [CircularCanonical(same), PatchAnchor(same, 4)], ids=["circular", "anchor"])
def test_equal_maxima_have_no_certificate(stable):
    batch = images().roll(0)
    batch[1] = 1
    assert stable.certificate(batch).tolist() == [8, 0]
    # two equal halves: the image is periodic, and yet two positions are equal
    batch[0, :, 8:] = batch[0, :, :8]
    assert stable.certificate(batch).tolist() == [0, 0]


@pytest.mark.parametrize(
    "stable", [CircularCanonical(network()), PatchAnchor(network(), 4)], ids=["circular", "anchor"]
)
def test_gradients_reach_the_input_and_the_parameters(stable):
    batch = images().requires_grad_()
    stable(batch).sum().backward()
    assert (batch.grad != 0).double().mean() > 0.9
    assert all(parameter.grad.abs().sum() > 0 for parameter in stable.network.parameters())


@pytest.mark.parametrize("stable", [CircularCanonical(same), PatchAnchor(same, 4)], ids=["circular", "anchor"])
def test_the_choice_is_the_same_under_autocast_and_in_channels_last(stable):
    batch = images(dtype=torch.float32)
    expected = stable.position(batch)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(stable.position(batch), expected)
    last = batch.contiguous(memory_format=torch.channels_last)
    assert torch.equal(stable(last), stable(batch))
    assert stable(last).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda net: CropSelect(net, (12, 10), lambda images: images.mean(1, keepdim=True), 2),
        lambda net: CropSelect(net, 11, "laplacian", 0),
        lambda net: CircularCanonical(net),
        lambda net: PatchAnchor(net, 4),
    ],
    ids=["own", "crop", "circular", "anchor"],
)
def test_selections_export_with_a_batch_of_any_size(wrap):
    stable = wrap(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()).eval()
    stable(images())
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(stable, (images(3),), dynamic_shapes=({0: batch},))
    for count in (2, 5):
        torch.testing.assert_close(program.module()(images(count)), stable(images(count)), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PatchAnchor(same, 5)(images()), "multiples of its patch of 5 pixels, and the images have 16x12"),
        (lambda: PatchAnchor(same, 0), "patch must be 1 or more, not 0"),
        (lambda: PatchAnchor(same, 4)(images()[0]), r"PatchAnchor takes floating-point images \(N, C, H, W\)"),
        (lambda: CircularCanonical(same, "none"), "unknown score 'none'"),
        (lambda: CircularCanonical(same)(images(1, 3, 8)), "the score sees 9x9 pixels, too many for images of 3x8"),
        (lambda: CircularCanonical(7), "network is a int, which cannot be called"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(TinvError, match=message):
        make()
