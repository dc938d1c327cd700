"""The Lie derivative layer by layer: it adds up to the whole, and equals a reference that moves each map by itself."""

import pytest
import torch
from torch import nn
from torch.func import jvp

import tinv
from tinv.errors import TinvError
from tinv.metrics import LayerLieDerivative, LieDerivative
from tinv.translation import velocity


def stages() -> list[nn.Module]:
    torch.manual_seed(0)
    return [
        nn.Conv2d(2, 5, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(5, 4, 3, stride=2, padding=1),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    ]


def measured(network: nn.Module, images: torch.Tensor, parts: int = 1) -> LayerLieDerivative:
    metric, index = LayerLieDerivative(), torch.arange(len(images))
    with torch.no_grad():
        for part in index.split(-(-len(images) // parts)):
            metric.update(network, images[part], network(images[part]), part, part)
    return metric


@pytest.mark.parametrize("shape", [(9, 11), (8, 12)])
def test_shares_equal_a_reference_that_moves_each_map(shape):
    layers = [layer.double().eval() for layer in stages()]
    network, images = nn.Sequential(*layers), torch.randn(4, 2, *shape, dtype=torch.float64)
    strides, shares = [1, 1, 1, 2, 2], torch.zeros(4, 5, dtype=torch.float64)
    for axis in (2, 3):
        rates, value = [], images
        for number, stride in enumerate(strides):
            rest = nn.Sequential(*layers[number:])
            rates.append(jvp(rest, (value,), (velocity(value, axis) / stride,))[1].detach())
            value = layers[number](value).detach()
        steps = [a - b for a, b in zip(rates, [*rates[1:], torch.zeros_like(rates[0])], strict=True)]
        shares += torch.stack([(step * rates[0]).sum(dim=1) for step in steps], dim=1) / 2
    found = measured(network, images, parts=2)
    assert found.fields == ("0", "1", "2", "3", "head")
    assert torch.allclose(torch.from_numpy(found.per_image()), shares, atol=1e-12)


def test_the_parts_add_up_to_the_whole_of_a_residual_network():
    network = tinv.create_backbone("resnet_cifar", depth=20, num_classes=10).eval()
    images, index = torch.randn(3, 3, 32, 32), torch.arange(3)
    found, whole = measured(network, images), LieDerivative()
    with torch.no_grad():
        whole.update(network, images, network(images), index, index)
    assert float(found.compute()["lie_layers"]) == pytest.approx(float(whole.compute()["lie_logits"]), rel=1e-5)
    arrays = found.arrays()
    shares = dict(zip(arrays["part"].tolist(), arrays["share"].tolist(), strict=True))
    assert sum(shares.values()) == pytest.approx(float(whole.compute()["lie_logits"]), rel=1e-5)
    # what acts on each position alone, linearly, and what has no positions adds nothing
    assert abs(shares["bn1"]) + abs(shares["head"]) < 1e-3 * max(shares.values())
    assert max(shares.values()) > 0


def test_circular_convolutions_without_strides_add_nothing():
    network = nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), nn.Conv2d(4, 4, 3, padding=1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
    ).eval()
    images = torch.randn(4, 2, 9, 9)
    found = measured(tinv.convert(network, "same_circular", example_input=images), images)
    assert float(found.compute()["lie_layers"]) < 1e-9
    first, second, *_ = measured(network, images).arrays()["share"]
    assert abs(first) < 1e-6 < second  # the second one pads with zeros


def test_a_network_that_cannot_be_traced_is_named():
    class Switch(nn.Conv2d):
        def forward(self, images):
            return super().forward(images if images.sum() > 0 else -images).amax((2, 3))

    with pytest.raises(TinvError, match=r"lie_layers: .*; leave this metric out"):
        LayerLieDerivative().check(nn.Sequential(Switch(3, 2, 3)), (3, 8, 8))
