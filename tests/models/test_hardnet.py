import pytest
import torch
from torch import nn

from tinv.errors import TinvError
from tinv.models import create_backbone


def published(padding: int) -> nn.Sequential:
    """The network layer by layer, as protocol K4b writes it down."""
    layers: list[nn.Module] = []
    channels = 1
    for width, stride in ((32, 1), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1)):
        layers += [nn.Conv2d(channels, width, 3, stride=stride, padding=padding, bias=False)]
        layers += [nn.BatchNorm2d(width, affine=False), nn.ReLU()]
        channels = width
    layers += [nn.Dropout(0.3), nn.Conv2d(128, 128, 8, bias=False), nn.BatchNorm2d(128, affine=False), nn.Flatten()]
    return nn.Sequential(*layers)


def build(**options) -> nn.Module:
    return create_backbone("hardnet", **{"num_classes": 128, "in_channels": 1, "input_size": (32, 32), **options})


@pytest.mark.parametrize(
    ("padding", "zeros", "length"), [("keep", 1, 128), ("same_zero", 1, 128), ("full_zero", 2, 6272)]
)
def test_it_is_the_published_network(padding, zeros, length):
    ours, theirs = build(padding=padding), published(zeros)
    weights = [layer.weight for layer in ours.modules() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        for layer, weight in zip((m for m in theirs if isinstance(m, nn.Conv2d)), weights, strict=True):
            layer.weight.copy_(weight)
    patches = torch.randn(6, 1, 32, 32)
    for mode in (True, False):
        for network in (ours, theirs):
            network.train(mode)
        torch.manual_seed(0)  # of the dropout
        expected = theirs(patches)
        torch.manual_seed(0)
        found = ours(patches)
        assert found.shape == (6, length)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_pooled_descriptors_have_128_numbers_and_are_the_mean_of_the_published():
    published_one, pooled = (build(padding="full_zero", descriptor=kind).eval() for kind in ("published", "pooled"))
    pooled.load_state_dict(published_one.state_dict())
    patches = torch.randn(3, 1, 32, 32)
    found = pooled(patches)
    assert found.shape == (3, 128)
    torch.testing.assert_close(found, published_one(patches).view(3, 128, 49).mean(dim=2))


def test_cropped_descriptors_are_the_middle_of_the_published():
    published_one, cropped = (build(padding="full_zero", descriptor=kind).eval() for kind in ("published", "cropped"))
    cropped.load_state_dict(published_one.state_dict())
    patches = torch.randn(3, 1, 32, 32)
    assert torch.equal(cropped(patches), published_one(patches).view(3, 128, 7, 7)[:, :, 3, 3])
    assert build(descriptor="cropped").eval()(patches).shape == (3, 128)


@pytest.mark.parametrize("padding", ["full_zero", "same_zero"])
def test_pooled_full_descriptors_do_not_see_shifts_by_the_stride(padding):
    """Content clear of the border, moved by multiples of 4 pixels: the map moves along, and its mean stays."""
    network = build(padding=padding, descriptor="pooled", input_size=(128, 128)).double().eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            # what is blank does not stay zero
            layer.running_mean.normal_(std=0.1)
    patches = torch.zeros(2, 1, 128, 128, dtype=torch.float64)
    patches[:, :, 56:72, 56:72] = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    expected = network(patches)
    for shift in ((4, 0), (-8, 4)):
        torch.testing.assert_close(network(patches.roll(shift, (2, 3))), expected, rtol=0, atol=1e-9)
    assert (network(patches.roll((1, 0), (2, 3))) - expected).abs().max() > 1e-6


def test_weights_are_orthogonal_with_gain_0_6():
    for layer in build().modules():
        if isinstance(layer, nn.Conv2d):
            rows = layer.weight.detach().flatten(1)
            gram = rows @ rows.T if rows.shape[0] <= rows.shape[1] else rows.T @ rows
            torch.testing.assert_close(gram, 0.36 * torch.eye(len(gram)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("subsampling", ["dilated", "blur3", "aps"])
def test_it_takes_the_subsampling_policies(subsampling):
    network = build(subsampling=subsampling, padding="same_circular", descriptor="pooled").eval()
    patches = torch.randn(2, 1, 32, 32)
    found = network(patches)
    assert found.shape == (2, 128)
    if subsampling == "dilated":
        # circular and without strides: every position but those at the seam of the last convolution moves along
        assert network.trunk(patches).shape == (2, 128, 32, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"descriptor": "pool"}, "unknown descriptor 'pool'; did you mean pooled"),
        (
            {"padding": "valid"},
            "on 32x32 images: hardnet under padding valid makes a map of 3x3 of these patches, .* needs 8x8",
        ),
        ({"input_size": (16, 16)}, "on 16x16 images: hardnet under padding keep makes a map of 4x4"),
    ],
)
def test_what_it_cannot_do_is_one_line(options, message):
    with pytest.raises(TinvError, match=message):
        build(**options)
