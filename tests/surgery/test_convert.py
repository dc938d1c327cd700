"""`convert`: the contract, layer by layer and network by network."""

import copy
import pickle
import warnings

import pytest
import timm
import torch
import torchvision
from surgery.residual import Residual, resnet18
from torch import nn

from tinv import convert
from tinv.errors import TinvError
from tinv.graph.converted import ConvertedNetwork
from tinv.policies.cards import PADDINGS

POLICIES = [policy for policy in PADDINGS if policy != "keep"]
IMAGES = torch.zeros(1, 3, 64, 64)


@pytest.mark.parametrize("build", [resnet18, lambda: timm.create_model("seresnet18", num_classes=10)])
@pytest.mark.parametrize(
    ("padding", "subsampling"), [("full_zero", "blur3"), ("full_background", "aps"), ("valid", "keep")]
)
def test_names_shapes_and_order_of_weights_are_the_old_ones(build, padding, subsampling):
    original = build()
    images = torch.randn(2, 3, 431, 431) if padding == "valid" else torch.randn(2, 3, 64, 64)
    before = {name: value.clone() for name, value in original.state_dict().items()}
    structure = str(original)
    network = convert(original, padding, subsampling, example_input=images)
    assert list(network.state_dict()) == list(before)
    assert [p.shape for p in network.parameters()] == [p.shape for p in original.parameters()]
    # the given network is untouched and shares nothing
    network(images).sum().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert str(original) == structure
    assert all(torch.equal(value, before[name]) for name, value in original.state_dict().items())
    assert all(p.grad is None for p in original.parameters())
    # state dicts go both ways
    network.load_state_dict(before)
    original.load_state_dict(network.state_dict())


def test_keep_is_bit_identical():
    original, images = resnet18().eval(), torch.randn(2, 3, 64, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = convert(original, example_input=images)
    assert torch.equal(network(images), original(images))
    assert network.conversion.counts == {}
    assert list(network.state_dict()) == list(original.state_dict())


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "densenet121", "googlenet"])
def test_a_policy_that_is_what_the_network_has_changes_no_number(name):
    options = {"init_weights": False} if name == "googlenet" else {}
    torch.manual_seed(0)
    original, images = torchvision.models.get_model(name, weights=None, **options).eval(), torch.randn(2, 3, 64, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = convert(original, "same_zero", example_input=images)
    assert isinstance(network, ConvertedNetwork)
    assert torch.equal(network(images), original(images))


def test_it_is_idempotent_and_refuses_a_second_policy():
    images = torch.randn(2, 3, 64, 64)
    once = convert(resnet18().eval(), "full_zero", "blur3", example_input=images)
    twice = convert(once, "full_zero", "blur3", example_input=images)
    assert twice is not once
    assert torch.equal(once(images), twice(images))
    with pytest.raises(TinvError, match=r"already converted \(padding=full_zero, subsampling=blur3\)"):
        convert(once, "valid", example_input=images)


def test_other_sizes_and_batches_than_the_example():
    network = convert(resnet18().eval(), "full_background", "aps", example_input=IMAGES)
    for size in [(1, 3, 64, 64), (3, 3, 65, 70), (2, 3, 33, 97)]:
        assert network(torch.randn(size)).shape == (size[0], 10)


@pytest.mark.parametrize("padding", ["full_zero", "full_background", "same_circular"])
def test_copies_and_pickles_give_the_same_numbers(padding):
    images = torch.randn(2, 3, 64, 64)
    network = convert(resnet18().eval(), padding, "aps", example_input=images)
    expected = network(images)
    twin = copy.deepcopy(network)
    assert torch.equal(twin(images), expected)
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in network.parameters()}
    assert torch.equal(pickle.loads(pickle.dumps(network))(images), expected)


@pytest.mark.parametrize(("padding", "subsampling"), [("full_zero", "blur3"), ("full_background", "aps")])
def test_memory_format_and_autocast(padding, subsampling):
    images = torch.randn(2, 3, 64, 64)
    network = convert(resnet18().eval(), padding, subsampling, example_input=images)
    expected = network(images)
    last = network.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(images)
    assert half.dtype == torch.bfloat16
    # aps may choose differently where two components are equally strong in half precision
    if subsampling != "aps":
        torch.testing.assert_close(half.float(), expected, rtol=0.1, atol=0.05)


@pytest.mark.parametrize(("padding", "subsampling"), [("full_zero", "blur3"), ("full_background", "aps")])
def test_compiled_networks_give_the_same_numbers(padding, subsampling):
    images = torch.randn(2, 3, 32, 32)
    network = convert(resnet18().eval(), padding, subsampling, example_input=images)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), network(images))
    torch._dynamo.reset()


def test_it_trains_under_ddp(tmp_path):
    network = convert(resnet18(), "full_background", "aps", example_input=torch.zeros(2, 3, 32, 32))
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(network)
        wrapped(torch.randn(2, 3, 32, 32)).sum().backward()
        assert all(p.grad is not None for p in network.parameters())
        with pytest.raises(TinvError, match=r"wrapped in DistributedDataParallel; convert model\.module"):
            convert(wrapped, "valid", example_input=IMAGES)
    finally:
        torch.distributed.destroy_process_group()


def test_mode_and_training_flag_of_single_layers_are_kept():
    original = resnet18().train()
    original.bn1.eval()
    network = convert(original, "full_zero", example_input=IMAGES)
    assert network.training
    assert not network.bn1.training
    assert network.layer1[0].bn1.training


def test_added_layers_are_on_the_device_of_the_weights():
    network = convert(resnet18().to("meta"), "keep", "blur3", example_input=IMAGES)
    assert {buffer.device.type for buffer in network.buffers()} == {"meta"}
    network = convert(resnet18(), "keep", "blur3", example_input=IMAGES.to("meta"))
    assert {buffer.device.type for buffer in network.buffers()} == {"cpu"}


def test_training_and_evaluation_differ_where_the_original_does():
    """A GoogLeNet has further outputs in training, and functional dropout is off in evaluation."""
    original = torchvision.models.googlenet(weights=None, init_weights=False, num_classes=5)
    network = convert(original, "full_zero", example_input=IMAGES)
    outputs = network.train()(torch.randn(2, 3, 96, 96))
    assert [output.shape for output in outputs] == [(2, 5)] * 3
    images = torch.randn(2, 3, 96, 96)
    assert torch.equal(network.eval()(images), network(images))


def test_the_report_says_what_was_done():
    network = convert(resnet18(), "full_zero", "blur3", example_input=IMAGES)
    report = network.conversion
    assert report.counts["convolutions padded"] == 17
    assert report.counts["strides replaced"] == 7
    assert report.counts["branches aligned"] == 8
    assert [(note.layer, "stem=keep" in note.text) for note in report.skipped] == [("conv1", True)]
    assert "conv1: padding 3 -> 6" in str(report)
    assert report.after.flops > 3 * report.before.flops
    assert f"{report.after.flops / report.before.flops:.2f}x the FLOPs" in str(report)
    assert "on 64x64 images" in str(report)


# every kind of convolution


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("merge", ["add", "iadd", "sub_", "mul", "cat"])
@pytest.mark.parametrize("subsampling", ["keep", "blur3", "aps", "dilated"])
def test_branches_meet_aligned(axes, merge, subsampling):
    """Full padding on a zero canvas: if the branches were apart, content at the border would show it."""
    torch.manual_seed(1)
    network = Residual(axes, merge).double().eval()
    size = [24] * axes
    options = {"pool": "full", "stem": "convert", "axes": "space+time"}
    example = torch.zeros(1, 4, *size, dtype=torch.double)
    converted = convert(network, "full_background", subsampling, example_input=example, **options)
    content = torch.randn(2, 4, *[8] * axes, dtype=torch.double)

    def at(place: int) -> torch.Tensor:
        canvas = example.expand(2, -1, *size).clone()
        canvas[(slice(None), slice(None), *[slice(place, place + 8)] * axes)] = content
        return converted(canvas)

    if subsampling == "blur3":  # Zhang's padding loses the last half cell
        torch.testing.assert_close(at(0), at(8), rtol=1e-9, atol=1e-9)
    else:
        torch.testing.assert_close(at(0), at(16), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("kernel", "dilation", "groups"), [(3, 1, 8), (3, 2, 1), (5, 1, 4), (4, 1, 1), (2, 1, 1), (3, 3, 2), ((3, 5), 1, 1)]
)
def test_grouped_dilated_even_and_uneven_kernels(policy, kernel, dilation, groups):
    conv = nn.Conv2d(8, 8, kernel, stride=(2, 1), dilation=dilation, groups=groups, padding=1)
    network = nn.Sequential(conv, nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of these kernels are padded as the policy says already
        converted = convert(network, policy, example_input=torch.zeros(1, 8, 24, 20))
    images = torch.randn(2, 8, 24, 20)
    rows, columns = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    expected = []
    for size, k, stride in ((24, rows, 2), (20, columns, 1)):
        reach = dilation * (k - 1)
        total = {"valid": 0, "same": reach, "full": 2 * reach}[policy.partition("_")[0]]
        first = (size + total - reach - 1) // stride + 1
        expected.append(first + {"valid": -2, "same": 0, "full": 2}[policy.partition("_")[0]])
    assert converted(images).shape == (2, 8, *expected)


@pytest.mark.parametrize("name", ["tf_efficientnet_b0", "tf_mobilenetv3_small_075"])
@pytest.mark.parametrize("padding", ["full_zero", "same_circular", "same_background"])
def test_tensorflow_same_layers_take_the_policy(name, padding):
    original = timm.create_model(name, num_classes=5)
    network = convert(original, padding, example_input=IMAGES)
    assert network.conversion.counts["convolutions padded"] >= 11
    assert not any(type(m).__name__ == "Conv2dSame" for m in network.modules())
    assert any(type(m).__name__ == "Conv2dSame" for m in original.modules())
    assert network(torch.randn(2, 3, 65, 70)).shape == (2, 5)


def test_space_leaves_time_alone():
    original = torchvision.models.video.r3d_18(num_classes=5)
    clips = torch.zeros(1, 3, 4, 32, 32)
    space = convert(original, "full_zero", example_input=clips)
    both = convert(original, "full_zero", axes="space+time", example_input=clips)
    assert space.layer1[0].conv1[0].padding == (1, 2, 2)
    assert both.layer1[0].conv1[0].padding == (2, 2, 2)
    assert space(clips).shape == both(clips).shape == (1, 5)
