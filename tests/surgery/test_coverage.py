"""Thirty-five networks of torchvision and timm: each takes every policy, trains a step and evaluates."""

import warnings

import pytest
import timm
import torch
import torchvision
from covered_networks import REFUSED, TIMM, TORCHVISION
from torch import nn

from tinv import convert
from tinv.errors import TinvError

LARGE = """
torchvision/wide_resnet50_2 torchvision/convnext_tiny timm/resnet50 timm/resnext50_32x4d timm/densenet121
timm/res2net50_14w_8s
"""
"""Those whose like is among the others: they take a third of the time, and run with -m exhaustive."""

ALL = [
    pytest.param(source, name, marks=[pytest.mark.exhaustive] if f"{source}/{name}" in LARGE.split() else [])
    for source, names in (("torchvision", TORCHVISION), ("timm", TIMM))
    for name in names.split()
]


def build(source: str, name: str) -> nn.Module:
    torch.manual_seed(0)
    if source == "timm":
        return timm.create_model(name, num_classes=5)
    options = {"init_weights": False} if name == "googlenet" else {}
    return torchvision.models.get_model(name, weights=None, num_classes=5, **options)


def images(name: str, size: int) -> torch.Tensor:
    return torch.randn(2, 3, *([4] if name in ("r3d_18", "r2plus1d_18") else []), size, size)


@pytest.mark.slow
@pytest.mark.parametrize(("source", "name"), ALL)
def test_every_network_takes_every_policy(source, name):
    original, batch = build(source, name), images(name, 32)
    for padding, subsampling in (("full_zero", "keep"), ("same_circular", "aps")):
        network = convert(original, padding, subsampling, example_input=batch)
        output = network.train()(batch)
        loss = (output[0] if isinstance(output, tuple) else output).square().mean()
        loss.backward()
        assert loss.isfinite()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
        with torch.no_grad():
            # another size
            assert network.eval()(images(name, 45)).shape == (2, 5)
    convert(original, "full_zero", "blur3", example_input=batch)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("source", "name"), ALL)
@pytest.mark.parametrize("padding", ["keep", "same_circular", "full_zero"])
@pytest.mark.parametrize("subsampling", ["keep", "blur3", "aps"])
def test_every_network_takes_every_pair_of_policies(source, name, padding, subsampling):
    network, batch = build(source, name), images(name, 32)
    with torch.no_grad():
        assert convert(network, padding, subsampling, example_input=batch).eval()(batch).shape == (2, 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "name"), [("torchvision", "resnet50"), ("timm", "efficientnet_b0"), ("timm", "vgg11")]
)
@pytest.mark.parametrize("subsampling", ["keep", "blur3", "aps"])
def test_valid_takes_images_that_are_large_enough(source, name, subsampling):
    original = build(source, name)
    with pytest.raises(TinvError, match="under padding=valid the least input that works is") as error:
        convert(original, "valid", subsampling, example_input=images(name, 32))
    least = int(str(error.value).rpartition("x")[2])
    network = convert(original, "valid", subsampling, example_input=images(name, least))
    with torch.no_grad():
        assert network.eval()(images(name, least)[:1]).shape == (1, 5)


@pytest.mark.parametrize(("name", "message"), REFUSED.items())
def test_what_is_refused_is_refused_by_name(name, message):
    """The list in the README: networks that resize maps, attend or unfold."""
    original = timm.create_model(name, num_classes=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(TinvError, match=message):
            convert(original, "full_zero", example_input=torch.zeros(1, 3, 224, 224))
