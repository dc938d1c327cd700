"""The networks of the location experiment, their border, and weights from a file."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from tinv.errors import TinvError, TinvWarning
from tinv.models import create_backbone
from tinv.models.backbones.resnet import resnet
from tinv.models.border import widen_border


def build(name: str, **kwargs) -> nn.Module:
    torch.manual_seed(0)
    return create_backbone(name, **{"num_classes": 2, "input_size": (120, 120), **kwargs}).eval()


def two_places(side: int = 56, canvas: int = 120) -> torch.Tensor:
    photograph = torch.rand(3, side, side)
    images = torch.zeros(2, 3, canvas, canvas)
    images[0, :, :side, :side] = photograph
    images[1, :, -side:, -side:] = photograph
    return images


def test_bagnet_has_the_published_parameters_and_receptive_field():
    network = build("bagnet33", num_classes=1000)
    # Brendel & Bethge (2019): 18.3 million parameters
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == 18.3
    for name in ("conv1.weight", "conv2.weight", "layer1.0.downsample.0.weight", "layer4.2.bn3.bias", "fc.weight"):
        assert name in network.state_dict()
    assert network.layer3[0].conv2.kernel_size == (3, 3)
    assert network.layer3[1].conv2.kernel_size == (1, 1)
    images = torch.randn(1, 3, 65, 65, requires_grad=True)
    maps = network.relu(network.bn1(network.conv2(network.conv1(images))))
    for stage in network._stages():
        maps = stage(maps)
    assert maps.shape[2:] == (5, 5)
    [seen] = torch.autograd.grad(maps[0, :, 2, 2].sum(), images)
    rows = seen.abs().sum((0, 1, 3)).nonzero()[:, 0]
    assert (int(rows.min()), int(rows.max())) == (16, 48)  # 33 pixels, 8 apart


@pytest.mark.parametrize("name", ["bagnet33", "resnet18_max"])
@pytest.mark.parametrize("padding", ["full_zero", "same_circular"])
def test_full_and_circular_networks_cannot_tell_the_places_apart(name, padding):
    images = two_places() if padding == "full_zero" else two_places(64, 128)
    pool = {"pool": "full"} if padding == "full_zero" and name != "bagnet33" else {}
    network = build(name, padding=padding, input_size=tuple(images.shape[2:]), **pool)
    with torch.no_grad():
        plain, logits = build(name)(images), network(images)
    assert (logits[0] - logits[1]).abs().max() < 1e-5 * logits.abs().max()
    assert (plain[0] - plain[1]).abs().max() > 1e-3 * plain.abs().max()


@pytest.mark.parametrize("name", ["densenet121", "resnet18_max"])
def test_the_border_is_the_padding_of_the_first_convolution(name):
    network, images = build(name), two_places()
    widen_border(network, 40)
    padded = build(name)
    first = next(layer for layer in padded.modules() if isinstance(layer, nn.Conv2d))
    first.padding = (40, 40)
    with torch.no_grad():
        torch.testing.assert_close(network(images), padded(images))
    assert network.state_dict().keys() == padded.state_dict().keys()
    with pytest.raises(TinvError, match="border=2: the first convolution adds 3 zeros by itself"):
        widen_border(build(name), 2)


@pytest.mark.parametrize(
    ("policy", "more"), [({}, 20), ({"padding": "same_circular"}, 20), ({"padding": "full_zero"}, 14)]
)
def test_only_zeros_count_as_border(policy, more):
    images = two_places()
    name = "bagnet33" if not policy else "resnet18_max"
    with torch.no_grad():
        wide = build(name, border=20, **policy)(images)
        torch.testing.assert_close(wide, build(name, **policy)(F.pad(images, [more] * 4)))


def test_the_max_pool_is_that_of_each_method():
    for options, side in (({}, 3), ({"padding": "full_zero"}, 2), ({"subsampling": "blur3"}, 2), ({"max_pool": 3}, 3)):
        network = create_backbone("resnet", num_classes=2, input_size=(64, 64), **options)
        pools = [m for m in network.modules() if type(m).__name__ in ("MaxPool2d", "Pool")]
        size = pools[0].kernel_size
        assert (size if isinstance(size, int) else size[0]) == side, options


def test_resnets_are_torchvisions():
    for depth in (18, 50):
        ours, theirs = resnet(depth=depth).eval(), torchvision.models.get_model(f"resnet{depth}").eval()
        ours.load_state_dict(theirs.state_dict())
        images = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(ours(images), theirs(images))
    # no layer of a random network is switched off
    assert all(m.weight.min() == 1 for m in resnet().modules() if isinstance(m, nn.BatchNorm2d))
    for options, message in (({"depth": 20}, "depth"), ({"max_pool": 4}, "max_pool"), ({"head": "flatten"}, "head")):
        with pytest.raises(TinvError, match=message):
            resnet(**options)


def test_weights_come_from_a_file_without_a_head_for_other_classes():
    many = build("bagnet33", num_classes=7)
    torch.save({"state_dict": {f"module.{k}": v for k, v in many.state_dict().items()}}, "weights.pth")
    with pytest.warns(TinvWarning, match=r"weights\.pth is for 7 classes, here are 2: its last layer, fc, is replaced"):
        few = build("bagnet33", num_classes=2, pretrained=True, weights=Path("weights.pth"))
    assert torch.equal(few.conv2.weight, many.conv2.weight)
    assert few.fc.weight.shape == (2, 2048)
    same = build("bagnet33", num_classes=7, pretrained=True, weights="weights.pth")
    assert torch.equal(same.fc.weight, many.fc.weight)
    with pytest.raises(TinvError, match=r"weights\.pth holds the weights of another network: .*and \d+ more"):
        build("resnet18_max", pretrained=True, weights="weights.pth")
    with pytest.raises(TinvError, match="set pretrained: true with it"):
        build("bagnet33", weights="weights.pth")
    with pytest.raises(TinvError, match="no pretrained weights of bagnet33 to fetch"):
        build("bagnet33", pretrained=True)
    with pytest.raises(TinvError, match="border must be 0 pixels or more"):
        build("bagnet33", border=-1)
