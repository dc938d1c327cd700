"""Geometry: published receptive fields, and what gradients say."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from tinv import convert
from tinv.graph.analysis import analyze

# Araujo, Norris & Sim, Distill 2019, and hand calculation for those with a stride in the 3x3 layer
PUBLISHED = {"alexnet": 195, "vgg16": 212, "resnet50": 427, "densenet121": 2071, "mobilenet_v2": 491}


@pytest.mark.parametrize(("name", "pixels"), PUBLISHED.items())
def test_published_receptive_fields(name, pixels):
    found = analyze(torchvision.models.get_model(name, weights=None), torch.zeros(1, 3, 224, 224))
    assert {place.receptive_field for place in found.last_map.grid} == {pixels}


@pytest.mark.parametrize("size", [65, 96])
@pytest.mark.parametrize(
    ("padding", "subsampling"), [("keep", "keep"), ("full_zero", "keep"), ("full_zero", "blur3"), ("keep", "dilated")]
)
def test_every_cell_sees_the_pixels_it_is_said_to_see(padding, subsampling, size):
    """The pixels with a gradient are those from low + stride * i to high + stride * i, and no others."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 2, 5, stride=2, padding=2),
        nn.Softplus(),
        nn.AvgPool2d(3, 2, 1),
        nn.Conv2d(2, 2, 3, padding=1, dilation=2),
    ).double()
    for parameter in network.parameters():
        nn.init.uniform_(parameter, 0.5, 1)
    images = torch.randn(1, 1, size, size, dtype=torch.double)
    network = convert(network, padding, subsampling, stem="convert", example_input=images)
    place = analyze(network, images).last_map.grid[0]
    for cell in range(0, place.size, 3):
        images.grad = None
        images.requires_grad_(True)
        network(images)[0, 0, cell, place.size // 2].backward()
        seen = images.grad[0, 0].abs().sum(1).nonzero().flatten()
        low, high = int(place.low + place.stride * cell), int(place.high + place.stride * cell)
        first, last = int(seen.min()), int(seen.max())
        # dilation leaves holes, and a hole may lie at the border
        assert first == low if low >= 0 else first >= 0
        assert last == high if high <= size - 1 else last <= size - 1
    beyond = [place.low + place.stride * i < 0 or place.high + place.stride * i > size - 1 for i in range(place.size)]
    assert place.positions_at_border(size) == sum(beyond)


def test_offsets_and_strides_of_a_full_convolution_resnet():
    images = torch.zeros(1, 3, 224, 224)
    network = convert(torchvision.models.resnet18(), "full_zero", example_input=images)
    places = {layer.name: layer.grid[0] for layer in analyze(network, images).layers if layer.grid}
    # 7x7 stride 2 with 6 a side: (7-1)/2 - 6
    assert (places["conv1"].offset, places["conv1"].stride, places["conv1"].size) == (-3, 2, 115)
    assert places["layer2.0.add"].offset == places["layer2.0.conv2"].offset == places["layer2.0.downsample.0"].offset


@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("resnet18", 3.1),
        ("resnet50", 3.1),
        ("densenet121", 8.2),
        ("efficientnet_b0", 7.6),
        ("convnext_atto", 11),
        ("vgg11", 5.4),
    ],
)
def test_what_full_convolution_costs(name, times):
    images = torch.zeros(1, 3, 224, 224)
    original = timm.create_model(name)
    plain, full = analyze(original, images), analyze(convert(original, "full_zero", example_input=images), images)
    assert full.cost.flops / plain.cost.flops == pytest.approx(times, rel=0.03)
    assert full.cost.bytes > plain.cost.bytes


def test_costs_are_those_of_the_definition():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    conv, relu, pool, flat, linear = (layer.cost for layer in analyze(network, torch.zeros(2, 3, 10, 10)).layers)
    assert conv.flops == 2 * (2 * 8 * 8 * 8) * 27
    assert conv.bytes == 2 * 8 * 8 * 8 * 4
    assert relu.bytes == flat.bytes == 0
    assert pool.bytes == 2 * 8 * 4
    assert linear.flops == 2 * 2 * 8 * 5


def test_sub_pixel_offsets_are_reported():
    """ResNet-D averages 2x2 in its shortcut: a quarter of a cell apart, before the policy and after."""
    images = torch.zeros(1, 3, 64, 64)
    network = convert(timm.create_model("resnet18d"), "full_zero", example_input=images)
    assert network.conversion.counts["branches aligned"] == 8
    found = analyze(network, images)
    places = {layer.name: layer.grid[0] for layer in found.layers if layer.grid}
    apart = places["layer2.0.downsample.2"].offset - places["layer2.0.bn2"].offset
    assert apart == 2  # of the 8 pixels of a cell


@pytest.mark.parametrize(
    ("take", "begin"),
    [
        (lambda x: x.tensor_split(3, dim=3)[1], 6),
        (lambda x: torch.tensor_split(x, (5, 9), dim=3)[1], 5),
        (lambda x: x.split(split_size=[3, 13], dim=3)[1], 3),
        (lambda x: torch.split(x, split_size_or_sections=6, dim=3)[2], 12),
        (lambda x: x.chunk(3, dim=3)[1], 6),
        (lambda x: x.transpose(1, 3).hsplit((7,))[1].transpose(1, 3), 7),
    ],
)
def test_a_part_of_a_map_begins_where_torch_says(take, begin):
    class Part(nn.Module):
        def forward(self, images):
            return take(images)

    found = analyze(Part(), torch.zeros(1, 1, 16, 16)).last_map
    assert found.shape == tuple(take(torch.zeros(1, 1, 16, 16)).shape)
    assert found.grid[1].offset == begin
