"""Images and networks that users have, and that are easily forgotten: each is measured, or refused in one line."""

import json
from pathlib import Path

import pytest
import torch
from evaluation.test_measure import write_images
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

import tinv
from tinv.cli import main
from tinv.errors import TinvError
from tinv.evaluation.measure_page import jpeg
from tinv.metrics import LayerLieDerivative, ShiftComb, TranslationSensitivityMap
from tinv.metrics.shared_views import SharedViews
from tinv.metrics.shift_ring import smallest_ball

QUICK = {"mode": "circular", "offset_range": 8, "metrics": ["consistency", "ring"]}


def network(channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    ).eval()


class Stream(IterableDataset):
    """Images whose number is not known."""

    def __iter__(self):
        draw = torch.Generator().manual_seed(0)
        yield from (torch.rand(3, 16, 16, generator=draw) for _ in range(6))


def test_a_list_of_absolute_paths_is_measured(tmp_path):
    paths = sorted(write_images(tmp_path / "photos", 3).iterdir())
    found = tinv.measure(network(), paths, input_size=32, offset_range=8, metrics=["consistency"])
    assert found.per_image["file"].tolist() == [str(path) for path in paths]


def test_a_loader_that_does_not_know_its_length_is_measured():
    found = tinv.measure(network(), DataLoader(Stream(), batch_size=4), **QUICK)
    assert found.images == 6


@pytest.mark.parametrize("batch_size", [2, 4])
def test_labels_that_begin_late_count_whatever_the_batch_size(batch_size):
    images, classes = torch.rand(4, 3, 16, 16), torch.tensor([-1, -1, 0, 1])
    found = tinv.measure(network(), (images, classes), batch_size=batch_size, **QUICK)
    assert found.labelled
    assert {"acc", "ring_acc", "ring_robust_acc"} <= found.metrics.keys()
    assert not tinv.measure(network(), images, **QUICK).labelled


def test_numbers_of_another_type_are_measured_or_refused_in_one_line():
    images = torch.rand(4, 3, 16, 16)
    found = tinv.measure(lambda batch: batch.float().mean((2, 3)), images.bfloat16(), **QUICK)
    assert found.metrics["ring_consistency"] == 100
    with pytest.raises(TinvError, match="the network cannot take an image of 3x16x16"):
        tinv.measure(network(), images.double(), **QUICK)
    assert tinv.measure(network().double(), images.double(), **QUICK).images == 4


def test_content_in_the_margin_of_a_canvas_is_refused():
    images = torch.rand(4, 3, 16, 16)
    with pytest.raises(
        TinvError, match=r"content in its outer 4 pixels, which mode mean .* pixels of one color a side"
    ):
        tinv.measure(network(), images, **{**QUICK, "mode": "mean"})
    canvas = torch.full((4, 3, 24, 24), 0.25)
    canvas[..., 4:20, 4:20] = images
    assert tinv.measure(network(), canvas, **{**QUICK, "mode": "mean"}).images == 4


def test_protocols_of_small_shifts_take_tensors():
    found = tinv.measure(network(), torch.rand(2, 3, 226, 226), protocol="rics2024")
    assert "neighbours_never_changed" in found.metrics
    with pytest.raises(TinvError, match=r"have to be 226x226"):
        tinv.measure(network(), torch.rand(2, 3, 230, 230), protocol="rics2024")


def test_an_answer_that_is_not_finite_costs_no_map():
    images = torch.rand(4, 3, 16, 16)
    exact = tinv.convert(network(), "same_circular", example_input=images)
    images[0, 0, 0, 0] = float("nan")
    shifts = TranslationSensitivityMap(2, 1, "circular")
    with torch.no_grad():
        shifts.update(exact, images, exact(images), torch.zeros(4, dtype=torch.long), torch.arange(4))
    assert shifts.maps()["consistency"].isnan().all()


def test_the_lie_derivative_sees_what_the_network_sees_under_every_mode():
    seen = set()

    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, images):
            seen.add(tuple(images.shape[2:]))
            return self.inner(images)

    write_images(Path("photos"), 2, (90, 80))
    tinv.measure(Looks(), "photos", input_size=32, mode="camera", offset_range=8, metrics=["lie", "ring"])
    assert seen == {(32, 32)}


def test_maps_whose_positions_lie_along_other_axes_are_not_cut():
    """A pointwise layer written as a convolution and as a linear layer on channels that come last adds the same."""
    torch.manual_seed(0)
    first, point = nn.Conv2d(3, 5, 3, stride=2), nn.Linear(5, 4)

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.point = first, point

        def forward(self, images):
            moved = self.point(self.first(images).permute(0, 2, 3, 1))
            return moved.permute(0, 3, 1, 2).relu().mean((2, 3))

    images, metric = torch.rand(3, 3, 13, 13), LayerLieDerivative()
    with torch.no_grad():
        metric.update(Last().eval(), images, torch.zeros(3, 4), torch.zeros(3), torch.arange(3))
    shares = dict(zip(metric.fields, metric.per_image().mean(axis=0), strict=True))
    assert abs(shares.get("point", 0)) < 1e-6 * sum(map(abs, shares.values()))
    assert all("permute" not in name or abs(share) < 1e-6 * shares["first"] for name, share in shares.items())


def test_a_comb_of_few_pixels_for_a_large_stride_has_shifts():
    assert ShiftComb(4, "circular", stride=64).tried == (4,)


def test_small_balls_stay_on_their_device():
    assert smallest_ball(torch.empty(0, 9, 5, device="meta"), steps=1).device.type == "meta"


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_pictures_of_any_number_of_channels(channels):
    assert jpeg(torch.zeros(channels, 8, 8, dtype=torch.uint8))[:2] == b"\xff\xd8"


def test_images_of_two_shapes_are_not_taken_for_each_other():
    shared = SharedViews(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    wide = torch.arange(16.0).view(1, 2, 2, 4)
    assert torch.equal(shared(wide), wide.mean((2, 3)))


def test_a_protocol_is_recorded_as_it_was_measured(capsys):
    write_images(Path("photos"), 2)
    words = ["measure", "--backbone=resnet10t", "--num-classes=3", "--images=photos"]
    assert main([*words, "--protocol=chaman2021", "--out=runs/first"]) == 0
    assert main([*words, "--protocol=rics2024", "--out=runs/second"]) == 0
    options = json.loads(Path("runs/first/measure.json").read_text())["options"]
    assert (options["mode"], options["offset_range"], options["metrics"]) == ("circular", 64, ["consistency"])
    assert "passes" not in options
    capsys.readouterr()
    assert main(["report", "runs"]) == 0
    assert "protocol is chaman2021 (first); rics2024 (second)" in " ".join(capsys.readouterr().out.split())
