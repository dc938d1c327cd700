import math
import warnings

import pytest
import torch
from torch import nn

from tinv.errors import TinvError
from tinv.metrics import (
    Accuracy,
    CenterAccuracy,
    ClipShiftMap,
    DescriptorShift,
    DiagonalAccuracy,
    LayerEquivariance,
    MeanCosineSimilarity,
    PatchMatching,
    ShiftComb,
    ShiftConsistency,
    ShiftRing,
    TranslationSensitivityMap,
    VideoAccuracy,
    WorstCaseAccuracy,
)
from tinv.metrics.answers import check_names, cosine_similarity, undefined_message, undefined_unless_finite

COUNT = 6


class Diverged(nn.Module):
    """Answers one image of each batch with something that is no number."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.layer, self.value = nn.Conv2d(3, 5, 3), value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answers = self.layer(x.reshape(len(x), 3, 16, -1)).mean((2, 3))
        return answers.index_fill(0, torch.tensor([len(x) - 1]), self.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "metric",
    [
        ShiftConsistency(4, "circular"),
        WorstCaseAccuracy(4, "circular", step=4),
        DiagonalAccuracy(4, "circular"),
        CenterAccuracy(),
        ShiftRing(1, mode="circular"),
        ShiftComb(4, "circular", stride=2),
        TranslationSensitivityMap(2, 2, "circular"),
        TranslationSensitivityMap(0),
        ClipShiftMap(1, 2, mode="circular"),
        *(MeanCosineSimilarity(4, output, "circular") for output in ("logits", "softmax", "relu")),
    ],
    ids=lambda metric: type(metric).__name__ if isinstance(metric, nn.Module) else metric,
)
def test_answers_that_are_not_finite_measure_nothing(metric, value):
    metric = metric.clone()
    shape = (COUNT, 3, 2, 16, 16) if isinstance(metric, ClipShiftMap) else (COUNT, 3, 16, 16)
    network, images, classes = Diverged(value), torch.randn(shape), torch.arange(COUNT) % 5
    with torch.no_grad():
        metric.update(network, images, network(images), classes, torch.arange(COUNT))
    found = metric.compute()
    assert found
    assert all(math.isnan(value) for value in found.values()), found


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_accuracies_and_descriptors_that_are_not_finite_measure_nothing(value):
    logits, classes = torch.randn(COUNT, 5), torch.arange(COUNT) % 5
    logits[2, 3] = value
    accuracy, videos = Accuracy(), VideoAccuracy()
    accuracy.update(logits, classes)
    assert math.isnan(accuracy.compute())
    videos.update(logits, classes, torch.tensor([0, 0, 1, 1, 2, 2]))
    assert all(math.isnan(found) for found in videos.compute().values())
    matching = PatchMatching()
    matching.update(torch.tensor([0.1, abs(value), 0.9]), torch.tensor([True, True, False]))
    assert all(math.isnan(found) for found in matching.compute().values())

    shift = DescriptorShift(offset_range=2, pairs=3)
    first, points = torch.randn(3, 4), torch.arange(3)

    def describe(patches: torch.Tensor) -> torch.Tensor:
        return torch.full((len(patches), 4), value)

    shift.update(describe, first, torch.randn(3, 1, 8, 8), points, points)
    assert all(math.isnan(found) for found in shift.compute().values())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_maps_that_are_not_finite_have_no_equivariance_error(value):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    nn.init.constant_(network[0].bias, value)
    metric = LayerEquivariance(2, "circular")
    images, index = torch.randn(2, 3, 16, 16), torch.arange(2)
    metric.update(network, images, network(images), index, index)
    assert all(math.isnan(found) for found in metric.compute().values())


def test_a_finite_answer_keeps_its_number():
    answers = torch.tensor([[1.0, 2.0], [math.nan, 0.0], [0.0, -math.inf]])
    values = undefined_unless_finite(torch.tensor([True, True, False]), answers)
    assert values.dtype == torch.float64
    assert values.isnan().tolist() == [False, True, True]
    assert values[0] == 1


@pytest.mark.parametrize(
    ("first", "second", "cosine"),
    [
        ([0.0, 0.0], [0.0, 0.0], 1),
        ([0.0, 0.0], [1.0, 2.0], 0),
        ([1e-30, 2e-30], [1e-30, 2e-30], 1),
        ([1e200, 0.0], [1e-200, 0.0], 1),
        ([1.0, 0.0], [0.0, 3.0], 0),
        ([1.0, 0.0], [-3.0, 0.0], -1),
    ],
)
def test_cosine_of_vectors_of_any_length(first, second, cosine):
    vectors = (torch.tensor([vector], dtype=torch.float64) for vector in (first, second))
    assert cosine_similarity(*vectors).tolist() == pytest.approx([cosine])


def test_an_unchanged_answer_of_zeros_is_no_change():
    class Silent(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)).round(decimals=3).relu()

    images, index = torch.cat([torch.ones(2, 3, 8, 8), -torch.ones(2, 3, 8, 8)]), torch.arange(4)
    for metric, key in (
        (MeanCosineSimilarity(4, mode="circular"), "mcs"),
        (ShiftConsistency(4, "circular"), "consistency_cosine"),
        (TranslationSensitivityMap(2, 2, "circular"), "map/mcs"),
    ):
        metric.update(Silent(), images, Silent()(images), torch.zeros(4, dtype=torch.long), index)
        assert float(metric.compute()[key]) == pytest.approx(1)


def test_what_is_not_defined_is_named_once():
    assert undefined_message({"test/acc": 1.0, "test/mcs": torch.tensor(0.5)}) is None
    message = undefined_message({"test/acc": math.nan, "acc_low": math.nan, **{f"m{n}": math.nan for n in range(6)}})
    assert message is not None
    assert message.startswith("not defined, and left out of the results: test/acc, m0, m1, m2, m3 and 2 more;")


@pytest.mark.parametrize("name", ["a/b", "a\0b", "..", "", "a\nb", "\udcff", "a\\b", "x" * 200])
@pytest.mark.parametrize("kind", [MeanCosineSimilarity, TranslationSensitivityMap, DescriptorShift, LayerEquivariance])
def test_names_that_cannot_be_those_of_files_are_refused(kind, name):
    with pytest.raises(TinvError, match="cannot be the name of a file"):
        kind(name=name)


def test_counts_below_one_and_equal_names_are_refused():
    for make, key in (
        (lambda: TranslationSensitivityMap(max_images=0), "max_images"),
        (lambda: TranslationSensitivityMap(images_per_pass=-1), "images_per_pass"),
        (lambda: ClipShiftMap(max_clips=0), "max_clips"),
        (lambda: LayerEquivariance(max_images=-1), "max_images"),
        (lambda: DescriptorShift(pairs=0), "pairs"),
    ):
        with pytest.raises(TinvError, match=f"{key} must be"):
            make()
    with pytest.raises(TinvError, match="two metrics are named map"):
        check_names([TranslationSensitivityMap(), MeanCosineSimilarity(), TranslationSensitivityMap(4)])


def test_the_former_name_of_output_still_works():
    with pytest.warns(DeprecationWarning, match="on is now output"):
        assert MeanCosineSimilarity(on="softmax").output == "softmax"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert MeanCosineSimilarity(output="relu").output == "relu"
