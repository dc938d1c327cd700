"""What the cards of subsampling and padding policies claim, on converted networks in float64."""

import pytest
import timm
import torch
from torch import nn

from tinv import convert
from tinv.errors import TinvError
from tinv.graph.analysis import analyze

IMAGES = torch.randn(2, 3, 32, 32, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def network(pool: bool = False) -> nn.Module:
    """Two strided convolutions and a pooled head; total stride 4."""
    torch.manual_seed(0)
    middle = [nn.MaxPool2d(3, 2, 1)] if pool else [nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()]
    first = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()]
    return (
        nn.Sequential(*first, *middle, nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        .double()
        .eval()
    )


def made(padding: str, subsampling: str, images: torch.Tensor = IMAGES, **options) -> nn.Module:
    return convert(network(**options), padding, subsampling, stem="convert", example_input=images)


@torch.no_grad()
def change(model: nn.Module, by: int, images: torch.Tensor = IMAGES) -> float:
    before = model(images)
    return float((model(images.roll((by, -3 * by), (2, 3))) - before).abs().max() / before.abs().max())


def units(model: nn.Module, images: torch.Tensor = IMAGES) -> list[int | None]:
    return [shifts.unit for shifts in analyze(model, images).verdict.circular]


def test_aps_is_exact_for_every_circular_shift_under_the_sum_of_magnitudes():
    model = made("same_circular", "aps_l1")
    assert units(model) == [1, 1]
    assert max(change(model, by) for by in (1, 3, 6)) < 1e-12


def test_largest_magnitudes_tie_after_a_max_pool_and_the_verdict_does_not_count_on_them():
    model = made("same_circular", "aps_linf", pool=True)
    found = analyze(model, IMAGES).verdict
    assert [shifts.unit for shifts in (*found.circular, *found.zero_canvas)] == [4] * 4
    assert "largest magnitudes may tie" in str(found)
    assert max(change(model, by) for by in (4, 8)) < 1e-12
    assert change(model, 2) > 1e-3
    # another norm on the same network tells the components apart
    assert change(made("same_circular", "aps_l1", pool=True), 2) < 1e-12


def test_ideal_subsampling_is_exact_for_multiples_of_the_total_stride_alone():
    model = made("same_circular", "ideal")
    found = analyze(model, IMAGES).verdict
    assert [shifts.unit for shifts in (*found.circular, *found.zero_canvas)] == [4] * 4
    assert "parts of a position" in str(found)
    assert max(change(model, by) for by in (4, 12)) < 1e-12
    assert min(change(model, by) for by in (1, 2)) > 1e-8


def test_ideal_subsampling_without_activations_is_exact_for_every_shift():
    linear = nn.Sequential(*(layer for layer in network() if not isinstance(layer, nn.ReLU)))
    model = convert(linear, "same_circular", "ideal", stem="convert", example_input=IMAGES)
    assert max(change(model, by) for by in (1, 2, 4)) < 1e-12


@pytest.mark.parametrize("size", [30, 33])
def test_ideal_subsampling_claims_nothing_where_the_stride_does_not_divide(size):
    images = IMAGES[..., :size, :size] if size < 32 else torch.randn(1, 3, size, size, dtype=torch.double)
    model = made("same_circular", "ideal", images)
    assert units(model, images) == [None, None]
    assert "not a multiple of its stride 2" in str(analyze(model, images).verdict)
    assert change(model, 4, images) > 1e-8


@pytest.mark.parametrize("padding", ["full_background", "full_zero", "same_zero"])
def test_ideal_subsampling_spreads_content_over_the_canvas(padding):
    model = made(padding, "ideal")
    found = analyze(model, IMAGES).verdict
    assert [shifts.unit for shifts in found.zero_canvas] == [None, None]


def test_ideal_subsampling_sees_the_whole_map():
    found = analyze(made("same_circular", "ideal"), IMAGES)
    assert all(grid.receptive_field >= 32 for grid in found.last_map.grid)


@pytest.mark.slow
@pytest.mark.parametrize("subsampling", ["aps_linf", "ideal", "asap"])
@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "mobilenetv2_100"])
def test_policies_convert_real_networks_which_learn_and_run_in_half_precision(name, subsampling):
    original = timm.create_model(name, num_classes=3)
    images = torch.randn(2, 3, 64, 64)
    model = convert(original, "same_circular", subsampling, stem="convert", example_input=images)
    assert list(model.state_dict()) == list(original.state_dict())
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    model(images).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    optimizer.step()
    model = model.eval().to(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(images.contiguous(memory_format=torch.channels_last)).isfinite().all()


@pytest.mark.parametrize("subsampling", ["flc", "asap"])
def test_crops_of_the_spectrum_are_exact_for_multiples_of_the_total_stride(subsampling):
    model = made("same_circular", subsampling)
    assert units(model) == [4, 4]
    assert change(model, 4) < 1e-12
    assert min(change(model, by) for by in (1, 2)) > 1e-8


@pytest.mark.parametrize("subsampling", ["flc", "asap"])
def test_crops_off_the_centre_are_never_called_exact(subsampling):
    images = torch.randn(1, 3, 28, 28, dtype=torch.double)
    # 28 to 14, which is centred, and 14 to 7, which is not
    model = made("same_circular", subsampling, images)
    found = analyze(model, images).verdict.circular[0]
    assert found.unit is None
    assert "crops the frequencies of 14 positions off their centre" in found.reason
    assert change(model, 4, images) > 1e-4


@pytest.mark.parametrize("subsampling", ["ideal", "flc", "asap"])
def test_a_blank_canvas_stays_blank_to_its_edge(subsampling):
    layers = network()[:5]
    model = convert(layers, "same_background", subsampling, stem="convert", example_input=IMAGES)
    with torch.no_grad():
        answer = model(torch.zeros_like(IMAGES))
    assert answer.abs().min() > 1e-4
    assert (answer - answer[..., :1, :1]).abs().max() < 1e-12
    assert analyze(model, IMAGES).verdict.zero_canvas[0].unit is None


def test_symmetric_padding_repeats_content_and_is_never_called_exact():
    model = made("same_symmetric", "keep")
    found = analyze(model, IMAGES).verdict
    assert [shifts.unit for shifts in (*found.circular, *found.zero_canvas)] == [None] * 4
    assert "symmetric padding repeats content at the border" in str(found)
    assert change(model, 4) > 1e-8
    # it follows a mirror, as reflect padding does
    mirrored = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)).double()
    mirrored[0].weight.data.fill_(1.0)
    padded = convert(mirrored, "same_symmetric", example_input=IMAGES)
    with torch.no_grad():
        torch.testing.assert_close(padded(IMAGES.flip(3)), padded(IMAGES).flip(3))


@pytest.mark.parametrize(("subsampling", "unit"), [("keep", 4), ("aps", 1)])
@pytest.mark.parametrize("pool", [False, True])
def test_padding_along_the_width_is_exact_along_the_width_alone(subsampling, unit, pool):
    model = made("same_circular_width", subsampling, pool=pool)
    found = analyze(model, IMAGES).verdict
    assert [shifts.unit for shifts in found.circular] == [None, unit]
    with torch.no_grad():
        before = model(IMAGES)
        along, across = (model(IMAGES.roll(3 * unit, axis)) for axis in (3, 2))
    assert (along - before).abs().max() < 1e-12
    assert (across - before).abs().max() > 1e-8


@pytest.mark.parametrize("padding", ["same_partial", "same_random"])
@pytest.mark.parametrize("subsampling", ["keep", "blur3"])
def test_padding_by_the_layer_is_never_called_exact(padding, subsampling):
    original = network()
    model = convert(original, padding, subsampling, stem="convert", example_input=IMAGES)
    found = analyze(model, IMAGES).verdict
    assert [shifts.unit for shifts in (*found.circular, *found.zero_canvas)] == [None] * 4
    assert change(model, 4) > 1e-8
    assert list(model.state_dict()) == list(original.state_dict())
    zeros = convert(original, "same_zero", subsampling, stem="convert", example_input=IMAGES)
    with torch.no_grad():
        assert torch.equal(model(IMAGES), zeros(IMAGES)) == (padding == "same_random")
        assert not torch.equal(model.train()(IMAGES), zeros(IMAGES))


def test_partial_padding_weighs_content_at_the_border_of_a_zero_canvas():
    model = convert(network(), "same_partial", stem="convert", example_input=IMAGES)
    assert "weighs positions by how much of the map they see" in str(analyze(model, IMAGES).verdict)


def test_partial_padding_of_a_layer_that_is_no_plain_convolution_is_one_clear_line():
    class Standardized(nn.Conv2d):
        def forward(self, images):
            return self._conv_forward(images, self.weight - self.weight.mean(), self.bias)

    model = nn.Sequential(Standardized(3, 4, 3, padding=1)).double()
    with pytest.raises(TinvError, match="layer 0: Standardized cannot take partial padding"):
        convert(model, "same_partial", example_input=IMAGES)


def test_random_padding_of_space_alone_is_one_clear_line_where_time_is_padded_too():
    clips = torch.zeros(1, 3, 4, 8, 8)
    model = nn.Sequential(nn.Conv3d(3, 4, 3, padding=1))
    with pytest.raises(TinvError, match=r"layer 0: random padding treats all axes .* use axes=space\+time"):
        convert(model, "same_random", example_input=clips)
    assert convert(model, "same_random", axes="space+time", example_input=clips)(clips).shape == (1, 4, 4, 8, 8)
