"""`tinv.verify`: claims are tried on maps, false ones are found, and the layer that breaks a shift is named."""

import contextlib
import json

import pytest
import torch
from random_networks import Maker
from test_referee import SIZES
from torch import nn
from torch.nn import functional as F

import tinv
from tinv.cli.inspect import inspect
from tinv.errors import TinvError
from tinv.graph.moved_maps import fourier_shift
from tinv.graph.random_statistics import with_random_statistics
from tinv.nn import AdaptivePolyphaseSampling, FLCPooling, IdealSubsampling
from tinv.nn.subsampling import Subsampler

IMAGES = torch.zeros(1, 3, 16, 16)


def network(activation: bool = True, head: bool = True) -> nn.Sequential:
    """Two strided convolutions, batch norm, and a pooled head if asked for; total stride 4."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, padding=1)]
    if activation:
        layers = [layers[0], layers[1], nn.ReLU(), layers[2], nn.ReLU(), layers[3], nn.ReLU()]
    return nn.Sequential(*layers, *([nn.AdaptiveAvgPool2d(1), nn.Flatten()] if head else []))


def made(padding: str, subsampling: str = "keep", images: torch.Tensor = IMAGES, **options) -> nn.Module:
    pool = "full" if padding.startswith("full") else "keep"
    model = network(**options)
    return tinv.convert(model, padding, subsampling, pool=pool, stem="convert", example_input=images)


def units(found: tinv.Verification, kind: str) -> list[int | None]:
    return [one.unit for one in found.sizes[0].of(kind)]


def test_what_holds_is_measured_at_three_sizes_and_the_network_is_left_as_it_is():
    model = made("same_circular", "aps").train()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    found = tinv.verify(model, IMAGES)
    assert found.holds
    assert not found.failures
    assert [size.size for size in found.sizes] == [(16, 16), (17, 19), (18, 16)]
    assert units(found, "circular") == units(found, "zero_canvas") == [1, 1]
    assert found.sizes[0].of("circular")[0].tried == (1, 2, 3, 4, 8)
    assert found.sizes[0].of("circular")[0].exact_error < 1e-12
    # odd: the stride does not divide; 18 = 2 * 9 breaks along the height alone
    assert [one.unit for one in found.sizes[1].of("circular")] == [None, None]
    assert found.sizes[1].of("circular")[0].because == "0 + aps: 17 positions are not a multiple of its stride 2"
    assert [one.unit for one in found.sizes[2].of("circular")] == [None, 1]
    assert model.training
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())


@pytest.mark.parametrize(("padding", "subsampling"), [("same_circular", "keep"), ("same_circular", "blur3")])
def test_multiples_are_those_of_an_independent_loop_over_shifts(padding, subsampling):
    model = made(padding, subsampling)
    found = tinv.verify(model, IMAGES)
    exact = with_random_statistics(model)
    image = torch.randn(1, 3, 16, 16, dtype=torch.double)
    with torch.no_grad():
        change = [float((exact(image.roll(by, 2)) - exact(image)).abs().max()) for by in range(1, 9)]
    assert [by for by, error in enumerate(change, start=1) if error < 1e-12] == [4, 8]
    assert units(found, "circular") == [4, 4]
    assert found.sizes[0].of("circular")[0].because.endswith("stride 2")


@pytest.mark.parametrize(
    ("kind", "padding", "subsampling"),
    [("circular", "same_circular", "aps"), ("zero_canvas", "full_background", "keep")],
)
def test_maps_are_compared_after_they_have_moved(kind, padding, subsampling):
    found = tinv.verify(made(padding, subsampling, head=False), IMAGES)
    # a map chosen among phases moves by whole positions for multiples of the stride alone
    assert found.holds
    assert units(found, kind) == [4, 4]


def test_a_claim_that_rests_on_zero_biases_is_tried_with_them():
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.Conv2d(6, 6, 3, 1, 1, bias=False)
    plain = nn.Sequential(first, nn.BatchNorm2d(6), nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    for biased in (False, True):
        nn.init.constant_(plain[1].bias, 0.3 * biased)
        model = tinv.convert(plain, "full_zero", pool="full", stem="convert", example_input=IMAGES)
        [height, _] = tinv.verify(model, IMAGES).sizes[0].of("zero_canvas")
        assert height.claim.unit == height.unit == (None if biased else 2)
        assert height.statistics == ("random" if biased else "own")


# claims that are false on purpose


class Quadrants(Subsampler):
    """Keeps the phase that a pool over quadrants says, and claims what it does not do."""

    exact = frozenset({"circular", "zero_canvas"})

    def __init__(self) -> None:
        super().__init__()
        self.stride = 2
        self.pool = nn.AdaptiveAvgPool2d(2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        phases = torch.stack([images[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)
        weights = self.pool(images).flatten(2).softmax(-1).movedim(1, 2)
        return (phases * weights[..., None, None]).sum(1)


def circular(middle: nn.Module, *behind: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular")
    return nn.Sequential(first, nn.ReLU(), middle, *behind, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def ring(channels: int = 6) -> nn.Module:
    return nn.Conv2d(channels, channels, 3, padding=1, padding_mode="circular")


def test_a_layer_that_claims_to_follow_and_pools_quadrants_is_found():
    found = tinv.verify(circular(Quadrants(), nn.ReLU(), ring()), IMAGES)
    assert not found.holds
    [height, _] = found.sizes[0].of("circular")
    assert height.claim.unit == 2
    assert height.unit is None
    assert height.error > 1e-3
    assert height.because == "2: chooses by pooled blocks (quadrants) of its map, which stay where they are"
    assert "circular shifts along height, width on 16x16 images: claimed multiples of 2" in found.failures[0]
    assert "does not hold" in str(found)


def test_a_crop_off_the_centre_is_found_when_the_verdict_is_made_to_claim_it(monkeypatch):
    images = torch.zeros(1, 3, 14, 14)
    model = circular(FLCPooling(2), nn.ReLU(), ring())
    honest = tinv.verify(model, images)
    assert honest.holds
    [height, _] = honest.sizes[0].of("circular")
    assert (height.claim.unit, height.unit) == (None, None)
    assert height.because == "2: crops the frequencies of 14 positions off their centre"
    monkeypatch.setattr("tinv.graph.border.Subsampler.circular_problem", lambda *_: "")
    monkeypatch.delattr(FLCPooling, "circular_problem")
    found = tinv.verify(model, images)
    assert not found.holds
    assert found.sizes[0].of("circular")[0].claim.unit == 2


def test_content_that_spreads_over_a_canvas_is_found_when_the_verdict_is_made_to_claim_it(monkeypatch):
    torch.manual_seed(0)
    # without its own border the layer could pass for one that follows, since content is rolled
    behind = nn.Conv2d(6, 6, 3, bias=False)
    model = nn.Sequential(nn.Conv2d(3, 6, 1, bias=False), IdealSubsampling(2), behind, nn.AdaptiveAvgPool2d(1))
    assert tinv.verify(model, IMAGES).sizes[0].of("zero_canvas")[0].unit is None
    monkeypatch.setattr(IdealSubsampling, "exact", frozenset({"circular", "zero_canvas"}))
    monkeypatch.setattr("tinv.graph.state.Case.moves_content", lambda *_: None)
    found = tinv.verify(model, IMAGES)
    assert not found.holds
    assert found.sizes[0].of("zero_canvas")[0].because == "2: loses positions at the border"


class SaysTwo(AdaptivePolyphaseSampling):
    """Compares largest magnitudes, as the verdict cannot see."""

    def choose(self, components: torch.Tensor) -> torch.Tensor:
        return components.flatten(2).abs().amax(2).argmax(1)


def test_ties_of_largest_magnitudes_are_found():
    def pooled(layer: nn.Module) -> nn.Module:
        wraps = nn.CircularPad2d((0, 1, 0, 1))
        return circular(nn.Sequential(wraps, nn.MaxPool2d(2, 1), layer), ring(), nn.ReLU())

    honest = tinv.verify(pooled(AdaptivePolyphaseSampling(2, padding_mode="circular", norm="inf")), IMAGES)
    assert honest.holds
    assert units(honest, "circular") == [2, 2]
    assert honest.sizes[0].of("circular")[0].reason.startswith("ties: several polyphase components")
    found = tinv.verify(pooled(SaysTwo(2, padding_mode="circular")), IMAGES)
    assert not found.holds
    assert found.sizes[0].of("circular")[0].claim.unit == 1


def test_parts_of_a_position_are_broken_by_the_activation_and_not_by_ideal_subsampling():
    found = tinv.verify(made("same_circular", "ideal"), IMAGES)
    [height, _] = found.sizes[0].of("circular")
    assert found.holds
    assert height.unit == 4
    assert height.layer == "4"
    assert "moved by 1/2 positions, and it does not follow parts of a position" in height.reason
    linear = tinv.verify(made("same_circular", "ideal", activation=False), IMAGES)
    assert units(linear, "circular") == [1, 1]
    assert linear.sizes[0].of("circular")[0].outcome == "holds"  # the verdict claims every shift


def test_a_crop_of_the_spectrum_that_keeps_one_side_of_nyquist_is_to_blame():
    found = tinv.verify(circular(FLCPooling(2), nn.ReLU(), ring()), IMAGES)
    [height, _] = found.sizes[0].of("circular")
    assert height.unit == 2
    assert height.layer == "2"
    assert "one side of the Nyquist frequency" in height.reason


def test_uneven_padding_is_named_where_the_window_of_a_stride_stops_before_the_border():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1, padding_mode="circular"), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    [height, width] = tinv.verify(model, torch.zeros(1, 3, 15, 16)).sizes[0].of("circular")
    assert height.because == "0: 15 positions are not a multiple of its stride 2"
    assert width.unit == 2
    zeros = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    [height, width] = tinv.verify(zeros, torch.zeros(1, 3, 15, 16)).sizes[0].of("circular")
    assert height.because == "0: pads with zeros"
    assert width.because == "0: pads with zeros; uneven padding, its windows leave out 1 of 2 at the end"


def test_a_layer_whose_error_a_later_one_takes_back_is_not_to_blame():
    torch.manual_seed(0)

    class Turned(nn.Module):
        def forward(self, images):
            return images.flip(3).cumsum(3).diff(dim=3, prepend=torch.zeros_like(images[..., :1])).flip(3)

    conv = nn.Conv2d(3, 4, 3, 2, 1, padding_mode="circular")
    found = tinv.verify(nn.Sequential(Turned(), conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1)), IMAGES)
    [_, width] = found.sizes[0].of("circular")
    assert width.claim.unit is None
    assert (width.unit, width.layer, width.reason) == (2, "1", "stride 2")


def test_an_output_that_says_nothing_of_the_image_and_a_size_that_cannot_be_run_are_said():
    with pytest.raises(TinvError, match="hardly depends on the image"):
        tinv.verify(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Threshold(1e9, 0.0)), IMAGES)
    fixed = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.Flatten(), nn.Linear(2 * 256, 3))
    found = tinv.verify(fixed, IMAGES)
    assert found.holds
    assert [size.note.partition(":")[0] for size in found.sizes] == ["", "not tried", "not tried"]
    assert found.sizes[0].of("circular")[0].layer in ("0", "2")


@pytest.mark.parametrize("size", [7, 8])
def test_a_shift_in_frequencies_is_that_of_the_polynomial_through_the_values(size):
    values = torch.randn(2, size, dtype=torch.double)
    assert torch.allclose(fourier_shift(values, 1, 3), values.roll(3, 1), atol=1e-12)
    positions = torch.arange(size, dtype=torch.double)
    wave = torch.cos(2 * torch.pi * 2 * positions / size + 0.4)
    moved = torch.cos(2 * torch.pi * 2 * (positions - 0.3) / size + 0.4)
    assert torch.allclose(fourier_shift(wave, 0, 0.3), moved, atol=1e-12)


def test_clips_and_signals_have_a_line_for_every_axis():
    torch.manual_seed(0)
    clip = nn.Sequential(nn.Conv3d(2, 3, 3, (1, 2, 2), 1), nn.ReLU(), nn.AdaptiveAvgPool3d(1))
    model = tinv.convert(
        clip, "same_circular", axes="space+time", stem="convert", example_input=torch.zeros(1, 2, 4, 8, 8)
    )
    assert units(tinv.verify(model, torch.zeros(1, 2, 4, 8, 8)), "circular") == [1, 2, 2]
    signal = nn.Sequential(nn.Conv1d(2, 3, 3, 2, 1, padding_mode="circular"), nn.ReLU(), nn.AdaptiveAvgPool1d(1))
    found = tinv.verify(signal, torch.zeros(1, 2, 16))
    assert units(found, "circular") == [2]
    assert "length" in str(found)


def test_the_command_prints_claims_and_fails_where_one_does_not_hold(capsys, monkeypatch):
    words = ["red_green_net", "--source", "tinv", "--padding", "same_circular", "--subsampling", "aps", "--verify"]
    assert inspect([*words, "--input-size", "16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["verification"]
    assert found["holds"]
    assert [one["unit"] for one in found["sizes"][0]["measured"]] == [1, 1, 1, 1]
    assert inspect([*words, "--input-size", "16"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "tried on 16x16 images: circular 1-8" in said
    assert "every claim of the verdict holds" in said
    # the first component is no choice
    monkeypatch.setattr(AdaptivePolyphaseSampling, "choose", lambda self, c: torch.zeros(len(c), dtype=torch.long))
    assert inspect([*words, "--input-size", "16"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "does not hold: circular shifts along height, width on 16x16 images: claimed every shift" in said


def test_a_reference_of_rolled_logits_agrees_on_a_plain_network():
    """No graph, no hooks: `torch.nn.functional` on rolled images, at the two errors that are reported."""
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.double)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1)).double()
    model[0].weight.data.copy_(weight)
    image = torch.randn(1, 3, 12, 12, dtype=torch.double)
    [height, _] = tinv.verify(model, image).sizes[0].of("circular")

    def slow(x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, weight, stride=2).relu().mean((2, 3))

    random = torch.Generator().manual_seed(0)
    other = [torch.randn(image.shape, generator=random, dtype=torch.double) for _ in range(2)][1]
    scale = float((slow(image) - (slow(image) + slow(other)) / 2).abs().max())
    moves = {x: [float((slow(x.roll(p, 2)) - slow(x)).abs().max()) for p in height.tried] for x in (image,)}
    assert height.unit is None
    assert height.error >= max(moves[image]) / scale - 1e-12
    first = float((slow(other.roll(1, 2)) - slow(other)).abs().max())
    last = float((slow(other.roll(2, 2)) - slow(other)).abs().max())
    assert height.error == pytest.approx(max(*moves[image], first, last) / scale, rel=1e-9)


@pytest.mark.slow
def test_no_claim_on_random_networks_fails():
    tried = 0
    for seed in range(12):
        size = SIZES[seed % len(SIZES)]
        plain, images = Maker(seed).network(size), torch.zeros(1, 3, *size)
        with contextlib.suppress(TinvError):  # layers that take no policy, and outputs that hardly depend on the image
            model = tinv.convert(plain, "same_circular", "aps", stem="convert", example_input=images)
            found = tinv.verify(model, images)
            assert found.holds, found.failures
            tried += sum(one.claim.unit is not None for one in found.sizes[0].measured)
    assert tried > 5
