"""Metrics draw what they hold, into a figure of their own or into given axes, and say their units."""

import pytest
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional as F

from tinv.errors import TinvError
from tinv.metrics import (
    CenterAccuracy,
    ClipShiftMap,
    DescriptorShift,
    DiagonalAccuracy,
    LayerEquivariance,
    LayerLieDerivative,
    MeanCosineSimilarity,
    ShiftComb,
    ShiftConsistency,
    ShiftRing,
    TranslationSensitivityMap,
    WorstCaseAccuracy,
)

METRICS = [
    (CenterAccuracy(), 1),
    (DiagonalAccuracy(4, "circular"), 1),
    (LayerEquivariance(4, "circular"), 1),
    (LayerLieDerivative(), 1),
    (MeanCosineSimilarity(4), 1),
    (ShiftConsistency(4, "circular"), 1),
    (TranslationSensitivityMap(2, 2), 3),
    (ShiftRing(1, mode="circular"), 1),
    (ShiftComb(4, "circular"), 1),
    (WorstCaseAccuracy(4, "circular", step=4), 1),
    (ClipShiftMap(1, 2), 3),
    (DescriptorShift(2, pairs=4), 2),
]


def updated(metric):
    torch.manual_seed(0)
    metric, index = metric.clone(), torch.arange(6)
    if isinstance(metric, DescriptorShift):
        patches = torch.randn(6, 1, 8, 8)
        metric.update(lambda x: F.normalize(x.flatten(1)), F.normalize(patches.flatten(1)), patches, index, index)
        return metric
    images = torch.randn(6, 2, *([4, 8, 8] if isinstance(metric, ClipShiftMap) else [8, 8]))
    if isinstance(metric, ClipShiftMap):
        network = nn.Sequential(nn.Flatten(), nn.Linear(512, 3))
    else:
        network = nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    with torch.no_grad():
        metric.update(network, images, network(images), index % 3, index)
    return metric


@pytest.mark.parametrize(("metric", "panels"), METRICS, ids=lambda value: type(value).__name__)
def test_it_draws_into_a_figure_of_its_own_and_into_given_axes(metric, panels):
    metric = updated(metric)
    figure, axes = metric.plot()
    assert isinstance(figure, Figure)
    assert not pyplot.get_fignums()
    assert figure.axes[0] is (axes if panels == 1 else axes[0])
    given = Figure().subplots(1, panels)
    found, drawn = metric.plot(given)
    assert found is (given if panels == 1 else given[0]).figure
    assert all(ax.has_data() for ax in ([drawn] if panels == 1 else drawn))
    with pytest.raises(TinvError, match=f"ax must hold {panels} axes, not 4"):
        metric.plot(list(Figure().subplots(1, 4)))


def test_units():
    found = {}
    for metric, _ in METRICS:
        found |= {key: metric.unit_of(key) for key in updated(metric).compute() if not key.endswith(("_low", "_high"))}
    cosines = {key for key, unit in found.items() if unit == "cosine"}
    assert cosines == {"mcs", "consistency_cosine", "map/mcs"} | {
        f"clip_map/mcs{end}" for end in ("", "_time", "_space")
    }
    assert {key for key, unit in found.items() if unit == "ratio"} == {
        "layer_error_last",
        "ring_divergence_radius",
        "shift_distance_1",
        "shift_distance_2",
    }
    assert {found[key] for key in ("acc", "map/acc_min", "consistency", "shift_acc_0")} == {"percent"}
    assert ShiftConsistency(4, name="map").unit_of("map_cosine_low") == "cosine"
