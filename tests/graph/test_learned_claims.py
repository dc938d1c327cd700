"""What the cards of lps, tips and adaptive_blur claim, on converted networks in float64."""

import copy

import pytest
import torch
from surgery.residual import narrow_resnet18
from torch import nn

from tinv import convert
from tinv.graph.analysis import analyze

IMAGES = torch.randn(2, 3, 32, 32, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def network(bias: bool = True) -> nn.Module:
    """Two strided convolutions and a pooled head; total stride 4."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1, bias=bias), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1, bias=bias), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, padding=1, bias=bias), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


def made(padding: str, subsampling: str, images: torch.Tensor = IMAGES, model: nn.Module | None = None) -> nn.Module:
    model = (network() if model is None else model).double().eval()
    return convert(model, padding, subsampling, stem="convert", example_input=images)


@torch.no_grad()
def change(model: nn.Module, by: int, images: torch.Tensor = IMAGES) -> float:
    before = model(images)
    return float((model(images.roll((by, -3 * by), (2, 3))) - before).abs().max() / before.abs().max())


def units(model: nn.Module, images: torch.Tensor = IMAGES) -> list[int | None]:
    found = analyze(model, images).verdict
    return [shifts.unit for shifts in (*found.circular, *found.zero_canvas)]


@pytest.mark.parametrize("build", [network, narrow_resnet18])
def test_lps_is_exact_for_every_circular_shift_before_and_after_a_step_of_training(build):
    model = made("same_circular", "lps", model=build())
    for trained in (False, True):
        if trained:
            optimizer = torch.optim.SGD(model.parameters(), 0.1)
            model.train()(IMAGES).square().sum().backward()
            before = copy.deepcopy(model.state_dict())
            optimizer.step()
            moved = [key for key, value in model.state_dict().items() if not torch.equal(before[key], value)]
            assert any("sampler.hidden_conv.weight" in key for key in moved)
            model.eval()
        assert units(model) == [1] * 4
        assert max(change(model, by) for by in (1, 2, 3, 5, 8)) < 1e-12


@pytest.mark.filterwarnings("ignore:.*not a multiple of its stride")
@pytest.mark.parametrize("size", [30, 31])
def test_lps_claims_nothing_where_the_stride_does_not_divide(size):
    images = torch.randn(2, 3, size, size, dtype=torch.double)
    model = made("same_circular", "lps", images)
    assert units(model, images) == [None] * 4
    assert "not a multiple of its stride 2" in str(analyze(model, images).verdict)
    assert change(model, 1, images) > 1e-6


def test_lps_under_zero_padding_is_not_exact():
    model = made("same_zero", "lps")
    assert units(model) == [None] * 4
    assert change(model, 1) > 1e-6


def on_canvas(by: int) -> torch.Tensor:
    canvas = torch.zeros(1, 3, 40, 40, dtype=torch.double)
    canvas[..., 8 + by : 16 + by, 8:16] = IMAGES[:1, :, :8, :8]
    return canvas


@pytest.mark.parametrize(("subsampling", "unit"), [("lps", 1), ("adaptive_blur", 4)])
@torch.no_grad()
def test_content_moves_on_a_zero_canvas_under_full_background(subsampling, unit):
    layers = network()[:-2].append(nn.Flatten(2))
    pooled = nn.Sequential(layers, nn.AdaptiveMaxPool1d(1), nn.Flatten())
    model = made("full_background", subsampling, on_canvas(0), pooled)
    verdict = analyze(model, on_canvas(0)).verdict.zero_canvas
    assert [shifts.unit for shifts in verdict] == [unit, unit]
    before = model(on_canvas(0))
    moved = [float((model(on_canvas(by)) - before).abs().max() / before.abs().max()) for by in range(1, 9)]
    assert max(error for by, error in enumerate(moved, start=1) if by % unit == 0) < 1e-12
    assert unit == 1 or min(error for by, error in enumerate(moved, start=1) if by % unit) > 1e-8


@pytest.mark.parametrize("padding", ["same_circular", "full_background", "same_zero"])
def test_tips_claims_nothing_and_follows_nothing(padding):
    model = made(padding, "tips")
    found = analyze(model, IMAGES).verdict
    assert [shifts.unit for shifts in (*found.circular, *found.zero_canvas)] == [None] * 4
    assert padding != "same_circular" or "averages over parts of the map" in str(found)
    # multiples of the total stride as well
    assert min(change(model, by) for by in (1, 2, 4)) > 1e-7


def test_adaptive_blur_is_exact_for_multiples_of_the_total_stride_alone():
    model = made("same_circular", "adaptive_blur")
    assert units(model) == [4] * 4
    assert max(change(model, by) for by in (4, 12)) < 1e-12
    assert min(change(model, by) for by in (1, 2)) > 1e-6
    assert units(made("same_zero", "adaptive_blur")) == [None] * 4


def test_adaptive_blur_claims_nothing_where_the_stride_does_not_divide():
    images = torch.randn(1, 3, 30, 30, dtype=torch.double)
    model = made("same_circular", "adaptive_blur", images)
    assert units(model, images) == [None] * 4
    assert change(model, 4, images) > 1e-8


def test_one_axis_at_a_time():
    model = made("same_circular_width", "lps")
    found = analyze(model, IMAGES).verdict
    assert [shifts.unit for shifts in found.circular] == [None, 1]
    with torch.no_grad():
        assert (model(IMAGES.roll(3, 3)) - model(IMAGES)).abs().max() < 1e-12


@pytest.mark.parametrize(("subsampling", "unit"), [("lps", 1), ("adaptive_blur", 4)])
@pytest.mark.parametrize("axes", [1, 3])
@torch.no_grad()
def test_claims_hold_on_signals_and_clips(axes, subsampling, unit):
    torch.manual_seed(0)
    conv, pool = ((nn.Conv1d, nn.AdaptiveAvgPool1d), None, (nn.Conv3d, nn.AdaptiveAvgPool3d))[axes - 1]
    model = (
        nn.Sequential(conv(2, 4, 3, 2, 1), nn.ReLU(), conv(4, 4, 3, 2, 1), nn.ReLU(), pool(1), nn.Flatten())
        .double()
        .eval()
    )
    images = torch.randn(2, 2, *(8,) * (axes - 1), 16, dtype=torch.double)
    model = convert(model, "same_circular", subsampling, stem="convert", axes="space+time", example_input=images)
    assert units(model, images)[:axes] == [unit] * axes
    before = model(images)
    for axis in range(axes):
        assert (model(images.roll(unit, 2 + axis)) - before).abs().max() < 1e-12
        assert unit == 1 or (model(images.roll(1, 2 + axis)) - before).abs().max() > 1e-8
