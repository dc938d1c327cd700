"""What the cards of subsampling and padding policies claim, on converted networks in float64."""

import torch
from torch import nn

from tinv import convert
from tinv.graph.analysis import analyze

IMAGES = torch.randn(2, 3, 32, 32, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def network(pool: bool = False) -> nn.Module:
    """Two strided convolutions and a pooled head; total stride 4."""
    torch.manual_seed(0)
    middle = [nn.MaxPool2d(3, 2, 1)] if pool else [nn.Conv2d(8, 8, 3, 2, 1), nn.GELU()]
    first = [nn.Conv2d(3, 8, 3, 2, 1), nn.GELU()]
    return (
        nn.Sequential(*first, *middle, nn.Conv2d(8, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        .double()
        .eval()
    )


def made(padding: str, subsampling: str, images: torch.Tensor = IMAGES, **options) -> nn.Module:
    return convert(network(**options), padding, subsampling, stem="convert", example_input=images)


@torch.no_grad()
def change(model: nn.Module, by: int, images: torch.Tensor = IMAGES) -> float:
    before = model(images)
    return float((model(images.roll((by, -by), (2, 3))) - before).abs().max() / before.abs().max())


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
