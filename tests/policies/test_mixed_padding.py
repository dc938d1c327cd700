"""A padding mode for each axis: layers against numpy, verdicts against shifts in float64, and what cannot be mixed."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import tinv
from tinv.errors import TinvError
from tinv.graph.analysis import analyze
from tinv.nn import PaddedConv1d, PaddedConv2d, PaddedConv3d, Pool
from tinv.nn.padding import pad
from tinv.nn.subsampling import AdaptivePolyphaseSampling, BlurPool
from tinv.policies.padding import PaddingPolicy, padding_policy

NUMPY = {"zeros": "constant", "circular": "wrap", "reflect": "reflect", "replicate": "edge", "symmetric": "symmetric"}
IMAGES = torch.randn(1, 3, 16, 16, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def blank_gives_numbers() -> nn.Sequential:
    """A network whose layers give other values than zero for an image of zeros."""
    torch.manual_seed(0)
    first = [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    second = [nn.Conv2d(6, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*first, *second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    for norm in (model[1], model[5]):
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)
    return model.eval()


def padded_by_numpy(images: torch.Tensor, widths, modes) -> torch.Tensor:
    """Axis by axis, in the order of the axes."""
    found = images.numpy()
    for axis, (pair, mode) in enumerate(zip(widths, modes, strict=True), start=2):
        around = [(0, 0)] * found.ndim
        around[axis] = pair
        found = np.pad(found, around, NUMPY[mode])
    return torch.from_numpy(found)


@pytest.mark.parametrize("modes", list(itertools.product(NUMPY, repeat=2)), ids="+".join)
def test_two_axes_are_padded_as_numpy_pads_one_after_the_other(modes):
    images, widths = IMAGES[..., :5, :6], [(2, 1), (1, 3)]
    expected = padded_by_numpy(images, widths, modes)
    assert torch.equal(pad(images, widths, modes), expected)
    assert torch.equal(pad(images, widths, "+".join(modes)), expected)
    torch.manual_seed(0)
    conv = PaddedConv2d(3, 4, (4, 5), padding=widths, padding_mode=modes).double()
    plain = nn.functional.conv2d(expected, conv.weight, conv.bias)
    assert torch.allclose(conv(images), plain, atol=1e-14)


def test_one_and_three_axes():
    signal, clip = torch.randn(2, 3, 7), torch.randn(1, 2, 4, 5, 6)
    assert torch.equal(PaddedConv1d(3, 4, 3, padding_mode=("circular",))(signal).isfinite(), torch.ones(2, 4, 7) > 0)
    modes = ("reflect", "zeros", "circular")
    conv = PaddedConv3d(2, 3, 3, padding_mode=modes)
    expected = nn.functional.conv3d(padded_by_numpy(clip, [(1, 1)] * 3, modes), conv.weight, conv.bias)
    assert torch.allclose(conv(clip), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["max", "average"])
def test_a_pool_leaves_zeros_out_and_counts_real_pixels(kind):
    pool = Pool(kind, 3, 2, [(1, 1), (1, 1)], padding_mode=("zeros", "circular"))
    found = pool(IMAGES)
    assert torch.equal(found, Pool(kind, 3, 2, [(1, 1), (1, 1)], padding_mode="circular_width")(IMAGES))
    mirrored = pad(IMAGES, [(0, 0), (1, 1)], "reflect")
    slow = torch.stack([
        torch.stack([window(kind, mirrored, row, column) for column in range(0, 16, 2)], -1) for row in range(0, 16, 2)
    ], -2)  # fmt: skip
    mixed = Pool(kind, 3, 2, [(1, 1), (1, 1)], padding_mode=("zeros", "reflect"))(IMAGES)
    assert torch.allclose(mixed, slow, atol=1e-14)


def window(kind: str, images: torch.Tensor, row: int, column: int) -> torch.Tensor:
    inside = images[..., max(0, row - 1) : row + 2, column : column + 3].flatten(2)
    return inside.amax(2) if kind == "max" else inside.mean(2)


def test_blurs_follow():
    modes = ("symmetric", "circular")
    row = torch.tensor([0.25, 0.5, 0.25], dtype=torch.double)
    weight = torch.outer(row, row).expand(3, 1, 3, 3)
    expected = nn.functional.conv2d(padded_by_numpy(IMAGES, [(1, 1)] * 2, modes), weight, stride=2, groups=3)
    assert torch.allclose(BlurPool(3, 2, modes).double()(IMAGES), expected, atol=1e-14)
    wrapped = AdaptivePolyphaseSampling(2, 3, ("circular", "circular")).double()
    assert torch.equal(wrapped(IMAGES), AdaptivePolyphaseSampling(2, 3, "circular").double()(IMAGES))


def network(pool: bool) -> nn.Module:
    torch.manual_seed(0)
    middle = nn.MaxPool2d(3, 2, 1) if pool else nn.Conv2d(6, 6, 3, 2, 1)
    layers = [nn.Conv2d(3, 6, 5, 2, 2), nn.ReLU(), middle, nn.Conv2d(6, 6, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double().eval()


@pytest.mark.parametrize(("subsampling", "unit"), [("keep", 4), ("aps", 1), ("blur3", 4)])
@pytest.mark.parametrize("modes", [("circular", "zeros"), ("reflect", "circular"), ("circular", "symmetric")])
@pytest.mark.parametrize("pool", [False, True])
def test_a_ring_is_exact_along_its_axis_alone(subsampling, unit, modes, pool):
    policy = PaddingPolicy("same", modes)
    model = tinv.convert(network(pool), policy, subsampling, stem="convert", example_input=IMAGES)
    ring = modes.index("circular")
    expected = [unit if axis == ring else None for axis in range(2)]
    assert [shifts.unit for shifts in analyze(model, IMAGES).verdict.circular] == expected
    with torch.no_grad():
        before = model(IMAGES)
        along, across = (model(IMAGES.roll(3 * unit, axis)) for axis in (2 + ring, 3 - ring))
    assert (along - before).abs().max() < 1e-12
    assert (across - before).abs().max() > 1e-8
    found = tinv.verify(model, IMAGES)
    assert found.holds
    assert found.sizes[0].of("circular")[ring].unit == unit


def test_circular_along_the_width_is_what_its_word_says():
    mixed, word = PaddingPolicy("same", ("zeros", "circular")), "same_circular_width"
    assert str(mixed) == word
    made = [tinv.convert(network(True), given, "aps", example_input=IMAGES) for given in (mixed, word)]
    assert torch.equal(made[0](IMAGES), made[1](IMAGES))
    clip = torch.zeros(1, 3, 4, 8, 8)
    convs = nn.Sequential(nn.Conv3d(3, 2, 3, 2, 1), nn.ReLU(), nn.Conv3d(2, 2, 3, padding=1))
    made = [tinv.convert(convs, given, example_input=clip) for given in (mixed, word)]
    clip = torch.randn(1, 3, 4, 8, 8)
    assert torch.equal(made[0](clip), made[1](clip))


def test_names_are_stable_and_read_back():
    for modes, name in (
        (("zeros", "circular"), "same_circular_width"),
        (("circular", "zeros"), "same_circular+zeros"),
        (("circular", "circular"), "same_circular"),
        (("circular",), "same_circular"),
        (("reflect", "zeros", "circular"), "same_reflect+zeros+circular"),
    ):
        policy = PaddingPolicy("same", modes)
        assert policy.name == name
        assert padding_policy(name).name == name
        assert padding_policy(
            {"class_path": "tinv.PaddingPolicy", "init_args": {"amount": "same", "mode": [*modes]}}
        ) == (policy)
        assert hash(policy) == hash(PaddingPolicy("same", list(modes)))
    assert PaddingPolicy("full", ("zeros", "circular")).name == "full_zeros+circular"
    assert padding_policy("full_zeros+circular") == PaddingPolicy("full", ("zeros", "circular"))
    assert "along the axes that are wrapped around" in padding_policy("same_circular+zeros").card.exact
    assert padding_policy("same_reflect+zeros").card.exact == "never"


REPEATS = ["circular", "reflect", "replicate", "symmetric"]


@pytest.mark.parametrize("subsampling", ["keep", "aps"])
@pytest.mark.parametrize("other", REPEATS)
def test_background_of_one_axis_is_exact_along_it_beside_a_mode_that_repeats_the_map(other, subsampling):
    for axis, modes in enumerate([("background", other), (other, "background")]):
        policy, images = PaddingPolicy("full", modes), IMAGES.float()
        converted = tinv.convert(blank_gives_numbers(), policy, subsampling, pool="full", example_input=images)
        claims = analyze(converted, images).verdict.zero_canvas
        assert str(claims[axis]).startswith("every shift" if subsampling == "aps" else "multiples of 4")
        assert "repeats content at the border" in str(claims[1 - axis])
        assert tinv.verify(converted, images).holds
        assert "zero canvas along the axes of background" in policy.card.exact


@pytest.mark.parametrize("amount", ["same", "full"])
def test_background_beside_zeros_claims_nothing_on_a_canvas(amount):
    policy = PaddingPolicy(amount, ("background", "zeros"))
    converted = tinv.convert(blank_gives_numbers(), policy, pool=amount, example_input=IMAGES.float())
    assert all(str(claim).startswith("none") for claim in analyze(converted, IMAGES.float()).verdict.zero_canvas)
    assert tinv.verify(converted, IMAGES.float()).holds
    assert policy.card.exact == "never"


def test_a_border_that_is_content_later_is_no_uniform_blank():
    """Zeros around a map of another blank value, a rectifier between them and the layer whose border is background."""
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ZeroPad2d((1, 1, 0, 0)), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)]
    torch.manual_seed(0)
    model = nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1)).eval()
    converted = tinv.convert(model, "full_background", example_input=IMAGES.float(), partial=True)
    along_height = analyze(converted, IMAGES.float()).verdict.zero_canvas[0]
    assert "a blank image gives different values from position to position" in str(along_height)
    assert tinv.verify(converted, IMAGES.float()).holds


def test_background_without_its_values_is_refused():
    for mode in ("background", ("background", "circular")):
        with pytest.raises(TinvError, match="padding mode background needs the response to an image of zeros"):
            PaddedConv2d(3, 3, 3, padding_mode=mode)(IMAGES.float())


def test_every_axis_alike_is_the_plain_mode():
    images = torch.zeros(1, 3, 8, 8)
    made = [
        tinv.convert(network(True).float(), given, "blur3", example_input=images)
        for given in ("same_circular", PaddingPolicy("same", ("circular", "circular")))
    ]
    assert torch.equal(*(model(IMAGES.float()) for model in made))


@pytest.mark.parametrize("mode", ["partial", "random", "circular_width"])
def test_what_cannot_be_mixed_is_refused_by_name(mode):
    ones = "zeros, circular, reflect, replicate, symmetric, background"
    text = f"padding mode '{mode}' treats all axes alike; one axis can have {ones}"
    for make in (
        lambda: PaddingPolicy("same", ("zeros", mode)),
        lambda: PaddedConv2d(3, 3, 3, padding_mode=(mode, "zeros")),
    ):
        with pytest.raises(TinvError) as error:
            make()
        assert str(error.value) == text
    with pytest.raises(TinvError, match=r"unknown padding mode of one axis 'circle'.*did you mean circular"):
        padding_policy("same_zeros+circle")
    with pytest.raises(TinvError, match=r"unknown padding mode of one axis 'numpy\.pad'"):
        PaddingPolicy("same", ("zeros", "numpy.pad"))


def test_modes_have_to_be_as_many_as_axes():
    policy, clips = PaddingPolicy("same", ("reflect", "zeros", "circular")), torch.zeros(1, 3, 4, 8, 8)
    conv = nn.Sequential(nn.Conv3d(3, 4, 3, padding=1))
    with pytest.raises(TinvError, match=r"has 3 modes.*treat 2 axes of this network \(height, width\).*space\+time"):
        tinv.convert(conv, policy, example_input=clips)
    assert tinv.convert(conv, policy, axes="space+time", example_input=clips)(clips).shape == (1, 4, 4, 8, 8)
    with pytest.raises(TinvError, match=r"has 2 modes.*treat 3 axes of this network \(time, height, width\)"):
        tinv.convert(conv, PaddingPolicy("same", ("zeros", "reflect")), axes="space+time", example_input=clips)
    signal = nn.Sequential(nn.Conv1d(3, 4, 3, padding=1))
    with pytest.raises(TinvError, match=r"has 2 modes.*treat 1 axis of this network \(length\)"):
        tinv.convert(signal, PaddingPolicy("same", ("zeros", "reflect")), example_input=torch.zeros(1, 3, 9))
    with pytest.raises(
        TinvError, match="padding mode zeros\\+circular is of 2 spatial axes, but the map has 1 spatial axis"
    ):
        PaddedConv1d(3, 4, 3, padding_mode=("zeros", "circular"))
    with pytest.raises(TinvError, match="is of 2 spatial axes, but the map has 3 spatial axes"):
        Pool("max", 3, 2, "same", padding_mode=("zeros", "circular"))(clips)


def test_time_that_is_left_alone_keeps_its_own_padding():
    torch.manual_seed(0)
    conv = nn.Conv3d(3, 4, 3, padding=1).double()
    clip = torch.randn(1, 3, 4, 8, 8, dtype=torch.double)
    made = tinv.convert(nn.Sequential(conv), PaddingPolicy("same", ("reflect", "circular")), example_input=clip)
    by_hand = padded_by_numpy(clip, [(1, 1)] * 3, ("zeros", "reflect", "circular"))
    assert torch.allclose(made(clip), nn.functional.conv3d(by_hand, conv.weight, conv.bias), atol=1e-13)


def test_a_backbone_takes_it_from_a_configuration():
    given = {
        "class_path": "tinv.policies.padding.PaddingPolicy",
        "init_args": {"amount": "same", "mode": ["zeros", "reflect"]},
    }
    made = [
        tinv.create_backbone("red_green_net", num_classes=2, padding=padding)
        for padding in (given, "same_zeros+reflect", PaddingPolicy("same", ("zeros", "reflect")))
    ]
    assert [str(model.conversion.policy.padding) for model in made] == ["same_zeros+reflect"] * 3
