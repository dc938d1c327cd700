"""Docstrings of metrics name the numbers that are reported, with their unit and range, which the site quotes."""

import math
import re

import pytest
import torch
from generate.metrics import names, reported
from torch import nn

import tinv.metrics
from tinv.metrics.base import ReportedMetric


def network(images: torch.Tensor) -> torch.Tensor:
    """Class by the column that is brightest: (N, 1, [T,] 12, 12) -> (N, 12)."""
    return images.flatten(1, -3).mean(dim=1).mean(dim=1)


def of_images(name: str) -> dict[str, torch.Tensor]:
    metric = getattr(tinv.metrics, name)(**OPTIONS.get(name, {}))
    shape = (6, 1, 4, 12, 12) if name == "ClipShiftMap" else (6, 1, 12, 12)
    images, targets = torch.rand(shape), torch.arange(6) % 3
    if name == "SegmentationConsistency":
        metric.update(nn.Conv2d(1, 3, 3, padding=1), images, None, targets, torch.arange(6))
        return metric.compute()
    net = TRACED if name in ("LayerEquivariance", "LayerLieDerivative") else network
    # one right answer, without which some numbers are not defined
    targets[0] = net(images)[0].argmax()
    metric.update(net, images, net(images), targets, torch.arange(6))
    return metric.compute()


def of_others(name: str) -> dict[str, torch.Tensor]:
    metric = getattr(tinv.metrics, name)()
    if name == "Accuracy":
        metric.update(torch.rand(4, 3), torch.tensor([0, 1, 2, 0]))
        return {"acc": metric.compute()}
    if name == "VideoAccuracy":
        metric.update(torch.rand(4, 6), torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 1]))
    elif name == "PatchMatching":
        metric.update(torch.rand(6), torch.tensor([True, True, False, False, True, False]))
    else:

        def describe(patches: torch.Tensor) -> torch.Tensor:
            return nn.functional.normalize(patches.flatten(1), dim=1)

        first, second = torch.rand(6, 1, 8, 8), torch.rand(6, 1, 8, 8)
        metric.update(describe, describe(first), second, torch.arange(6), torch.arange(6))
    return metric.compute()


TRACED = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
RANGES = {
    "0 to 100": (0, 100),
    "-1 to 1": (-1, 1),
    "0 to 1": (0, 1),
    "0 to 2": (0, 2),
    "0 or more": (0, math.inf),
    "up to 100; 0 is chance": (-math.inf, 100),
    "up to 100": (-math.inf, 100),
}
OTHERS = ("Accuracy", "DescriptorShift", "PatchMatching", "VideoAccuracy")
SMALL = {"offset_range": 2, "mode": "circular"}
OPTIONS = {
    "ShiftConsistency": {**SMALL, "against": "image"},
    "DiagonalAccuracy": SMALL,
    "WorstCaseAccuracy": SMALL,
    "ShiftRing": {"radius": 1, "mode": "circular"},
    "ShiftComb": {"offset_range": 4, "stride": 2, "mode": "circular"},
    "LayerEquivariance": {"max_stride": 2, "mode": "circular"},
    "MeanCosineSimilarity": {"max_shift": 2},
    "TranslationSensitivityMap": {"max_shift": 1},
    "ClipShiftMap": {"max_frames": 1, "max_shift": 2},
}


@pytest.mark.parametrize("name", names())
def test_a_docstring_names_what_is_reported(name):
    metric = getattr(tinv.metrics, name)
    found = (of_others if name in OTHERS else of_images)(name)
    values = {key: float(value) for key, value in found.items() if not key.endswith(("_low", "_high"))}
    said = {line.key: line for line in reported(metric)}
    assert {re.sub(r"_\d+$", "_S", key) for key in values} == set(said)
    for key, value in values.items():
        line = said[re.sub(r"_\d+$", "_S", key)]
        if issubclass(metric, ReportedMetric):
            assert metric(**OPTIONS.get(name, {})).unit_of(key) == line.unit
        low, high = RANGES[line.range]
        assert low <= value <= high


def test_every_metric_has_its_formula():
    assert len(names()) > 10
    for name in names():
        assert "Formula:" in getattr(tinv.metrics, name).__doc__
