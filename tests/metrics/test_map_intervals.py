"""The means of maps have bootstrap intervals over images; each image's mean over the window is one draw."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tinv.metrics import ClipShiftMap, TranslationSensitivityMap


def network(axes: int) -> nn.Module:
    conv, size = (nn.Conv2d, 4 * 12 * 12) if axes == 2 else (nn.Conv3d, 4 * 4 * 6 * 8)
    torch.manual_seed(0)
    return nn.Sequential(conv(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(size, 5)).eval()


def interval(values: np.ndarray, seed: int) -> list[float]:
    """The 2.5th and 97.5th percentile of 1,000 means over images that are drawn one after the other."""
    draw, means = np.random.default_rng(seed), []
    for _ in range(1000):
        chosen = draw.integers(len(values), size=len(values))
        means.append(np.mean([values[number] for number in chosen]))
    return list(np.percentile(means, [2.5, 97.5]))


def answers(net: nn.Module, clips: torch.Tensor, shifts: list[tuple[int, int]], dims: tuple[int, int]) -> np.ndarray:
    """(consistency, mcs) of each sample, mean over shifts."""
    before, agree, cosine = net(clips), [], []
    for by in shifts:
        after = net(clips.roll(by, dims))
        agree.append((after.argmax(1) == before.argmax(1)).double())
        cosine.append(F.cosine_similarity(after.double(), before.double()))
    return np.stack([100 * torch.stack(agree).mean(0).numpy(), torch.stack(cosine).mean(0).numpy()])


@pytest.mark.parametrize("batch", [30, 7])
@torch.no_grad()
def test_intervals_of_a_map_are_those_of_single_images(batch):
    net, images = network(2), torch.randn(30, 2, 12, 12)
    targets = torch.arange(30) % 6 - 1
    metric = TranslationSensitivityMap(4, 2, "circular", seed=3)
    for part in torch.randperm(30).split(batch):
        metric.update(net, images[part], net(images[part]), targets[part], part)
    found = {key: float(value) for key, value in metric.compute().items()}
    consistency, cosine = answers(net, images, [(y, x) for y in range(-4, 5, 2) for x in range(-4, 5, 2)], (2, 3))
    for key, values in (("consistency", consistency), ("mcs", cosine)):
        assert found[f"map/{key}"] == pytest.approx(values.mean())
        ends = [found[f"map/{key}_low"], found[f"map/{key}_high"]]
        assert ends == pytest.approx(interval(values, 3))
        assert ends[0] < found[f"map/{key}"] < ends[1]
    # images without a class count for agreement alone
    assert metric._rows()["acc"].shape == (25, 1)
    assert found["map/acc_low"] < found["map/acc"] < found["map/acc_high"]
    assert "map/acc_min_low" not in found


@torch.no_grad()
def test_shifts_in_time_alone_have_an_interval_of_their_own():
    net, clips = network(3), torch.randn(20, 2, 4, 6, 8)
    metric = ClipShiftMap(1, 2, mode="circular", step=1)
    metric.update(net, clips, net(clips), torch.full((20,), -1), torch.arange(20))
    found = {key: float(value) for key, value in metric.compute().items()}
    for end, shifts in (("time", [(t, 0) for t in (-1, 0, 1)]), ("space", [(0, x) for x in (-2, -1, 0, 1, 2)])):
        for key, values in zip(("consistency", "mcs"), answers(net, clips, shifts, (2, 4)), strict=True):
            ends = [found[f"clip_map/{key}_{end}_low"], found[f"clip_map/{key}_{end}_high"]]
            assert ends == pytest.approx(interval(values, 0))
    assert not [key for key in found if "acc" in key]


def test_a_map_without_images_reports_no_number():
    values = TranslationSensitivityMap(2).compute().values()
    assert all(torch.isnan(value) for value in values)
