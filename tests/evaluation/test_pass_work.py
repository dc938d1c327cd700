"""One bar over all parts of a measurement: it rises, part by part, and its costs are those of the passes."""

import pytest
import torch
from torch import nn

import tinv
from tinv.metrics import ShiftConsistency, ShiftRing, TranslationSensitivityMap
from tinv.metrics.shared_views import SharedViews
from tinv.utils.progress import PartsProgress


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.fc = nn.Linear(4, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.layers(images).flatten(1))


@pytest.fixture
def told(monkeypatch) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    monkeypatch.setattr(PartsProgress, "at", lambda self, part, share: found.append((part, share)))
    return found


@pytest.mark.parametrize("batches", ["tensor", "loader"])
def test_every_part_rises_from_none_to_all(told, batches):
    images = torch.rand(10, 3, 24, 24)
    given = images if batches == "tensor" else list(images.split(4))
    tinv.measure(Net(), given, input_size=16, offset_range=8, batch_size=4, passes=2)
    parts = [part for part, _ in told]
    assert parts == sorted(parts, key=["measuring", "gallery", "attribution"].index)
    for part in set(parts):
        shares = [share for name, share in told if name == part]
        assert shares == sorted(shares)
        assert 0 <= shares[0] <= shares[-1] <= 1
    measured = [share for name, share in told if name == "measuring"]
    assert measured[-1] == pytest.approx(1, abs=0.25 if batches == "loader" else 1e-9)
    # more often than once a batch, so that a bar moves
    assert len(measured) > 20


def test_nothing_is_said_of_the_whole_where_it_is_not_known(told):
    tinv.measure(Net(), iter([torch.rand(4, 3, 16, 16)]), mode="circular", offset_range=8, metrics=["consistency"])
    assert set(told) == {("measuring", 0)}


@pytest.mark.parametrize(
    "metric",
    [
        ShiftConsistency(4, "circular", passes=3),
        ShiftRing(1, mode="circular"),
        TranslationSensitivityMap(2, 1, "circular"),
    ],
)
@torch.no_grad()
def test_a_metric_asks_for_as_many_views_as_it_says(metric):
    images, network = torch.rand(3, 3, 16, 16), SharedViews(Net().eval())
    metric.update(network, images, network.network(images), torch.zeros(3, dtype=torch.long), torch.arange(3))
    assert network.asked == 3 * metric.views
