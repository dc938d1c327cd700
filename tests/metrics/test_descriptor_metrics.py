"""Measures of descriptors, against slow and obvious references."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.nn import functional as F

from tinv.artifacts import write_artifacts
from tinv.errors import TinvError
from tinv.metrics import DescriptorShift, PatchMatching
from tinv.metrics.descriptor_shift import DIRECTIONS
from tinv.metrics.patch_matching import false_positive_rate
from tinv.translation import draw_offsets


def slow_fpr95(distance: list[float], same: list[bool]) -> float:
    """The least false positive rate of all thresholds that accept 95% of the pairs of one point."""
    positive = [d for d, s in zip(distance, same, strict=True) if s]
    negative = [d for d, s in zip(distance, same, strict=True) if not s]
    rates = [
        sum(d <= threshold for d in negative) / len(negative)
        for threshold in positive
        if 20 * sum(d <= threshold for d in positive) >= 19 * len(positive)
    ]
    return min(rates)


def random_pairs(count: int, ties: bool) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(count)
    same = torch.rand(count, generator=draw) < 0.4
    distance = torch.rand(count, generator=draw, dtype=torch.float64) + 0.4 * (~same)
    return (distance.mul(7).round() / 7 if ties else distance), same


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("count", [20, 41, 137])
def test_matching_is_that_of_the_slow_references(count, ties):
    distance, same = random_pairs(count, ties)
    metric = PatchMatching()
    for part in torch.arange(count).split(16):
        metric.update(distance[part], same[part])
    found = metric.compute()
    assert float(found["fpr95"]) == pytest.approx(slow_fpr95(distance.tolist(), same.tolist()), abs=1e-12)
    assert float(found["auroc"]) == pytest.approx(roc_auc_score(same, -distance), abs=1e-6)
    assert float(found["ap"]) == pytest.approx(average_precision_score(same, -distance), abs=1e-6)


def test_fpr95_counts_equal_distances_whatever_their_order():
    distance = torch.tensor([0.1, 0.5, 0.5, 0.5, 0.9])
    for order in ([True, True, False, False, False], [True, False, False, True, False]):
        # both of one point are within 0.5, and so are two of the three others
        assert float(false_positive_rate(distance, torch.tensor(order))) == pytest.approx(2 / 3)


def test_fpr95_of_exactly_95_of_100():
    """The 95th of 100 is the threshold, not the 96th: 0.95 * 100 is no whole number in floats."""
    distance = torch.cat([torch.arange(100.0), torch.tensor([93.5, 94.5, 200.0, 200.0])])
    assert float(false_positive_rate(distance, torch.arange(104) < 100)) == 0.25


def test_fpr95_without_pairs_of_both_kinds_is_not_a_number():
    assert false_positive_rate(torch.ones(3), torch.ones(3, dtype=torch.bool)).isnan()


@pytest.mark.parametrize("kinds", [[], [True, True, True], [False, False, False]])
def test_nothing_is_said_of_pairs_of_one_kind(kinds):
    """Torchmetrics has 0 and 1 for them."""
    metric = PatchMatching()
    metric.update(torch.arange(float(len(kinds))), torch.tensor(kinds, dtype=torch.bool))
    assert [float(value) for value in metric.compute().values()] == pytest.approx([np.nan] * 3, nan_ok=True)
    assert all(value.isnan() for value in PatchMatching().compute().values())


def describe(patches: torch.Tensor) -> torch.Tensor:
    """A descriptor that depends on place: the patch itself, seen through a fixed random matrix."""
    matrix = torch.randn(16 * 16, 24, generator=torch.Generator().manual_seed(3))
    return F.normalize(patches.flatten(1) @ matrix)


def patches(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    rough = torch.randn(count, 1, 5, 5, generator=draw)
    first = F.interpolate(rough, (16, 16), mode="bicubic")
    second = first + 0.3 * torch.randn(first.shape, generator=draw)
    target = torch.arange(count) // 2 * 10  # two pairs of each point
    target[::3] = -1
    return first, second, target


def slow_curves(count: int, reach: int, mode: str) -> tuple[list[float], list[float]]:
    first, second, target = patches(count)
    ways = draw_offsets(torch.arange(count), len(DIRECTIONS), 0)[:, 0].tolist()
    chosen, points = [], set()
    for number in range(count):
        if target[number] >= 0 and int(target[number]) not in points:
            chosen.append(number)
            points.add(int(target[number]))
    accuracy, distance = [], []
    for by in range(reach + 1):
        pool = []
        for number in chosen:
            dx, dy = (by * step for step in DIRECTIONS[ways[number]])
            moved = second[number].roll((dy, dx), (1, 2))
            if mode == "zero":
                rows, columns = torch.arange(16) - dy, torch.arange(16) - dx
                outside = ((rows < 0) | (rows > 15))[:, None] | ((columns < 0) | (columns > 15))
                moved = moved.masked_fill(outside, 0)
            pool.append(describe(moved[None])[0])
        right = 0
        for place, number in enumerate(chosen):
            gaps = [float((describe(first[number : number + 1])[0] - other).norm()) for other in pool]
            right += gaps.index(min(gaps)) == place
        accuracy.append(100 * right / len(chosen))
        still = [describe(second[number : number + 1])[0] for number in chosen]
        distance.append(float(np.mean([float((a - b).norm()) for a, b in zip(pool, still, strict=True)])))
    return accuracy, distance


@pytest.mark.parametrize("mode", ["zero", "circular"])
@pytest.mark.parametrize("size", [40, 7])
def test_shift_curves_are_those_of_one_patch_at_a_time(mode, size, tmp_path):
    first, second, target = patches(40)
    metric = DescriptorShift(offset_range=4, mode=mode, pairs=20)
    for part in torch.arange(40).split(size):
        metric.update(describe, describe(first[part]), second[part], target[part], part)
    accuracy, distance = slow_curves(40, 4, mode)
    found = metric.curves()
    assert found[0].tolist() == pytest.approx(accuracy)
    assert found[1].tolist() == pytest.approx(distance, abs=1e-6)
    assert accuracy[0] > accuracy[4] + 20  # the measure says something here
    results = metric.compute()
    assert sorted(results) == [
        "shift_acc_0", "shift_acc_2", "shift_acc_4", "shift_distance_1", "shift_distance_2", "shift_distance_4"
    ]  # fmt: skip
    assert float(results["shift_acc_4"]) == pytest.approx(accuracy[4])
    assert float(results["shift_distance_1"]) == pytest.approx(distance[1], abs=1e-6)
    saved = write_artifacts(metric, tmp_path, "shift_liberty")
    assert [path.name for path in saved] == ["shift_liberty.npz", "shift_liberty.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shift_liberty.npz", "shift_liberty.png"]
    with np.load(saved[0]) as arrays:
        assert arrays["acc"].tolist() == pytest.approx(accuracy)


def test_a_descriptor_of_sums_does_not_see_circular_shifts():
    def sums(images: torch.Tensor) -> torch.Tensor:
        values = images.flatten(1).double().sort(dim=1).values
        return F.normalize(values)

    first, second, target = patches(40)
    metric = DescriptorShift(offset_range=8, mode="circular", pairs=20)
    metric.update(sums, sums(first), second, target, torch.arange(40))
    accuracy, distance = metric.curves()
    assert (accuracy == accuracy[0]).all()
    assert (distance == 0).all()


def test_only_pairs_at_the_beginning_of_the_list_are_moved():
    first, second, target = patches(40)
    short, whole = (DescriptorShift(offset_range=1, pairs=5) for _ in range(2))
    for metric, part in ((short, slice(None)), (whole, slice(10))):
        metric.update(describe, describe(first)[part], second[part], target[part], torch.arange(40)[part])
    assert short.curves()[1].tolist() == whole.curves()[1].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offset_range": 0}, "offset_range must be 1 or more"),
        ({"mode": "crop"}, "unknown mode 'crop'; choose from zero, circular"),
        ({"pairs": 1}, "pairs must be 2 or more"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(TinvError, match=message):
        DescriptorShift(**options)


def test_no_pair_to_move_is_one_line():
    with pytest.raises(TinvError, match="no pair of one point among the first 1000 test pairs"):
        DescriptorShift().compute()


def measured(rank: int, ranks: int) -> dict[str, float]:
    distance, same = random_pairs(61, ties=True)
    matching, shift = PatchMatching(), DescriptorShift(offset_range=2, pairs=20)
    matching.update(distance[rank::ranks], same[rank::ranks])
    first, second, target = patches(40)
    # the first process has all pairs of one point, the others see none
    mine = (target >= 0).nonzero().flatten() if rank == 0 else (target < 0).nonzero().flatten()
    shift.update(describe, describe(first[mine]), second[mine], target[mine], mine)
    return {key: float(value) for key, value in {**matching.compute(), **shift.compute()}.items()}


def _worker(rank: int, ranks: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks)
    torch.save(measured(rank, ranks), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_measure_what_one_does(tmp_path):
    mp.spawn(_worker, args=(2, str(tmp_path)), nprocs=2)
    for rank in (0, 1):
        assert torch.load(tmp_path / f"{rank}.pt", weights_only=True) == pytest.approx(measured(0, 1), abs=1e-6)
