import itertools
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn

from tinv.errors import TinvError
from tinv.models import create_backbone, own_backbones
from tinv.models.features import logits_and_features
from tinv.policies.cards import PADDINGS, SUBSAMPLINGS

OWN = {"rook_net": 1, "red_green_net": 3, "pooling_cnn": 3}
LARGE = [
    *("bagnet33", "densenet121", "hardnet", "moving_shapes_net"),
    *("resnet", "resnet3d", "resnet18_max", "resnet_cifar"),
]


def build(name: str, **kwargs) -> nn.Module:
    torch.manual_seed(0)
    kwargs.setdefault("num_classes", 2)
    kwargs.setdefault("in_channels", OWN[name])
    return create_backbone(name, **kwargs)


def test_own_backbones_are_the_files_of_the_folder():
    assert own_backbones() == sorted([*OWN, *LARGE])


@pytest.mark.parametrize(("name", "padding", "subsampling"), list(itertools.product(OWN, PADDINGS, SUBSAMPLINGS)))
def test_every_own_network_takes_every_policy(name, padding, subsampling):
    network = build(name, padding=padding, subsampling=subsampling)
    x = torch.randn(2, OWN[name], 32, 32)
    assert network(x).shape == (2, 2)
    network(x).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("name", OWN)
def test_policies_change_no_parameter(name):
    state = build(name).state_dict()
    for padding, subsampling in itertools.product(["valid", "full_zero", "same_background"], ["keep", "blur3"]):
        other = build(name, padding=padding, subsampling=subsampling)
        if not (name == "pooling_cnn" and padding != "same_background"):  # the flattened map has another size there
            assert {k: v.shape for k, v in other.state_dict().items()} == {k: v.shape for k, v in state.items()}


@pytest.mark.parametrize("padding", ["same_circular", "full_zero"])
def test_rook_net_cannot_tell_the_corners_apart(padding):
    patch = torch.rand(16, 13)
    x = torch.zeros(2, 1, 32, 32)
    x[0, 0, :16, :13] = patch
    x[1, 0, 16:, 19:] = patch
    logits = build("rook_net", padding=padding)(x)
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("padding", ["valid", "same_zero", "same_reflect", "same_replicate"])
def test_rook_net_can_tell_the_corners_apart_where_the_border_shows(padding):
    patch = torch.rand(16, 13)
    x = torch.zeros(2, 1, 32, 32)
    x[0, 0, :16, :13] = patch
    x[1, 0, 16:, 19:] = patch
    differ = 0
    for seed in range(5):
        torch.manual_seed(seed)
        network = create_backbone("rook_net", num_classes=2, in_channels=1, padding=padding)
        logits = network(x)
        differ += bool((logits[0] - logits[1]).abs().max() > 1e-4)
    assert differ >= 1


@pytest.mark.parametrize("shift", [8, 16, 24])
def test_red_green_net_is_exactly_invariant_to_circular_shifts_by_its_stride(shift):
    network = build("red_green_net", padding="same_circular").double()
    x = torch.randn(2, 3, 32, 32, dtype=torch.double)
    torch.testing.assert_close(network(x), network(x.roll((shift, 8), (2, 3))), rtol=0, atol=1e-12)
    moved = network(x.roll((shift + 3, 0), (2, 3)))
    assert (network(x) - moved).abs().max() > 1e-4


def test_dense_circular_networks_are_exactly_invariant_to_every_circular_shift():
    network = build("red_green_net", padding="same_circular", subsampling="dilated").double()
    x = torch.randn(2, 3, 32, 32, dtype=torch.double)
    for shift in ((1, 0), (3, 5), (17, 31)):
        torch.testing.assert_close(network(x), network(x.roll(shift, (2, 3))), rtol=0, atol=1e-12)


@pytest.mark.parametrize("subsampling", ["aps", "aps_blur3", "aps_blur5"])
@pytest.mark.parametrize("name", ["red_green_net", "pooling_cnn"])
def test_adaptive_circular_networks_are_exactly_invariant_to_every_circular_shift(name, subsampling):
    own = {"head": "gap", "pool_padding": "same_circular", "kernel_size": 3} if name == "pooling_cnn" else {}
    network = build(name, padding="same_circular", subsampling=subsampling, **own).double()
    x = torch.randn(3, 3, 32, 32, dtype=torch.double)
    for shift in ((1, 0), (3, 5), (17, 31)):
        torch.testing.assert_close(network(x), network(x.roll(shift, (2, 3))), rtol=0, atol=1e-12)
    strided = build(name, padding="same_circular", **own).double()
    assert (strided(x) - strided(x.roll((3, 5), (2, 3)))).abs().max() > 1e-5


def test_dense_sees_what_the_strided_network_sees():
    strided = build("red_green_net", padding="valid").double()
    dense = build("red_green_net", padding="valid", subsampling="dilated").double()
    x = torch.randn(1, 3, 32, 32, dtype=torch.double)
    coarse, fine = strided.features(x), dense.features(x)
    assert fine.shape[2:] == (16, 16)
    torch.testing.assert_close(fine[:, :, ::8, ::8], coarse, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("order", "expected"), [("first", [2, 2, 1]), ("last", [1, 2, 2])])
def test_pooling_cnn_places_its_strides(order, expected):
    network = build("pooling_cnn", subsampling_factor=4, stride_order=order)
    assert [network.features.get_submodule(f"pool{n}").stride for n in (1, 2, 3)] == expected


@pytest.mark.parametrize("kernel_size", [2, 3, 4, 5])
@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_pooling_cnn_has_the_size_of_map_its_factor_says(kernel_size, factor):
    network = build("pooling_cnn", kernel_size=kernel_size, subsampling_factor=factor, input_size=(50, 50))
    assert network.features(torch.zeros(1, 3, 50, 50)).shape[2:] == (-(-50 // factor),) * 2
    assert network.classifier.in_features == 64 * (-(-50 // factor)) ** 2


def test_antialias_blurs_every_pool_also_those_without_stride():
    network = build("pooling_cnn", subsampling_factor=2, antialias=3)
    kinds = [name for name, _ in network.features.named_children()]
    assert [name for name in kinds if "blur" in name] == ["pool1_blur", "pool2_blur", "pool3_blur"]
    assert [network.features.get_submodule(f"pool{n}").stride for n in (1, 2, 3)] == [1, 1, 1]
    assert [network.features.get_submodule(f"pool{n}_blur").stride for n in (1, 2, 3)] == [2, 1, 1]


def test_blur_policy_blurs_only_where_there_is_a_stride():
    network = build("pooling_cnn", subsampling_factor=2, subsampling="blur3")
    assert list(network.features.policy_layers) == ["pool1_subsample"]


def test_global_average_pooling_makes_the_size_of_the_image_free():
    network = build("pooling_cnn", head="gap", input_size=(50, 50))
    assert network(torch.randn(1, 3, 40, 44)).shape == (1, 2)


def test_features_are_the_input_of_the_last_layer():
    network = build("pooling_cnn", head="gap")
    x = torch.randn(4, 3, 32, 32)
    logits, features = logits_and_features(network, x)
    assert features.shape == (4, 64)
    torch.testing.assert_close(network.classifier(features), logits)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"subsampling_factor": 3}, "subsampling_factor must be 1, 2, 4 or 8, not 3"),
        ({"kernel_sise": 3}, "unknown key backbone_args.kernel_sise of pooling_cnn.*did you mean kernel_size"),
        ({"kernel_size": 40, "pool_padding": "valid"}, "pooling_cnn on 32x32 images: layer pool1.*40x40"),
        ({"head": "gapp"}, "did you mean gap"),
        ({"channels": [16, 32]}, "channels must be three numbers"),
        ({"antialias": 3, "subsampling": "blur3"}, "leave subsampling at keep"),
        ({"antialias": 9}, "1 to 7, not 9"),
        ({"padding": "full"}, "unknown padding 'full'"),
        ({"pool_padding": "same"}, "unknown pool_padding 'same'"),
        ({"pretrained": True}, "no pretrained weights"),
        ({"source": "tim"}, "did you mean timm"),
    ],
)
def test_bad_options_are_named(kwargs, message):
    with pytest.raises(TinvError, match=message):
        build("pooling_cnn", **kwargs)


def test_unknown_backbones_get_the_nearest_names():
    with pytest.raises(TinvError, match="did you mean red_green_net"):
        create_backbone("red_green", num_classes=2)
    with pytest.raises(TinvError, match=r"did you mean .*resnet18"):
        create_backbone("resnet-18", "timm", num_classes=2)
    with pytest.raises(TinvError, match=r"did you mean .*resnet18"):
        create_backbone("resnet_18", "torchvision", num_classes=2)


@pytest.mark.parametrize(("source", "channels"), [("timm", 1), ("torchvision", 3)])
def test_the_same_door_leads_to_timm_and_torchvision(source, channels):
    network = create_backbone("resnet18", source, num_classes=7, in_channels=channels).eval()
    logits, features = logits_and_features(network, torch.randn(2, channels, 32, 32))
    assert logits.shape == (2, 7)
    assert features.shape == (2, 512)


def test_torchvision_refuses_other_than_three_channels():
    with pytest.raises(TinvError, match="takes 3 channels, the images have 1; use source timm"):
        create_backbone("resnet18", "torchvision", num_classes=7, in_channels=1)


@pytest.mark.parametrize("source", ["timm", "torchvision"])
def test_options_that_a_source_does_not_take_are_named(source):
    with pytest.raises(TinvError, match=f"{source}'s resnet18 cannot be built with .*'depht': 3.*unexpected keyword"):
        create_backbone("resnet18", source, num_classes=2, depht=3)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """torch.hub's folder of downloads, and nothing to download from."""

    def out_of_reach(*args, **kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", out_of_reach)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", out_of_reach)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("source", "name"), [("timm", "resnet18"), ("torchvision", "resnet18"), ("tinv", "resnet"), ("tinv", "densenet121")]
)
def test_weights_out_of_reach_are_one_line(hub, source, name):
    message = (
        rf"the pretrained weights of .*{name} cannot be fetched \(.*Name or service not known.*in a file \(weights\)"
    )
    with pytest.raises(TinvError, match=message):
        create_backbone(name, source, num_classes=2, pretrained=True, input_size=(64, 64))


def test_torchvision_weights_at_hand_are_loaded(hub):
    other = create_backbone("squeezenet1_0", "torchvision", num_classes=1000)
    torch.save(other.state_dict(), hub / "squeezenet1_0-b66bff10.pth")
    network = create_backbone("squeezenet1_0", "torchvision", num_classes=1000, pretrained=True)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[key], rtol=0, atol=0)


def test_no_code_in_downloaded_weights_is_run(hub, tmp_path):
    class Code:
        def __reduce__(self):
            return Path.touch, (tmp_path / "was run",)

    torch.save({"features.0.weight": Code()}, hub / "squeezenet1_0-b66bff10.pth")
    with pytest.raises(TinvError, match="torchvision's squeezenet1_0 cannot be fetched"):
        create_backbone("squeezenet1_0", "torchvision", num_classes=1000, pretrained=True)
    assert not (tmp_path / "was run").exists()
