"""What `convert` refuses or warns of, in one clear line."""

import pytest
import timm
import torch
from surgery.residual import resnet18
from torch import nn

from tinv import convert
from tinv.errors import TinvError
from tinv.graph.analysis import analyze
from tinv.nn import PaddedConv2d
from tinv.policies.cards import PADDINGS

POLICIES = [policy for policy in PADDINGS if policy != "keep"]
IMAGES = torch.zeros(1, 3, 64, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"padding": "ful_zero"}, "unknown padding 'ful_zero'; did you mean full_zero"),
        ({"subsampling": "blur9"}, "unknown subsampling 'blur9'; did you mean"),
        ({"pool": "ful"}, "unknown pool 'ful'; did you mean full"),
        ({"stem": "drop"}, "unknown stem 'drop'; choose from keep, convert"),
        ({"example_input": torch.zeros(3, 64, 64)}, r"layer conv1 \(Conv2d\) takes 4: \(N, C, \*spatial\)"),
        ({"example_input": (1, 3, 64, 64)}, "example_input must be a tensor of images"),
        ({"example_input": torch.zeros(1, 1, 64, 64)}, "layer conv1: takes 3 channels, its input has 1"),
    ],
)
def test_bad_arguments_are_one_clear_line(change, message):
    arguments = {"padding": "full_zero", "example_input": IMAGES, **change}
    with pytest.raises(TinvError, match=message) as error:
        convert(resnet18(), **arguments)
    assert "\n" not in str(error.value)


def test_the_least_size_for_valid_is_named_and_right():
    with pytest.raises(TinvError, match=r"layer layer3\.0\.conv2: .*the least input that works is (\d+)x") as error:
        convert(resnet18(), "valid", example_input=torch.zeros(1, 3, 128, 128))
    least = int(str(error.value).rpartition("x")[2])
    convert(resnet18(), "valid", example_input=torch.zeros(1, 3, least, least))(torch.randn(2, 3, least, least))
    with pytest.raises(TinvError):
        convert(resnet18(), "valid", example_input=torch.zeros(1, 3, least - 1, least - 1))


class Switch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x) if x.sum() > 0 else x


def test_what_cannot_be_converted_is_refused_by_name_and_left_as_it_was():
    network = nn.Sequential(nn.Conv2d(3, 3, 3), Switch())
    before = str(network)
    with pytest.raises(TinvError, match=r"layer 1 \(Switch\) cannot be traced"):
        convert(network, "full_zero", example_input=IMAGES)
    assert str(network) == before
    with pytest.raises(
        TinvError, match=r"a single layer \(Conv2d\), which has no name; put it into torch.nn.Sequential"
    ):
        convert(network[0], "full_zero", example_input=IMAGES)
    pooled = nn.Sequential(nn.Conv2d(3, 3, 3), nn.LPPool2d(2, 2))
    with pytest.raises(TinvError, match="layer 1: LPPool2d cannot take padding=full_zero"):
        convert(pooled, "full_zero", example_input=IMAGES)
    with pytest.raises(TinvError, match=r"wrapped in OptimizedModule; convert model\._orig_mod"):
        convert(torch.compile(resnet18(), backend="eager"), "valid", example_input=IMAGES)
    padded = nn.Sequential(PaddedConv2d(3, 4, 3))
    with pytest.raises(TinvError, match="holds tinv's own convolutions, whose padding is set when they are built"):
        convert(padded, "valid", example_input=IMAGES)


def test_a_policy_that_changes_nothing_warns():
    pointwise = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    with pytest.warns(UserWarning, match="padding=full_zero changed nothing in Sequential"):
        convert(pointwise, "full_zero", example_input=IMAGES)
    with pytest.warns(UserWarning, match="subsampling=blur3 changed nothing"):
        convert(pointwise, "keep", "blur3", example_input=IMAGES)


def test_methods_of_the_original_that_would_bypass_the_policy_are_gone():
    network = convert(timm.create_model("resnet18"), "full_zero", example_input=IMAGES)
    assert network.num_features == 512
    with pytest.raises(AttributeError, match="converted ResNet has no attribute 'forward_features'"):
        network.forward_features(IMAGES)


def test_a_layer_of_one_pixel_is_never_dilated():
    resized = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Upsample(size=(9, 9)), nn.Conv2d(4, 5, 1))
    network = convert(resized, "full_zero", "dilated", example_input=torch.zeros(1, 3, 12, 12))
    assert network.get_submodule("2").dilation == (1, 1)
    assert network(torch.randn(2, 3, 12, 12)).shape == (2, 5, 9, 9)


class Located(nn.Module):
    """A maximum pool that returns where its maxima lie, and patches by `Tensor.unfold`."""

    def __init__(self, patches: bool) -> None:
        super().__init__()
        self.conv, self.pool, self.patches = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.MaxPool2d(2, return_indices=True),
            patches,
        )

    def forward(self, x):
        x = self.conv(x)
        return x.unfold(2, 4, 4).mean((2, 3, 4)) if self.patches else self.pool(x)[0].mean((2, 3))


@pytest.mark.parametrize("policy", [("same_circular", "aps"), ("full_zero", "blur3"), ("full_background", "keep")])
def test_pools_that_say_where_their_maxima_lie_are_refused_by_name(policy):
    with pytest.raises(TinvError, match="layer pool: it returns where its maxima lie"):
        convert(Located(patches=False), *policy, example_input=IMAGES)
    with pytest.raises(TinvError, match="layer unfold: it takes patches of the map"):
        convert(Located(patches=True), *policy, example_input=IMAGES)


def test_patches_in_a_way_that_cannot_be_followed_are_never_called_exact():
    verdict = analyze(Located(patches=True), IMAGES).verdict
    assert {shifts.unit for shifts in verdict.circular + verdict.zero_canvas} == {None}
