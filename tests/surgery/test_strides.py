"""What takes the place of strides: where it stands, its sizes, and which branches share a choice."""

import pytest
import timm
import torch
from surgery.residual import Residual, resnet18
from torch import nn
from torch.nn import functional as F

from tinv import convert
from tinv.errors import TinvError
from tinv.policies.cards import PADDINGS, SUBSAMPLINGS

POLICIES = [policy for policy in PADDINGS if policy != "keep"]
IMAGES = torch.zeros(1, 3, 64, 64)


@pytest.mark.parametrize("subsampling", [name for name in SUBSAMPLINGS if name != "keep"])
@pytest.mark.parametrize("size", [(32, 32), (33, 47)])
def test_every_subsampling_keeps_the_sizes_of_the_network(subsampling, size):
    """Same padding and a stride of 3 among those of 2: maps are as large as before, but for dense."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(4, 4, 1, stride=2),
        nn.AvgPool2d(2, 2),
    )
    images = torch.randn(2, 3, *size)
    converted = convert(network, "keep", subsampling, stem="convert", example_input=images)
    expected = network(images).shape
    if subsampling == "dilated":
        # every pixel but those that the last pool's window, dilated by 3 * 2 * 2, reaches beyond the border
        expected = (2, 4, *(pixels - 12 for pixels in size))
    assert converted(images).shape == expected


def test_blur_and_adaptive_layers_stand_where_zhang_puts_them():
    network = convert(resnet18(), "keep", "blur3", example_input=IMAGES)
    names = [str(node.target) for node in network.graphs[False].nodes if node.op == "call_module"]
    after_relu = names.index("layer2.0.relu")
    assert names[after_relu + 1] == "policy_layers.layer2_0_conv1_subsample"
    assert names[names.index("layer2.0.downsample.0") - 1] == "policy_layers.layer2_0_downsample_0_subsample"
    assert names[names.index("maxpool") + 1] == "policy_layers.maxpool_subsample"
    assert network.maxpool.kernel_size == [3, 3]
    assert network.maxpool.stride == [1, 1]
    assert network.conv1.stride == (2, 2)


@pytest.mark.parametrize("blur_padding", ["zero", "reflect", "replicate", "circular"])
def test_the_border_of_blurs_is_an_option(blur_padding):
    network = convert(resnet18(), "keep", "blur5", blur_padding=blur_padding, example_input=IMAGES)
    assert {layer.padding_mode for layer in network.policy_layers.values()} == {blur_padding.replace("zero", "zeros")}


def test_branches_share_one_adaptive_choice_a_sample():
    torch.manual_seed(0)
    images = torch.randn(8, 4, 16, 16, dtype=torch.double)
    converted = convert(Residual().double().eval(), "same_circular", "aps", stem="convert", example_input=images)
    together = converted(images)
    alone = torch.cat([converted(image[None]) for image in images])
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(converted(images.roll((1, 3), (2, 3))), together)


@pytest.mark.parametrize("padding", ["full_zero", "valid"])
def test_the_phases_of_adaptive_branches_are_aligned_before_they_choose(padding):
    images = torch.zeros(1, 3, 431, 431)
    network = convert(resnet18(), padding, "aps", stem="convert", example_input=images)
    assert network.conversion.skipped == []


def test_blurs_that_a_network_has_become_adaptive_and_share_their_choice():
    images = torch.randn(2, 3, 64, 64)
    network = convert(
        timm.create_model("resnetblur18").eval(), "same_circular", "aps", stem="convert", example_input=images
    )
    with torch.no_grad():
        torch.testing.assert_close(network(images.roll((1, 3), (2, 3))), network(images), rtol=1e-3, atol=1e-4)
    with pytest.raises(TinvError, match="blurs already"):
        convert(timm.create_model("resnetblur18"), "keep", "dilated", example_input=images)


def test_squeeze_excite_gates_are_left_alone():
    network = convert(timm.create_model("seresnet18"), "full_zero", example_input=IMAGES)
    assert network.layer1[0].se.fc1.padding == (0, 0)
    assert not any("se" in note.layer.split(".") for note in network.conversion.changed)


def test_explicit_pads_of_a_network_are_left_to_the_policy():
    """HGNet pads before an even kernel in a step of its own."""
    network = convert(timm.create_model("hgnetv2_b0"), "full_zero", example_input=IMAGES)
    assert "stem.pad" in {note.layer for note in network.conversion.changed}
    assert not any(node.target is F.pad for node in network.graphs[False].nodes)


def test_dense_gives_the_values_of_the_strided_network_at_its_places():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, bias=False), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2), nn.MaxPool2d(2)
    )
    images = torch.randn(2, 3, 31, 31)
    dense = convert(network, "keep", "dilated", stem="convert", example_input=images)
    expected = network(images)
    torch.testing.assert_close(dense(images)[..., ::8, ::8][..., : expected.shape[2], : expected.shape[3]], expected)


# bad input
