"""Subsampling with weights against loops written out from the formulas, and what is true of shifts."""

import copy
import itertools
import math
import pickle

import pytest
import torch
from torch import nn

from tinv.errors import TinvError
from tinv.nn import AdaptiveBlurPool, AdaptivePolyphaseSampling, LearnedPolyphaseSampling, TIPSPooling
from tinv.nn.subsampling import PhaseSelector, SharedPhaseSampling

LAYERS = (LearnedPolyphaseSampling, TIPSPooling, AdaptiveBlurPool)
SHAPES = [((12,), (2,)), ((7,), (3,)), ((6, 8), (2, 2)), ((5, 6), (2, 3)), ((5, 6), (2, 1)), ((4, 3, 5), (1, 2, 2))]


def made(layer: type, channels: int, stride, seed: int = 0, **options) -> nn.Module:
    torch.manual_seed(seed)
    return layer(channels, stride, **options).double().eval()


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def positions(sizes) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, sizes)))


def pixel(image: torch.Tensor, channel: int, at: tuple[int, ...], mode: str) -> float:
    """A pixel of an image (C, *spatial), or of its border."""
    sizes = image.shape[1:]
    if mode == "circular":
        at = tuple(a % n for a, n in zip(at, sizes, strict=True))
    inside = all(0 <= a < n for a, n in zip(at, sizes, strict=True))
    return float(image[(channel, *at)]) if inside else 0.0


def convolved(image: torch.Tensor, weight, bias, mode: str, stride, groups: int = 1) -> torch.Tensor:
    """A convolution of an image (C, *spatial), one product after the other; ceil(n / stride) positions an axis."""
    kernel = weight.shape[2:]
    out = torch.zeros(len(weight), *(-(-n // s) for n, s in zip(image.shape[1:], stride, strict=True)))
    out = out.double()
    for o, at in itertools.product(range(len(weight)), positions(out.shape[1:])):
        total = 0.0 if bias is None else bias[o].item()
        for c, tap in itertools.product(range(weight.shape[1]), positions(kernel)):
            seen = tuple(a * s + t - (k - 1) // 2 for a, s, t, k in zip(at, stride, tap, kernel, strict=True))
            channel = c + o // (len(weight) // groups) * weight.shape[1]
            total += weight[(o, c, *tap)].item() * pixel(image, channel, seen, mode)
        out[(o, *at)] = total
    return out


def component(image: torch.Tensor, begin, stride, mode: str) -> torch.Tensor:
    counts = [-(-n // s) for n, s in zip(image.shape[1:], stride, strict=True)]
    out = torch.zeros(len(image), *counts).double()
    for c, at in itertools.product(range(len(image)), positions(counts)):
        seen = tuple(a * s + b for a, s, b in zip(at, stride, begin, strict=True))
        out[(c, *at)] = pixel(image, c, seen, mode)
    return out


def components(image: torch.Tensor, stride, mode: str = "zeros") -> list[torch.Tensor]:
    return [component(image, begin, stride, mode) for begin in positions(stride)]


def logit(layer, part: torch.Tensor) -> float:
    ones = (1,) * (part.dim() - 1)
    hidden = convolved(part, layer.hidden_conv.weight, layer.hidden_conv.bias, "circular", ones).relu()
    return float(convolved(hidden, layer.logit_conv.weight, layer.logit_conv.bias, "circular", ones).mean())


@pytest.mark.parametrize(("shape", "stride"), SHAPES)
@torch.no_grad()
def test_learned_polyphase_sampling_is_the_formula(shape, stride):
    layer = made(LearnedPolyphaseSampling, 2, stride, hidden=3)
    images = noise(3, 2, *shape)
    for image, kept, found in zip(images, layer(images), layer.logits(layer.components(images)), strict=True):
        parts = components(image, stride)
        logits = [logit(layer, part) for part in parts]
        torch.testing.assert_close(found.tolist(), logits, rtol=0, atol=1e-12)
        assert torch.equal(kept, parts[logits.index(max(logits))])


@torch.no_grad()
def test_in_training_all_components_are_summed_by_a_gumbel_softmax():
    layer = made(LearnedPolyphaseSampling, 2, 2, temperature=(0.7, 0.1)).train()
    images = noise(4, 2, 6, 6)
    torch.manual_seed(5)
    kept = layer(images)
    # the draws of torch's own function, which are -log of exponential numbers
    torch.manual_seed(5)
    drawn = -torch.empty(4, 4, dtype=torch.double).exponential_().log()
    for image, found, extra in zip(images, kept, drawn, strict=True):
        parts = components(image, (2, 2))
        weights = [math.exp((logit(layer, part) + float(g)) / 0.7) for part, g in zip(parts, extra, strict=True)]
        expected = sum(w * part for w, part in zip(weights, parts, strict=True)) / sum(weights)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_temperature_falls_from_start_to_end_and_the_choice_hardens():
    layer = made(LearnedPolyphaseSampling, 2, 2, temperature=(4.0, 0.01)).train()
    parts = layer.components(noise(8, 2, 6, 6))
    found = {}
    for progress in (0.0, 0.5, 1.0):
        layer.set_progress(progress)
        found[progress] = float(layer.temperature), layer.choose(parts).amax(1).mean().item()
    assert [found[p][0] for p in (0.0, 0.5, 1.0)] == pytest.approx([4, 0.2, 0.01])
    assert found[0.0][1] < 0.6 < 0.95 < found[1.0][1]


@pytest.mark.parametrize("layer", [LearnedPolyphaseSampling(4, hidden=6), AdaptivePolyphaseSampling(2)])
@torch.no_grad()
def test_every_circular_shift_moves_the_output_where_the_stride_divides_and_only_there(layer):
    layer = copy.deepcopy(layer).double().eval()

    def error(size: int, by: tuple[int, int]) -> float:
        before, after = layer(noise(1, 4, size, size)), layer(noise(1, 4, size, size).roll(by, (2, 3)))
        return min(float((before.roll(r, (2, 3)) - after).norm() / before.norm()) for r in positions(before.shape[2:]))

    assert max(error(16, by) for by in itertools.product(range(4), range(4))) == 0
    assert max(error(15, by) for by in ((1, 0), (0, 1), (1, 1), (2, 0))) > 0.3


@pytest.mark.parametrize(("shape", "stride"), SHAPES)
@pytest.mark.parametrize("mode", ["zeros", "circular"])
@torch.no_grad()
def test_tips_is_the_formula(shape, stride, mode):
    layer = made(TIPSPooling, 2, stride, padding_mode=mode)
    images = noise(2, 2, *shape)
    for image, kept in zip(images, layer(images), strict=True):
        psi = convolved(image, layer.psi.weight, None, mode, (1,) * len(shape), groups=2).relu()
        parts = components(image, stride, mode)
        for c in range(2):
            pooled = []
            for cell in positions(stride):
                ranges = [range(i * n // s, -(-(i + 1) * n // s)) for i, n, s in zip(cell, shape, stride, strict=True)]
                values = [float(psi[(c, *at)]) for at in itertools.product(*ranges)]
                pooled.append(sum(values) / len(values))
            shares = [math.exp(layer.weight[c].item() * value) for value in pooled]
            expected = sum(w * part[c] for w, part in zip(shares, parts, strict=True)) / sum(shares)
            torch.testing.assert_close(kept[c], expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_tips_follows_no_shift():
    layer = made(TIPSPooling, 8, 2, padding_mode="circular")
    images = noise(1, 8, 16, 16)
    before = layer(images)

    def error(by):
        after = layer(images.roll(by, (2, 3)))
        return min(float((before.roll(r, (2, 3)) - after).norm() / before.norm()) for r in positions((8, 8)))

    assert min(map(error, [(1, 0), (0, 1), (1, 3)])) > 0.5
    images = torch.rand(1, 8, 16, 16, dtype=torch.double)
    before = layer(images)
    assert 0.2 < min(map(error, [(1, 0), (0, 1), (1, 3)])) <= max(map(error, [(1, 0), (0, 1), (1, 3)])) < 0.4
    images = noise(1, 8, 16, 16)
    before = layer(images)
    # by multiples of the stride the components move by whole positions, and their weights change a little
    assert 1e-3 < min(map(error, [(2, 0), (4, 6)])) < 0.1
    layer.weight.zero_()
    before = layer(images)
    assert error((2, 4)) < 1e-12


def shifted(image: torch.Tensor, by) -> torch.Tensor:
    """An image moved, zeros in the place of what is not there."""
    out = torch.zeros_like(image)
    for c, at in itertools.product(range(len(image)), positions(image.shape[1:])):
        out[(c, *at)] = pixel(image, c, tuple(a - b for a, b in zip(at, by, strict=True)), "zeros")
    return out


def test_the_losses_of_tips_are_the_formula(monkeypatch):
    layer = made(TIPSPooling, 2, 2, undo_weight=0.35, undo_from=0.5, mix_weight=0.2).train()
    images = noise(3, 2, 7, 6)
    monkeypatch.setattr(torch, "randint", lambda *args, **kwargs: torch.tensor([2, -1]))

    def penalty(progress: float) -> float:
        layer.set_progress(progress)
        layer(images)
        return float(layer.penalty())

    mixing = layer.mixing(layer.features(images)).detach()
    mix = sum(1 - math.sqrt(sum(float(t) ** 2 for t in row)) for row in mixing.flatten(0, 1)) / 6
    assert penalty(0.49) == pytest.approx(0.2 * mix, abs=1e-12)
    total = 0.0
    for image in images:
        psi, moved = (
            convolved(x, layer.psi.weight, None, "zeros", (1, 1), groups=2).relu()
            for x in (image, shifted(image, (2, -1)))
        )
        total += float((psi - shifted(moved, (-2, 1))).square().mean()) / 3
    assert penalty(0.5) == pytest.approx(0.2 * mix + 0.35 * total, abs=1e-12)
    assert total > 1e-3


def test_penalties_are_of_training_alone_read_once_and_never_copied():
    layer = made(TIPSPooling, 2, 2)
    layer(noise(1, 2, 6, 6))
    assert layer.penalty() is None
    layer.train()(noise(1, 2, 6, 6))
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    assert [made.penalty() for made in copies] == [None, None]
    found = layer.penalty()
    assert layer.penalty() is None
    found.backward()
    assert layer.weight.grad.abs().sum() > 0
    layer(noise(1, 2, 6, 6))
    assert layer.eval().penalty() is None
    assert LearnedPolyphaseSampling(2).train().penalty() is None


@pytest.mark.parametrize(("shape", "stride"), SHAPES)
@pytest.mark.parametrize(("mode", "groups"), [("zeros", 2), ("circular", 4)])
@torch.no_grad()
def test_adaptive_blur_is_the_formula(shape, stride, mode, groups):
    layer = made(AdaptiveBlurPool, 4, stride, groups=groups, padding_mode=mode)
    images = noise(2, 4, *shape)
    conv = layer.filter_conv
    for image, kept in zip(images, layer(images), strict=True):
        logits = convolved(image, conv.weight, conv.bias, mode, stride)
        taps = positions(layer.taps)
        assert math.prod(layer.taps) * groups == len(logits)
        for c, at in itertools.product(range(4), positions(logits.shape[1:])):
            group = c // (4 // groups)
            shares = [math.exp(float(logits[(group * len(taps) + n, *at)])) for n in range(len(taps))]
            centre = [tuple(t - (k - 1) // 2 for t, k in zip(tap, layer.taps, strict=True)) for tap in taps]
            seen = [tuple(a * s + t for a, s, t in zip(at, stride, tap, strict=True)) for tap in centre]
            values = [pixel(image, c, where, mode) for where in seen]
            expected = sum(w * v for w, v in zip(shares, values, strict=True)) / sum(shares)
            assert float(kept[(c, *at)]) == pytest.approx(expected, abs=1e-12)


@torch.no_grad()
def test_adaptive_blur_follows_multiples_of_its_stride_alone():
    layer = made(AdaptiveBlurPool, 4, 2, padding_mode="circular")
    images = noise(1, 4, 12, 12)
    before = layer(images)
    assert (layer(images.roll((2, -4), (2, 3))) - before.roll((1, -2), (2, 3))).abs().max() < 1e-12
    after = layer(images.roll(1, 2))
    assert min(float((before.roll(r, (2, 3)) - after).norm() / before.norm()) for r in positions((6, 6))) > 0.1
    assert (layer(torch.full_like(images, 3.0)) - 3).abs().max() < 1e-12


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (7, 7), (12, 6), (16, 8), (22, 2)])
def test_groups_of_an_adaptive_blur_divide_the_channels(channels, groups):
    assert AdaptiveBlurPool(channels).groups == groups


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("shape", [(9,), (7, 10), (5, 4, 6)])
@pytest.mark.parametrize("stride", [2, 3])
def test_sizes_are_those_of_a_strided_layer_on_one_to_three_axes(layer, shape, stride):
    found = layer(4, (stride,) * len(shape))(torch.randn(2, 4, *shape))
    assert found.shape == (2, 4, *(-(-n // stride) for n in shape))
    assert found.dtype == torch.float


@pytest.mark.parametrize("layer", LAYERS)
def test_half_precision_computes_choices_in_single_and_every_memory_format_is_taken(layer):
    torch.manual_seed(0)
    net, images = layer(8).eval(), torch.randn(2, 8, 12, 10)
    expected = net(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(net(images), expected)
        assert net(images.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(net(images.contiguous(memory_format=torch.channels_last)), expected)
    half = copy.deepcopy(net).bfloat16()(images.bfloat16())
    assert half.dtype == torch.bfloat16
    net.load_state_dict({key: value.bfloat16().float() for key, value in net.state_dict().items()})
    torch.testing.assert_close(half, net(images.bfloat16().float()).bfloat16())


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("training", [False, True])
def test_layers_are_compiled_whole_and_exported(layer, training):
    torch.manual_seed(0)
    net, images = layer(4).train(training), torch.randn(2, 4, 8, 8)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    for progress in (0.0, 0.3, 1.0):
        net.set_progress(progress)
        torch.manual_seed(1)
        expected, penalty = net(images), net.penalty()
        torch.manual_seed(1)
        torch.testing.assert_close(compiled(images), expected)
        torch.testing.assert_close(net.penalty(), penalty)
    if not training:
        exported = torch.export.export(net, (images,)).module()
        torch.testing.assert_close(exported(images), expected)


@pytest.mark.parametrize("layer", LAYERS)
def test_every_weight_learns(layer):
    torch.manual_seed(0)
    net = layer(4).train()
    net.set_progress(1.0)
    images = torch.randn(3, 4, 8, 8, requires_grad=True)
    loss = net(images).square().sum()
    (loss + (net.penalty() or 0)).backward()
    # a constant for all components is no preference
    free = [name for name, p in net.named_parameters() if p.grad.abs().max() < 1e-7]
    assert free in ([], ["logit_conv.bias"])
    assert images.grad.abs().sum() > 0


def test_branches_follow_weights_as_well_as_numbers_and_hold_none_themselves():
    leader = PhaseSelector(made(LearnedPolyphaseSampling, 2, 2), "first")
    follower = SharedPhaseSampling(leader.sampler, "first")
    assert not follower.state_dict()
    images, others = noise(3, 2, 6, 6), noise(3, 5, 6, 6, seed=2)
    kept, choice = leader(images)
    assert choice.shape == (3,)
    assert torch.equal(kept, leader.sampler(images))
    expected = [components(image, (2, 2))[k] for image, k in zip(others, choice.tolist(), strict=True)]
    assert torch.equal(follower(others, choice), torch.stack(expected))
    weights = leader.train()(images)[1]
    assert weights.shape == (3, 4)
    torch.testing.assert_close(weights.sum(1), torch.ones(3).double())
    for image, found, shares in zip(others, follower(others, weights), weights, strict=True):
        mixed = sum(w * part for w, part in zip(shares, components(image, (2, 2)), strict=True))
        torch.testing.assert_close(found, mixed)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LearnedPolyphaseSampling(4, temperature=(1.0, 0)), "must be above 0, not 1 and 0"),
        (lambda: LearnedPolyphaseSampling(4, hidden=0), "must be 1 or more, not 0"),
        (lambda: LearnedPolyphaseSampling(4, (2, 2, 2, 2)), "each of one to three axes"),
        (lambda: TIPSPooling(4, undo_weight=-1), "undo_weight of TIPS must be 0 or more, not -1"),
        (lambda: TIPSPooling(4, undo_from=2), "share of the training, 0 to 1, not 2"),
        (lambda: AdaptiveBlurPool(4, size=1), "must be 2 pixels or more, not 1"),
        (lambda: AdaptiveBlurPool(4, groups=3), "the 3 groups of an adaptive blur do not divide the 4 channels"),
        (lambda: AdaptiveBlurPool(4)(torch.zeros(4, 8, 8)), r"takes maps \(N, C, H, W\)"),
        (lambda: TIPSPooling(4)(torch.zeros(4, 8, 8)), r"takes maps \(N, C, H, W\)"),
    ],
)
def test_bad_options_are_one_clear_line(make, message):
    with pytest.raises(TinvError, match=message):
        make()
