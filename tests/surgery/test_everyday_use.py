"""What is done to a converted network, and to one before it is converted: kept, or refused in a sentence."""

import copy
import pickle

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from tinv import convert
from tinv.errors import TinvError

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class Frozen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, pixel_values):
        with torch.no_grad():
            features = self.trunk(pixel_values)
        return self.head(features).mean((2, 3))


class Normalized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("scale", torch.ones(3, 1, 1))

    def forward(self, images):
        return self.conv((images - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / self.scale)


@pytest.fixture(scope="module", params=[("full_background", "aps"), ("full_zero", "blur3")])
def network(request):
    torch.manual_seed(0)
    return convert(torchvision.models.resnet18(num_classes=5), *request.param, example_input=IMAGES).eval()


@torch.no_grad()
def test_symbolic_trace_and_feature_extraction_see_the_layers(network):
    traced = torch.fx.symbolic_trace(network)
    torch.testing.assert_close(traced(IMAGES), network(IMAGES))
    features = create_feature_extractor(network, ["layer2", "fc"])(IMAGES)
    torch.testing.assert_close(features["fc"], network(IMAGES))
    assert features["layer2"].shape[1] == 128


@pytest.mark.slow
def test_export_with_a_dynamic_batch(network):
    batch = torch.export.Dim("batch", min=2, max=64)
    exported = torch.export.export(network, (IMAGES,), dynamic_shapes={"images": {0: batch}}, strict=False).module()
    images = torch.randn(5, 3, 64, 64)
    torch.testing.assert_close(exported(images), network(images), rtol=1e-4, atol=1e-5)


def test_a_layer_may_be_replaced_by_a_wrapper_after_the_conversion(network):
    class Wrapper(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, images):
            return self.layer(images)

    changed = copy.deepcopy(network)
    changed.layer1[0].conv1 = Wrapper(changed.layer1[0].conv1)
    with torch.no_grad():
        torch.testing.assert_close(changed(IMAGES), network(IMAGES))


def test_hooks_fire_on_layers_and_a_warning_tells_of_those_that_do_not(network):
    hooked, fired = copy.deepcopy(network), []
    hooked.layer4[1].conv2.register_forward_hook(lambda *_: fired.append("layer"))
    hooked.register_forward_hook(lambda *_: fired.append("network"))
    hooked(IMAGES)
    assert fired == ["layer", "network"]
    hooked.layer4.register_forward_hook(lambda *_: fired.append("never"))
    with pytest.warns(UserWarning, match="hooks of layer4 do not fire"):
        hooked(IMAGES)
    original = torchvision.models.resnet18()
    original.layer4.register_forward_hook(lambda *_: None)
    with pytest.raises(TinvError, match="layer4 holds hooks"):
        convert(original, "full_zero", example_input=IMAGES)


def test_a_converted_network_can_be_pickled(network):
    with torch.no_grad():
        torch.testing.assert_close(pickle.loads(pickle.dumps(network))(IMAGES), network(IMAGES))


@pytest.mark.parametrize("padding", ["full_zero", "full_background"])
def test_what_runs_without_gradients_stays_so(padding):
    converted = convert(Frozen(), padding, example_input=IMAGES)
    converted(IMAGES).sum().backward()
    assert converted.trunk.weight.grad is None
    assert converted.head.weight.grad is not None
    with torch.no_grad():
        assert not converted(IMAGES).requires_grad
    assert torch.is_grad_enabled()


def test_the_batch_may_be_given_by_its_name_in_the_original():
    converted = convert(Frozen(), "full_zero", example_input=IMAGES)
    torch.testing.assert_close(converted(pixel_values=IMAGES), converted(IMAGES))
    with pytest.raises(TinvError, match="takes one batch of images and nothing else"):
        converted(IMAGES, IMAGES)


def test_tensors_made_in_the_forward_pass_and_buffers_are_kept():
    original = Normalized()
    converted = convert(original, "same_zero", example_input=IMAGES)
    same = nn.Conv2d(3, 4, 3, padding=1)
    same.load_state_dict(original.conv.state_dict())
    normalized = IMAGES - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)
    torch.testing.assert_close(converted(IMAGES), same(normalized))
    assert set(converted.state_dict()) == set(original.state_dict())
    # a buffer is read when the network runs
    converted.scale.fill_(2)
    torch.testing.assert_close(converted(IMAGES), same(normalized / 2))


def test_a_graph_module_can_be_converted():
    extractor = create_feature_extractor(torchvision.models.resnet18(), ["layer2"])
    assert convert(extractor, "full_zero", example_input=IMAGES)(IMAGES)["layer2"].shape[1] == 128


def test_gradient_checkpointing_that_is_not_kept_is_said():
    original = timm.create_model("resnet18", num_classes=5)
    original.set_grad_checkpointing(True)
    with pytest.warns(UserWarning, match="gradient checkpointing"):
        converted = convert(original.train(), "full_zero", example_input=IMAGES)
    converted(IMAGES).sum().backward()
    assert converted.layer1[0].conv1.weight.grad is not None


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_a_hook_computes_are_refused():
    with pytest.raises(TinvError, match="layer 0: its weight is computed by a hook"):
        convert(nn.Sequential(torch.nn.utils.weight_norm(nn.Conv2d(3, 4, 3))), "full_zero", example_input=IMAGES)
    modern = nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)))
    assert convert(modern, "full_zero", example_input=IMAGES)(IMAGES).shape == (2, 4, 66, 66)


def test_lazy_layers_and_networks_of_two_inputs_are_refused_in_a_sentence():
    with pytest.raises(TinvError, match="layer 0 is lazy and has no weights yet"):
        convert(nn.Sequential(nn.LazyConv2d(8, 3)), "full_zero", example_input=IMAGES)

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3)

        def forward(self, first, second):
            return self.conv(first) + second

    with pytest.raises(TinvError, match="takes more than one argument"):
        convert(Two(), "full_zero", example_input=IMAGES)
