"""Policies with weights of their own: where the weights are, how they begin, and what is refused."""

import copy
import json
import pickle
import warnings

import pytest
import torch
from surgery.residual import Residual, narrow_resnet18
from torch import nn
from torch.nn import functional as F

from tinv import convert
from tinv.cli import main
from tinv.errors import LayerError
from tinv.policies import PaddingPolicy, SubsamplingPolicy
from tinv.policies.subsampling import APS, LPS, TIPS

LEARNED = ("lps", "tips", "adaptive_blur")
IMAGES = torch.zeros(1, 3, 32, 32)


def made(subsampling, padding="same_circular", model=None, images=IMAGES, seed: int = 3, **options) -> nn.Module:
    model = narrow_resnet18() if model is None else model
    torch.manual_seed(seed)
    return convert(model, padding, subsampling, stem="convert", example_input=images, **options)


@pytest.mark.parametrize("subsampling", LEARNED)
def test_names_of_the_network_stay_and_those_of_the_policy_come_behind_them(subsampling):
    original = narrow_resnet18()
    network = made(subsampling, model=original)
    old, new = list(original.state_dict()), list(network.state_dict())
    assert new[: len(old)] == old
    added = new[len(old) :]
    assert added
    assert all(key.startswith("policy_layers.") for key in added)
    missing = network.load_state_dict(original.state_dict(), strict=False)
    assert (missing.missing_keys, missing.unexpected_keys) == (added, [])
    parameters = dict(network.named_parameters(remove_duplicate=False))
    assert list(parameters) == list(dict(network.named_parameters()))
    assert network.conversion.fresh == {key: parameters[key].numel() for key in added}
    total = sum(network.conversion.fresh.values())
    assert f"{total:,} new parameters in {len(added)} tensors under policy_layers" in str(network.conversion)


def test_only_the_branch_that_chooses_has_weights():
    network = made("lps")
    strided = {key.split(".")[1] for key in network.conversion.fresh}
    # the stem, the pool, and the first convolution of three stages; not their shortcuts
    assert len(strided) == 5
    assert not any("downsample" in name for name in strided)


@pytest.mark.parametrize("subsampling", LEARNED)
def test_weights_begin_with_torchs_seed_and_are_those_of_the_network_in_kind(subsampling):
    model, images = Residual(), torch.zeros(1, 4, 16, 16)
    one, two, other = (made(subsampling, model=model, images=images, seed=seed).state_dict() for seed in (3, 3, 4))
    added = [key for key in one if key.startswith("policy_layers.")]
    assert all(torch.equal(one[key], two[key]) for key in added)
    assert not any(torch.equal(one[key], other[key]) for key in added)
    double = made(subsampling, model=model.double(), images=images.double())
    assert {p.dtype for p in double.parameters()} == {torch.double}
    assert all(p.requires_grad and p.device.type == "cpu" for p in double.parameters())


@pytest.mark.parametrize("subsampling", ["aps", "blur3", "ideal"])
def test_policies_without_weights_draw_no_random_numbers(subsampling):
    model = narrow_resnet18()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    network = convert(model, "same_circular", subsampling, example_input=IMAGES)
    assert torch.equal(torch.get_rng_state(), before)
    assert network.conversion.fresh == {}
    assert "policy_layers" not in str(network.conversion)


@pytest.mark.parametrize("subsampling", LEARNED)
def test_copies_pickles_compilers_and_half_precision_take_them(subsampling):
    images = torch.randn(2, 4, 16, 16)
    network = made(subsampling, model=Residual(), images=images).eval()
    expected = network(images)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other(images), expected)
    torch.testing.assert_close(torch.compile(network, backend="eager", fullgraph=True)(images), expected)
    torch._dynamo.reset()
    last = images.contiguous(memory_format=torch.channels_last)
    moved = copy.deepcopy(network).to(memory_format=torch.channels_last)(last)
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(images).dtype == torch.bfloat16
    torch.testing.assert_close(torch.export.export(network, (images,)).module()(images), expected)


@pytest.mark.parametrize("subsampling", LEARNED)
def test_they_train_under_ddp_and_their_branches_count_once(subsampling, tmp_path):
    network = made(subsampling)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(network)
        before = {name: p.detach().clone() for name, p in network.named_parameters()}
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        for _ in range(2):
            optimizer.zero_grad()
            wrapped(torch.randn(2, 3, 32, 32)).square().sum().backward()
            optimizer.step()
        same = [name for name, p in network.named_parameters() if torch.equal(before[name], p)]
        assert all(name.endswith("logit_conv.bias") for name in same)
    finally:
        torch.distributed.destroy_process_group()


class Dropping(nn.Module):
    """Its graph in training differs from that in evaluation; two branches meet behind a stride."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Residual()
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)

    def forward(self, x):
        return self.block(F.dropout(self.first(x).relu(), 0.1, self.training))


@pytest.mark.parametrize("subsampling", LEARNED)
def test_training_and_evaluation_share_the_weights(subsampling):
    network = made(subsampling, model=Dropping())
    assert str(network.graphs[True]) != str(network.graphs[False])
    assert len(network.conversion.fresh) == len(made(subsampling, model=nn.Sequential(Dropping().first, Residual()))
        .conversion.fresh)  # fmt: skip
    network.train()(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("subsampling", LEARNED)
@pytest.mark.parametrize("padding", ["keep", "full_background", "same_background", "same_reflect", "valid"])
def test_every_padding_goes_with_them(subsampling, padding):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = made(subsampling, padding, Residual(), torch.zeros(1, 4, 32, 32))
        clips = made(subsampling, padding, Residual(3), torch.zeros(1, 4, 5, 16, 16))
    assert network(torch.randn(2, 4, 33, 29)).shape == (2, 5)
    assert clips(torch.randn(2, 4, 5, 16, 16)).shape == (2, 5)
    kernels = {tuple(m.kernel_size) for m in clips.policy_layers.modules() if isinstance(m, nn.Conv3d)}
    assert all(kernel[0] == 1 for kernel in kernels)


@pytest.mark.parametrize("subsampling", ["tips", "adaptive_blur"])
def test_a_blank_canvas_stays_blank_to_its_edge(subsampling):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1)).double()
    network = made(subsampling, "same_background", layers, IMAGES.double())
    with torch.no_grad():
        answer = network(IMAGES.double())
    assert answer.abs().min() > 1e-4
    assert (answer - answer[..., :1, :1]).abs().max() < 1e-12


def test_costs_count_the_layers_of_a_policy():
    aps, lps = (made(name).conversion.after.flops for name in ("aps", "lps"))
    # at the stem alone: four components of 16x16, a 3x3 convolution of 64 channels
    assert lps - aps > 2 * 4 * 16 * 16 * 9 * 64 * 64


INEXACT = (
    "layer layer4.0.conv1 + {}: its 3 positions are not a multiple of its stride 2, so that subsampling={} follows no "
    "shift exactly on images of 48x64; images of 32x64 or 64x64 work; allow_inexact=True takes these"
)


@pytest.mark.parametrize(("policy", "name"), [(APS, "aps"), (LPS, "lps")])
def test_sizes_that_a_stride_does_not_divide_are_named_with_those_that_work(policy, name):
    images, text = torch.zeros(1, 3, 48, 64), INEXACT.format(name, name)

    def warned(subsampling, padding="same_circular", images=images) -> list[str]:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            made(subsampling, padding, images=images)
        return [str(warning.message) for warning in found]

    assert warned(name) == warned(policy()) == [text]
    with pytest.raises(LayerError) as refused:
        made(policy(allow_inexact=False), images=images)
    assert str(refused.value) == text
    assert warned(policy(allow_inexact=True)) == []
    assert warned(policy(allow_inexact=False), images=torch.zeros(1, 3, 32, 64)) == []
    # what is added under full padding is the canvas
    assert warned(policy(allow_inexact=False), "full_background") == []
    assert str(policy(allow_inexact=False)) == name


def test_sizes_that_work_under_valid_are_found():
    with pytest.raises(LayerError, match=r"layer maxpool \+ aps: .* images of 462x462 work") as refused:
        made(APS(allow_inexact=False), "valid", images=torch.zeros(1, 3, 460, 460))
    assert "460x460" in str(refused.value)
    assert made(APS(allow_inexact=False), "valid", images=torch.zeros(1, 3, 462, 462))


class Own(SubsamplingPolicy):
    def __init__(self, layer: nn.Module) -> None:
        self.given = layer

    def layer(self, stride: tuple[int, ...], channels: int, padding: PaddingPolicy) -> nn.Module:
        return self.given


class EveryOther(nn.Module):
    def __init__(self, first: int = 0) -> None:
        super().__init__()
        self.first = first

    def forward(self, images):
        return images[..., self.first :: 2, self.first :: 2]


@pytest.mark.parametrize(
    ("layer", "size", "found"),
    [
        (nn.Identity(), 16, "a map of shape (1, 4, 16, 16)"),
        (EveryOther(2), 16, "a map of shape (1, 4, 7, 7)"),
        (EveryOther(1), 15, "a map of shape (1, 4, 7, 7)"),
        (nn.AvgPool2d(3, 3), 16, "a map of shape (1, 4, 5, 5)"),
        (nn.AdaptiveAvgPool2d(1), 16, "a map of shape (1, 4, 1, 1)"),
        (nn.PixelUnshuffle(2), 16, "a map of shape (1, 16, 8, 8)"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, 2)), 16, "a map of shape (1, 4, 7, 7)"),
    ],
)
def test_a_policy_whose_layer_gives_another_size_is_named(layer, size, found):
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1))
    with pytest.raises(LayerError) as refused:
        made(Own(layer), "keep", network, torch.zeros(1, 3, size, size))
    half = -(-size // 2)
    assert str(refused.value).startswith(
        f"layer 0 + Own: subsampling=Own gives {found}; of (1, 4, {size}, {size}) with stride 2 it has to be "
        f"(1, 4, {half}, {half})"
    )


@pytest.mark.parametrize(("layer", "size"), [(EveryOther(), 15), (nn.AvgPool2d(2), 15), (nn.MaxPool2d(3, 2, 1), 15)])
def test_a_layer_whose_size_is_that_of_its_window_is_taken(layer, size):
    network = made(Own(layer), "keep", nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1)), torch.zeros(1, 3, size, size))
    images = torch.randn(1, 3, size, size)
    torch.testing.assert_close(network(images).shape, layer(torch.zeros(1, 4, size, size)).shape)


def test_a_layer_of_torch_with_weights_is_a_policy_too():
    network = made(
        Own(nn.Conv2d(4, 4, 3, 2, 1)), "keep", nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1)).double(), IMAGES.double()
    )
    assert [*network.conversion.fresh] == ["policy_layers.0_subsample.weight", "policy_layers.0_subsample.bias"]
    network(IMAGES.double()).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_options_of_policies_reach_their_layers():
    network = made(TIPS(undo_weight=0.5, undo_from=0, mix_weight=0.1, max_shift=1))
    [layer, *_] = network.policy_layers.values()
    assert (layer.undo_weight, layer.undo_from, layer.mix_weight, layer.max_shift) == (0.5, 0, 0.1, 1)
    network = made(LPS(blur=3, hidden=5, temperature=(2.0, 0.5)))
    [layer, *_] = network.policy_layers.values()
    assert (layer.sampler.hidden_conv.out_channels, layer.sampler.start, layer.sampler.end) == (5, 2.0, 0.5)
    assert layer.sampler.blur.size == [3, 3]
    assert str(network.conversion.policy.subsampling) == "lps_blur3"


def test_inspect_shows_new_weights_and_inexact_sizes(capsys):
    words = ["inspect", "resnet10t", "--num-classes=3", "--subsampling=lps", "--padding=same_circular"]
    assert main([*words, "--input-size=48x64"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "new parameters in" in said
    assert "its 3 positions are not a multiple of its stride 2" in said
    assert main([*words, "--input-size=48x64", "--json"]) == 0
    found = capsys.readouterr()
    assert json.loads(found.out)["verdict"]["circular"][0]["unit"] is None
    assert "note: layer" in found.err
