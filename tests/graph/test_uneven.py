"""Uneven padding: which strided layers read one border alone, and the sizes at which none does."""

import json

import pytest
import torch
import torchvision
from torch import nn

import tinv
from tinv.cli.inspect import inspect
from tinv.graph.uneven import uneven_padding


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize(("size", "even"), [(224, 225), (225, 225), (226, 257)])
def test_resnets_are_even_at_225_and_257(name, size, even):
    network = torchvision.models.get_model(name, weights=None)
    found = uneven_padding(network, torch.zeros(1, 3, size, size))
    assert found.next_even == (even, even)
    names = {one.layer for one in found.layers}
    assert names == set() if size == even else "conv1" in names
    if size == 224:
        assert {
            "maxpool",
            "layer2.0.downsample.0",
            "layer4.0.conv2" if name == "resnet50" else "layer4.0.conv1",
        } < names
        assert len(names) == 8
    assert not uneven_padding(network, torch.zeros(1, 3, even, even)).layers


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"), [(3, 2, 1, 1), (7, 3, 2, 1), (3, 4, 0, 2), (2, 2, 0, 1)]
)
def test_a_window_is_even_where_its_gradient_reaches_both_borders(kernel, stride, padding, dilation):
    """Independent: zeros are padded by hand, and what the windows read of them is where the gradient is not zero."""
    conv = nn.Conv2d(1, 1, kernel, stride, padding, dilation)
    nn.init.ones_(conv.weight)
    for size in range(9, 22):
        padded = torch.zeros(1, 1, size + 2 * padding, size + 2 * padding, requires_grad=True)
        nn.functional.conv2d(padded, conv.weight, stride=stride, dilation=dilation).sum().backward()
        last = int(padded.grad[0, 0].any(0).nonzero().max())
        found = uneven_padding(nn.Sequential(conv), torch.zeros(1, 1, size, size))
        assert {one.left_out for one in found.layers} == ({size + 2 * padding - 1 - last} - {0})


def test_axes_are_told_apart_and_ones_that_wrap_around_have_no_border():
    conv = nn.Conv2d(3, 4, 3, 2, 1)
    found = uneven_padding(nn.Sequential(conv), torch.zeros(1, 3, 16, 17))
    assert [(one.layer, one.axis, one.size, one.stride, one.left_out) for one in found.layers] == [("0", 0, 16, 2, 1)]
    assert found.next_even == (17, 17)
    images = torch.zeros(1, 3, 16, 16)
    width = tinv.convert(nn.Sequential(conv, nn.Conv2d(4, 4, 1, 2)), "same_circular_width", example_input=images)
    assert {one.axis for one in uneven_padding(width, images).layers} == {0}
    ring = tinv.convert(nn.Sequential(conv, nn.Conv2d(4, 4, 1, 2)), "same_circular", example_input=images)
    assert not uneven_padding(ring, images).layers


def test_it_vanishes_where_a_policy_takes_the_strides_out():
    network, images = torchvision.models.resnet18(weights=None), torch.zeros(1, 3, 64, 64)
    for subsampling, count in (("dilated", 0), ("aps", 0), ("ideal", 0), ("keep", 8)):
        model = tinv.convert(network, "same_zero", subsampling, stem="convert", example_input=images)
        assert len({one.layer for one in uneven_padding(model, images).layers}) == count


def test_a_network_of_one_size_and_layers_that_never_agree_have_no_next_size():
    fixed = nn.Sequential(nn.Conv2d(3, 2, 3, 2, 1), nn.Flatten(), nn.Linear(2 * 64, 3))
    assert uneven_padding(fixed, torch.zeros(1, 3, 16, 16)).next_even == (None, None)

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.odd, self.even = nn.Conv2d(3, 2, 3, 2, 1), nn.Conv2d(3, 2, 2, 2)

        def forward(self, images):
            return self.odd(images).mean((2, 3)) + self.even(images).mean((2, 3))

    found = uneven_padding(Branches(), torch.zeros(1, 3, 16, 16))
    assert [one.layer for one in found.layers] == ["odd", "odd"]
    assert found.next_even == (None, None)
    assert "the next size that is even everywhere is ?x? (?: no size is)" in found.lines()[0]


def test_inspect_prints_it_and_json_holds_it(capsys):
    words = ["resnet18", "--source", "torchvision", "--input-size", "64x65"]
    assert inspect(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "uneven padding: 8 strided layers stop before the end of the padded map (conv1, maxpool, layer2.0.conv1" in said
    )
    assert "the next size that is even everywhere is 65x65" in said
    assert inspect([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["uneven"]
    assert found["next_even"] == [65, 65]
    assert found["layers"][0] == {"layer": "conv1", "axis": 0, "size": 64, "stride": 2, "left_out": 1}
