import pytest
import torch

from tinv import create_backbone, summary
from tinv.errors import TinvError


def build(**options) -> torch.nn.Module:
    torch.manual_seed(0)
    return create_backbone("resnet_cifar", num_classes=10, **options).eval().double()


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_it_has_the_layers_and_parameters_of_the_paper(depth, millions):
    network = build(depth=depth)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    assert sum(isinstance(m, torch.nn.Conv2d | torch.nn.Linear) for m in network.modules()) == depth


def test_weights_have_the_names_of_published_files():
    names = list(build().state_dict())
    assert names[0] == "conv1.weight"
    assert "layer2.0.bn1.running_mean" in names
    assert names[-2:] == ["linear.weight", "linear.bias"]


def test_a_shortcut_takes_every_other_position_and_pads_channels():
    shortcut = build().layer2[0].shortcut
    images = torch.randn(2, 16, 6, 6, dtype=torch.float64)
    found = shortcut(images)
    assert found.shape == (2, 32, 3, 3)
    assert torch.equal(found[:, 8:24], images[:, :, ::2, ::2])
    assert not found[:, :8].any()
    assert not found[:, 24:].any()


@pytest.mark.parametrize(("subsampling", "unit"), [("keep", 4), ("blur3", 4), ("aps", 1), ("ideal", 4), ("dilated", 1)])
def test_its_shortcuts_take_every_policy(subsampling, unit):
    network = build(padding="same_circular", subsampling=subsampling)
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    verdict = summary(network, images).verdict.circular
    assert [shifts.unit for shifts in verdict] == [unit, unit]
    with torch.no_grad():
        moved, far = (network(images.roll((pixels, pixels), (2, 3))) for pixels in (unit, 1))
        assert torch.allclose(moved, network(images), rtol=1e-10, atol=1e-12)
        assert torch.allclose(far, network(images), rtol=1e-10, atol=1e-12) == (unit == 1)


def test_a_depth_that_no_such_network_has_is_refused():
    with pytest.raises(TinvError, match="6 n"):
        build(depth=18)
