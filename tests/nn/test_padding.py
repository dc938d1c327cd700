import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tinv import convert
from tinv.errors import TinvError
from tinv.nn.padding import PaddedConv1d, PaddedConv2d, PaddedConv3d, pad, window_widths
from tinv.nn.pooling import Pool
from tinv.nn.subsampling import BlurPool

CONVS = {1: (PaddedConv1d, nn.Conv1d), 2: (PaddedConv2d, nn.Conv2d), 3: (PaddedConv3d, nn.Conv3d)}
WAYS = [("valid", "zeros"), ("full", "zeros"), ("full", "circular")] + [
    ("same", mode) for mode in ("zeros", "circular", "reflect", "replicate", "symmetric")
]


def test_published_one_dimensional_example():
    """Mouton et al. 2020: I=[0,0,0,0,1,2,0,0,0,0], K=[1,0,1], valid; the output for strides 1 and 2, and of shifts."""
    signal = [0.0, 0, 0, 0, 1, 2, 0, 0, 0, 0]

    def run(shift: int, stride: int) -> list[float]:
        conv = PaddedConv1d(1, 1, 3, padding="valid", stride=stride, bias=False)
        conv.weight.data = torch.tensor([[[1.0, 0, 1]]])
        moved = [0.0] * shift + signal[: len(signal) - shift]
        return conv(torch.tensor([[moved]])).flatten().tolist()

    assert run(0, 1) == [0, 0, 1, 2, 1, 2, 0, 0]
    assert run(1, 1) == [0, 0, 0, 1, 2, 1, 2, 0]
    assert run(2, 1) == [0, 0, 0, 0, 1, 2, 1, 2]
    assert [run(shift, 2) for shift in (0, 1, 2)] == [[0, 1, 1, 0], [0, 0, 2, 2], [0, 0, 1, 1]]


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_amounts_are_those_of_the_definition(kernel, dilation):
    reach = dilation * (kernel - 1)
    assert window_widths("valid", [kernel], [dilation]) == ((0, 0),)
    assert window_widths("full", [kernel], [dilation]) == ((reach, reach),)
    assert window_widths(2, [kernel, 1], [dilation, 1]) == ((2, 2), (2, 2))
    assert window_widths([(1, 0)], [kernel], [dilation]) == ((1, 0),)
    [(left, right)] = window_widths("same", [kernel], [dilation])
    assert left + right == reach
    assert right - left in (0, 1)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect", "replicate"])
def test_same_padding_equals_torch(axes, mode):
    ours, theirs = CONVS[axes]
    for kernel, stride, dilation, groups in [(3, 1, 1, 1), (3, 2, 1, 2), (5, 2, 1, 1), (3, 1, 2, 4), (1, 2, 1, 1)]:
        mine = ours(4, 8, kernel, padding_mode=mode, stride=stride, dilation=dilation, groups=groups)
        padding = dilation * (kernel - 1) // 2
        reference = theirs(
            4, 8, kernel, stride=stride, dilation=dilation, groups=groups, padding=padding, padding_mode=mode
        )
        reference.load_state_dict(mine.state_dict())
        x = torch.randn(2, 4, *[9, 8, 7][:axes])
        torch.testing.assert_close(mine(x), reference(x))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # what is compared with
@pytest.mark.parametrize("kernel", [2, 4])
def test_same_padding_of_even_kernels_equals_torch(kernel):
    mine = PaddedConv2d(3, 5, kernel)
    reference = nn.Conv2d(3, 5, kernel, padding="same")
    reference.load_state_dict(mine.state_dict())
    x = torch.randn(2, 3, 9, 8)
    torch.testing.assert_close(mine(x), reference(x))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_full_padding_lets_every_filter_value_meet_every_pixel(axes):
    conv = CONVS[axes][0](1, 1, 3, padding="full", bias=False)
    for corner in ([0] * axes, [4] * axes):
        x = torch.zeros(1, 1, *[5] * axes)
        x[(0, 0, *corner)] = 1
        # the response to a single pixel is the whole filter, mirrored, wherever the pixel is
        assert conv(x).sum().item() == pytest.approx(conv.weight.sum().item(), abs=1e-6)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_circular_padding_is_equivariant_to_circular_shifts(axes):
    conv = CONVS[axes][0](2, 3, 3, padding_mode="circular")
    x = torch.randn(1, 2, *[6] * axes)
    dims = list(range(2, 2 + axes))
    for shift in (1, 2, 5):
        moved = x.roll([shift] * axes, dims)
        torch.testing.assert_close(conv(moved), conv(x).roll([shift] * axes, dims))


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_padding_may_be_larger_than_the_map(size, mode):
    x = torch.arange(float(size)).view(1, 1, size)
    row = pad(x, [(7, 5)], mode).flatten().tolist()
    assert len(row) == size + 12
    period = {"circular": size, "reflect": max(2 * (size - 1), 1), "replicate": None}[mode]
    if period:
        assert all(a == b for a, b in zip(row, row[period:], strict=False))
    else:
        assert row == [0.0] * 7 + list(range(size)) + [size - 1.0] * 5
    assert row[7 : 7 + size] == list(range(size))


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_padding_content_equals_torch(mode):
    x = torch.randn(2, 3, 6, 5)
    torch.testing.assert_close(pad(x, [(2, 3), (1, 4)], mode), F.pad(x, (1, 4, 2, 3), mode=mode))


@pytest.mark.parametrize("shape", [(6,), (5, 7), (3, 4, 5)])
def test_padding_along_the_width_wraps_the_last_axis_alone(shape):
    images = torch.randn(2, 3, *shape, dtype=torch.double)
    widths = [(2, 1), (0, 7), (3, 3)][: len(shape)]
    others = [(0, 0), (0, 0), *widths[:-1], (0, 0)]
    expected = np.pad(np.pad(images.numpy(), [*[(0, 0)] * (len(shape) + 1), widths[-1]], mode="wrap"), others)
    assert torch.equal(pad(images, widths, "circular_width"), torch.from_numpy(expected))


@pytest.mark.parametrize("shape", [(6,), (5, 7), (3, 4, 5), (1, 2)])
def test_symmetric_padding_is_numpys(shape):
    images = torch.randn(2, 3, *shape, dtype=torch.double)
    # wider than the map, too
    widths = [(2, 1), (0, 7), (3, 3)][: len(shape)]
    expected = np.pad(images.numpy(), [(0, 0), (0, 0), *widths], mode="symmetric")
    assert torch.equal(pad(images, widths, "symmetric"), torch.from_numpy(expected))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("padding", "mode"), WAYS)
def test_memory_format_changes_nothing(padding, mode, memory_format):
    net = nn.Sequential(PaddedConv2d(3, 4, 3, padding, mode), nn.ReLU())
    x = torch.randn(2, 3, 8, 8)
    expected = net(x)
    torch.testing.assert_close(net.to(memory_format=memory_format)(x.contiguous(memory_format=memory_format)), expected)


def blank_network(policy: str, blur: bool = True) -> nn.Module:
    torch.manual_seed(3)
    plain = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        Pool("max", 2, 1, "same"),
        nn.Conv2d(4, 4, 5, padding=2, stride=2),
        nn.Sigmoid(),
        BlurPool(3, 2) if blur else nn.Tanh(),
        Pool("average", 3, 1, "same"),
        nn.Conv2d(4, 3, 3, padding=1),
    ).double()
    pool = "full" if policy.startswith("full") else "keep"
    return convert(plain, policy, pool=pool, example_input=torch.zeros(1, 2, 24, 24, dtype=torch.double)).eval()


@pytest.mark.parametrize("policy", ["same_background", "full_background"])
def test_background_padding_leaves_no_edge_on_a_blank_image(policy):
    answer = blank_network(policy)(torch.zeros(1, 2, 24, 24, dtype=torch.double))
    # biases make the response non-zero; it is the same everywhere, border included
    assert answer.abs().min() > 1e-3
    assert (answer - answer[..., :1, :1]).abs().max() < 1e-12


def test_zero_padding_does_leave_an_edge():
    net = nn.Sequential(*(PaddedConv2d(2, 2, 3) for _ in range(2))).double()
    answer = net(torch.zeros(1, 2, 24, 24, dtype=torch.double))
    assert (answer - answer[..., 12:13, 12:13]).abs().max() > 1e-3


def test_full_background_is_exact_for_content_moved_up_to_the_corners():
    net = blank_network("full_background")
    patch = torch.randn(2, 5, 5, dtype=torch.double)

    def pooled(top: int, left: int) -> torch.Tensor:
        x = torch.zeros(1, 2, 25, 25, dtype=torch.double)
        x[0, :, top : top + 5, left : left + 5] = patch
        return net(x).amax(dim=(2, 3))

    # total stride 4
    torch.testing.assert_close(pooled(0, 0), pooled(20, 20), rtol=0, atol=1e-12)
    torch.testing.assert_close(pooled(0, 0), pooled(8, 20), rtol=0, atol=1e-12)


def test_unknown_words_are_refused_with_the_nearest_names():
    with pytest.raises(TinvError, match=r"unknown padding .fulll.; did you mean full"):
        PaddedConv2d(1, 1, 3, "fulll")
    with pytest.raises(TinvError, match=r"padding mode no\.such: there is no such function"):
        PaddedConv2d(1, 1, 3, "same", "no.such")(torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize("old", ["same_zero", "same_circular", "full_zero", "same_reflect"])
def test_names_of_policies_are_still_taken(old):
    amount, _, mode = old.partition("_")
    torch.manual_seed(0)
    with pytest.warns(DeprecationWarning, match=f"padding='{amount}'"):
        conv = PaddedConv2d(2, 3, 3, padding_policy=old)
    with pytest.warns(DeprecationWarning, match="Pool"):
        pool = Pool("max", 3, 1, old)
    new = PaddedConv2d(2, 3, 3, amount, "zeros" if mode == "zero" else mode)
    new.load_state_dict(conv.state_dict())
    images = torch.randn(1, 2, 9, 9)
    assert torch.equal(conv(images), new(images))
    same = Pool("max", 3, 1, amount, padding_mode="zeros" if mode == "zero" else mode)
    assert torch.equal(pool(images), same(images))


def test_parameters_keep_torch_names_and_shapes():
    mine, theirs = PaddedConv2d(4, 6, 3, groups=2), nn.Conv2d(4, 6, 3, groups=2)
    assert {k: v.shape for k, v in mine.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


@pytest.mark.parametrize(("padding", "mode"), WAYS)
def test_a_missing_batch_axis_is_said(padding, mode):
    with pytest.raises(TinvError, match=r"convolution: takes maps \(N, C, H, W\), not of shape \(3, 8, 8\)"):
        PaddedConv2d(3, 4, 3, padding, mode)(torch.randn(3, 8, 8))


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "padding"),
    [(3, 1, 1, "same"), (5, 2, 1, "full"), (3, 2, 2, "same"), (4, 1, 1, "same")],
)
@pytest.mark.parametrize("bias", [True, False])
def test_partial_padding_weighs_each_sum_by_the_real_pixels_in_its_window(kernel, stride, dilation, padding, bias):
    how = {"stride": stride, "dilation": dilation, "bias": bias}
    layer = PaddedConv2d(2, 3, kernel, padding, "partial", **how).double()
    images = torch.randn(2, 2, 9, 7, dtype=torch.double)
    (left, right), _ = layer.pad_widths
    padded = F.pad(images, (left, right, left, right))
    mask = F.pad(torch.ones(9, 7, dtype=torch.double), (left, right, left, right))
    found = layer(images)
    reach = dilation * (kernel - 1) + 1
    for i, j in np.ndindex(*found.shape[2:]):
        at = (slice(i * stride, i * stride + reach, dilation), slice(j * stride, j * stride + reach, dilation))
        sums = torch.einsum("nchw,ochw->no", padded[(..., *at)], layer.weight)
        expected = sums * kernel**2 / mask[at].sum() + (layer.bias if bias else 0)
        torch.testing.assert_close(found[:, :, i, j], expected, rtol=0, atol=1e-12)
    assert set(layer.state_dict()) == ({"weight", "bias"} if bias else {"weight"})


def test_partial_padding_in_one_and_three_dimensions_keeps_a_constant():
    for axes, conv in ((1, PaddedConv1d), (3, PaddedConv3d)):
        layer = conv(1, 1, 3, padding_mode="partial", bias=False)
        layer.weight.data.fill_(1 / 3**axes)
        torch.testing.assert_close(layer(torch.full((1, 1, *[4] * axes), 2.0)), torch.full((1, 1, *[4] * axes), 2.0))


def test_random_padding_splits_its_zeros_in_training_and_is_that_of_zeros_in_evaluation():
    torch.manual_seed(0)
    layer = PaddedConv2d(2, 3, 3, padding_mode="random")
    images = torch.randn(1, 2, 6, 5)
    splits = {
        (top, left): F.conv2d(F.pad(images, (left, 2 - left, top, 2 - top)), layer.weight, layer.bias)
        for top in range(3)
        for left in range(3)
    }
    seen = set()
    for _ in range(120):
        found = layer(images)
        [split] = [key for key, expected in splits.items() if torch.allclose(found, expected, atol=1e-6)]
        seen.add(split)
    assert seen == set(splits)
    torch.testing.assert_close(layer.eval()(images), splits[1, 1])
