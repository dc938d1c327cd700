import json
from pathlib import Path

import numpy as np
import pytest
import torch
from official_formats import write_image_folders

from tinv.cli import main
from tinv.errors import TinvError
from tinv.evaluation import location_probe
from tinv.evaluation.location_probe import LocationProbe
from tinv.models import create_backbone


@pytest.fixture(autouse=True)
def photographs() -> None:
    write_image_folders(Path("photos"), classes=4, train=3, val=1)


def test_a_network_with_padding_knows_the_place_and_one_with_full_padding_does_not():
    images = torch.rand(20, 3, 64, 64)
    for padding, pool, least, most in (("keep", "keep", 95, 100), ("full_zero", "full", 50, 50)):
        torch.manual_seed(0)
        network = create_backbone(
            "resnet18", "torchvision", num_classes=2, input_size=(128, 128), padding=padding, pool=pool
        )
        readout = LocationProbe(network, images).read(0)
        assert least <= readout.accuracy <= most
        assert readout.low <= readout.accuracy <= readout.high


def test_features_are_those_of_the_photograph_at_each_place():
    torch.manual_seed(0)
    network = create_backbone("resnet18_max", num_classes=2, input_size=(128, 128)).eval()
    images = torch.rand(5, 3, 48, 48)
    places = LocationProbe(network, images, batch_size=2).features(distance=10)
    for place, start in enumerate((10, 74)):
        laid = torch.zeros(5, 3, 132, 132)
        laid[:, :, start : start + 48, start : start + 48] = images
        with torch.no_grad():
            expected = network.forward_head(network.forward_features(laid), pre_logits=True)
        np.testing.assert_allclose(places[place], expected.numpy(), rtol=1e-4, atol=1e-5)


def test_the_command_writes_a_table_a_picture_and_its_numbers(capsys):
    words = ["probe", "--backbone=resnet18", "--images=photos/train", "--max-images=8", "--out=out"]
    words += ["--distances", "0", "8", "--padding", "keep", "same_circular"]
    assert main(words) == 0
    found = json.loads(Path("out/location.json").read_text())
    assert found["images"] == 8
    assert [r["distance"] for r in found["location"]["keep"]] == [0, 8]
    assert found["location"]["same_circular"][0]["accuracy"] == 50  # 128 pixels: 4 times the stride
    assert Path("out/location.png").stat().st_size > 5000
    assert "same_circular" in capsys.readouterr().out


def test_a_figure_that_cannot_be_drawn_costs_no_numbers(monkeypatch):
    def undrawn(*_):
        raise ValueError("no figure")

    monkeypatch.setattr(location_probe, "plot_locations", undrawn)
    report = location_probe.LocationReport((location_probe.Readout(0, 50.0, 40.0, 60.0),), 8)
    with pytest.raises(ValueError, match="no figure"):
        location_probe.save_locations({"keep": report}, Path(), "network")
    assert json.loads(Path("location.json").read_text())["location"]["keep"][0]["accuracy"] == 50
    assert not list(Path().glob(".location*"))


def test_networks_without_features_to_learn_from_are_one_line():
    class Diverged(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(3, 2)

        def forward(self, images):
            return self.head(images.amax((2, 3)) / 0)

    images = torch.zeros(6, 3, 8, 8)
    with pytest.raises(TinvError, match="last layer is not finite at 4 pixels from the border"):
        LocationProbe(Diverged(), images).read(4)
    with pytest.raises(TinvError, match=r"the network \(Flatten\) holds no linear layer"):
        LocationProbe(torch.nn.Flatten(), images).read(4)


def test_bad_input_is_one_line(capsys):
    for option, message in (
        ("--images=nowhere", "no folder of images nowhere"),
        ("--max-images=3", "max_images must be at least 4"),
        ("--distances=-1", "distances[0] must be 0 or more, not -1"),
        ("--batch-size=0", "--batch-size must be 1 or more"),
        ("--side=4", "input_size must be 8 pixels or more"),
        ("--backbone=resnet19", "unknown backbone"),
    ):
        assert main(["probe", "--backbone=resnet18", "--images=photos/train", "--out=out", option]) == 2
        captured = capsys.readouterr().err
        assert message in captured
        assert captured.count("\n") == 1
