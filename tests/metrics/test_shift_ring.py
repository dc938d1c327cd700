"""Rings and combs of shifts, against references that run one view at a time."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from tinv.errors import TinvError
from tinv.metrics import ShiftComb, ShiftRing
from tinv.metrics.shift_ring import smallest_ball
from tinv.translation import fourier_shift

COUNT, CLASSES, SIDE = 12, 4, 16


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(1)
    layers = [nn.Conv2d(2, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()]
    built = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)).double().eval()
    with torch.no_grad():
        answers = built(torch.randn(200, 2, SIDE, SIDE, dtype=torch.float64))
        built[-1].weight /= answers.std(dim=0)[:, None]
        built[-1].bias.copy_((built[-1].bias - answers.mean(dim=0)) / answers.std(dim=0))
    return built


def scene(side: int = SIDE + 4) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(2)
    coarse = torch.randn(COUNT, 2, 7, 7, generator=draw, dtype=torch.float64)
    # smooth, so that some answers outlast every shift
    smooth = nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    return smooth + 0.05 * torch.randn(smooth.shape, generator=draw, dtype=torch.float64), torch.arange(COUNT) % CLASSES


def moved(image: torch.Tensor, dx: float, dy: float, mode: str, room: int) -> torch.Tensor:
    """One view (1, C, H, W) of one image, moved right and down."""
    if mode == "fractional":
        return fourier_shift(image[None], torch.tensor([[dx, dy]]))
    if mode == "circular":
        return image.roll((int(dy), int(dx)), (1, 2))[None]
    top, left, side = room - int(dy), room - int(dx), image.shape[-1] - 2 * room
    return image[None, :, top : top + side, left : left + side]


@pytest.mark.parametrize(("mode", "step"), [("crop", 1), ("circular", 1), ("fractional", 0.5)])
def test_a_ring_equals_one_view_at_a_time(network, mode, step):
    images, targets = scene(SIDE + 4 if mode == "crop" else SIDE)
    targets[3] = -1
    ring = ShiftRing(2, step, mode)
    reach = np.arange(-2, 2 + step / 2, step)
    expected: dict[str, list[float]] = {key: [] for key in ("agree", "kept", "acc", "robust", "right", "agree_known")}
    with torch.no_grad():
        still = torch.cat([network(moved(image, 0, 0, mode, 2)) for image in images])
        for part in torch.arange(COUNT).split(5):
            ring.update(network, images[part], still[part], targets[part], part)
        for number, (image, target) in enumerate(zip(images, targets.tolist(), strict=True)):
            first = int(still[number].argmax())
            shifts = [(dx, dy) for dx, dy in itertools.product(reach, reach) if dx or dy]
            found = [int(network(moved(image, dx, dy, mode, 2)).argmax()) for dx, dy in shifts]
            expected["agree"].append(np.mean([answer == first for answer in found]))
            expected["kept"].append(all(answer == first for answer in found))
            if target >= 0:
                expected["acc"].append(np.mean([answer == target for answer in found]))
                expected["robust"].append(first == target and all(answer == target for answer in found))
                expected["right"].append(first == target)
                expected["agree_known"].append(expected["agree"][-1])
    means = {key: float(np.mean(values)) for key, values in expected.items()}
    results = {key: float(value) for key, value in ring.compute().items()}
    assert 0 < means["kept"] < 1
    assert results["ring_consistency"] == pytest.approx(100 * means["agree"])
    assert results["ring_never_changed"] == pytest.approx(100 * means["kept"])
    assert results["ring_acc"] == pytest.approx(100 * means["acc"])
    assert results["ring_robust_acc"] == pytest.approx(100 * means["robust"])
    assert results["ring_degradation"] == pytest.approx(100 * (1 - means["acc"] / means["right"]))
    assert results["ring_fidelity"] == pytest.approx(100 * means["right"] * means["agree_known"])
    curves = ring.arrays()
    assert curves["radius"].tolist() == np.arange(0, 2 + step / 2, step).tolist()
    assert curves["consistency"][0] == curves["never_changed"][0] == 100
    assert curves["robust_acc"][0] == pytest.approx(100 * means["right"])
    assert curves["never_changed"][-1] == pytest.approx(100 * means["kept"])
    assert (np.diff(curves["never_changed"]) <= 0).all()
    assert (np.diff(curves["robust_acc"]) <= 0).all()


def test_the_nearest_neighbour_flips_of_a_reference(network):
    images, targets = scene(SIDE)
    ring = ShiftRing(1, mode="circular")
    with torch.no_grad():
        ring.update(network, images, network(images), targets, torch.arange(COUNT))
    still, other = ring.gathered("still"), ring.gathered("moved")
    flips = []
    for number in range(COUNT):
        others = [k for k in range(COUNT) if k != number]
        nearest = [max(others, key=lambda k: float(torch.cosine_similarity(v, still[k], dim=0)))
                   for v in (still[number], other[number])]  # fmt: skip
        flips.append(nearest[0] != nearest[1])
    assert any(flips)
    assert float(ring.compute()["ring_neighbour_flips"]) == pytest.approx(100 * np.mean(flips))


def test_a_network_without_positions_never_changes_its_answer():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, CLASSES)).double()
    images, targets = scene(SIDE)
    ring = ShiftRing(1, 0.25, "fractional")
    with torch.no_grad():
        ring.update(network, images, network(images), targets, torch.arange(COUNT))
    results = ring.compute()
    assert float(results["ring_consistency"]) == float(results["ring_never_changed"]) == 100
    assert float(results["ring_divergence_radius"]) < 1e-6
    assert float(results["ring_neighbour_flips"]) == 0


def test_one_image_and_two_have_no_neighbours_but_numbers(network):
    images, targets = scene(SIDE)
    for count in (1, 2):
        ring = ShiftRing(1, mode="circular")
        with torch.no_grad():
            ring.update(network, images[:count], network(images[:count]), targets[:count], torch.arange(count))
        results = ring.compute()
        assert "ring_neighbour_flips" not in results
        assert all(math.isfinite(float(results[f"ring_consistency{end}"])) for end in ("", "_low", "_high"))


def test_smallest_balls_that_are_known():
    side = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]], dtype=torch.float64)
    inside = torch.cat([side, side.mean(dim=0, keepdim=True)])
    assert float(smallest_ball(inside[None])) == pytest.approx(1 / math.sqrt(3), rel=2e-3)
    assert float(smallest_ball(torch.ones(1, 3, 5, dtype=torch.float64))) == pytest.approx(0, abs=1e-7)
    points = torch.randn(6, 7, 3, dtype=torch.float64)
    diameter = torch.cdist(points, points).amax(dim=(1, 2))
    radius = smallest_ball(points)
    assert (radius >= diameter / 2 - 1e-9).all()
    assert (radius <= diameter * math.sqrt(3 / 8) * 1.01).all()  # Jung's theorem in three dimensions
    assert smallest_ball(torch.tensor([[[0.0], [math.nan]]])).isnan().all()


@pytest.mark.parametrize(("mode", "step"), [("crop", 0.5), ("circular", 0.25), ("camera", 0.25), ("fractional", 0.3)])
def test_steps_that_a_mode_does_not_know_are_refused(mode, step):
    with pytest.raises(TinvError, match=f"step={step} of ShiftRing must be .* in mode {mode}"):
        ShiftRing(1, step, mode)


def test_the_comb_of_a_network_with_strides_is_full_at_their_multiples(network):
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            layer.padding_mode, layer._reversed_padding_repeated_twice = "circular", [1, 1, 1, 1]
    images, targets = scene(SIDE)
    comb = ShiftComb(12, "circular")
    with torch.no_grad():
        comb.update(network, images, network(images), targets, torch.arange(COUNT))
        expected = [
            100 * float((network(images.roll((d, d), (2, 3))).argmax(1) == network(images).argmax(1)).double().mean())
            for d in range(1, 13)
        ]
    found = comb.arrays()
    assert int(found["stride"]) == 4
    assert found["shift"].tolist() == list(range(1, 13))
    # the first view is the image moved by half of the range to the left
    assert found["consistency"][[3, 7, 11]].tolist() == [100, 100, 100]
    assert min(found["consistency"]) < 100
    assert min(expected) < 100
    results = comb.compute()
    assert float(results["comb_on_stride"]) == 100
    assert float(results["comb_off_stride"]) < 100


def test_the_comb_of_a_stride_of_one_has_no_teeth():
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    comb = ShiftComb(4, "circular")
    images, targets = scene(SIDE)
    with torch.no_grad():
        comb.update(network, images.float(), network(images.float()), targets, torch.arange(COUNT))
    assert comb.compute() == {}
    assert int(comb.arrays()["stride"]) == 1


@pytest.mark.parametrize("stride", [1, 2, 3, 7, 12, 20, 28, 32, 48])
def test_a_comb_tries_the_multiples_and_the_shifts_halfway_between(stride):
    tried = ShiftComb(96, "circular", stride=stride).tried
    for multiple in range(stride, 96 + 1, stride):
        assert multiple in tried
        assert stride < 2 or multiple - stride // 2 in tried
