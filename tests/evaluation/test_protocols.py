"""Protocols of papers are replayed as their files say, against a loop that does what the paper's code does."""

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.v2 import functional as T

import tinv
from tinv.cli import main
from tinv.data.formats.images import find_images, read_pixels, resize_and_center
from tinv.errors import TinvError
from tinv.evaluation.protocol import ProtocolName, list_protocols, load_protocol
from tinv.metrics import ShiftConsistency
from tinv.metrics.shared_views import SharedViews
from tinv.translation import draw_offsets

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Tiny(nn.Module):
    """Answers by what lies under a coarse grid of pixels: it changes its mind at every shift."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 6, 5, stride=8)
        self.runs = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.runs += len(images)
        return self.layer(images).relu().mean((2, 3)) * 50


def photos(count: int = 4) -> Path:
    folder, draw = Path("photos"), np.random.default_rng(3)
    folder.mkdir()
    for number in range(count):
        small = Image.fromarray(draw.integers(0, 256, (40, 50, 3), dtype=np.uint8))
        small.resize((330, 300), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def laid_out(folder: Path, resize: int, kept: int) -> torch.Tensor:
    """Photographs (N, 3, kept, kept): the shorter side scaled, the middle cut out, normalised."""
    files, images = find_images(folder), []
    for number in range(len(files)):
        whole = resize_and_center(read_pixels(files.path(number), resize), resize, resize, resize)
        pixels = T.center_crop(whole, [kept, kept])
        images.append((pixels.float() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None])
    return torch.stack(images)


def test_every_protocol_has_a_card_and_metrics():
    for protocol in list_protocols():
        metrics = protocol.make_metrics(seed=1)
        assert set(protocol.metrics) == set(metrics) - {"acc"}
        for metric in metrics.values():
            assert max(metric.crop_margin, metric.canvas_margin) <= protocol.offset_range
        card = json.loads(json.dumps(protocol.card(as_published=True)))
        assert card["source"]
        assert card["name"] in get_args(ProtocolName)
        for key in protocol.reports:
            assert any(key.startswith(name) for name in metrics), key


def test_zhang_2019_is_two_crops_of_256_pixels():
    folder, network = photos(), Tiny()
    found = tinv.measure(network, folder, protocol="zhang2019", seed=5)
    images = laid_out(folder, 256, 256)
    agree = []
    with torch.no_grad():
        for turn in range(5):
            answers = []
            for view in (0, 1):
                offsets = draw_offsets(torch.arange(4), 32, 5, 2 * turn + view).tolist()
                views = [image[:, y : y + 224, x : x + 224] for image, (x, y) in zip(images, offsets, strict=True)]
                answers.append(network(torch.stack(views)).argmax(1))
            agree.append((answers[0] == answers[1]).double().mean())
    assert 0 < found.metrics["consistency"] < 100
    assert found.metrics["consistency"] == pytest.approx(100 * float(torch.stack(agree).mean()))
    assert found.protocol["name"] == "zhang2019"


def test_afc_2023_compares_the_unmoved_image_with_moves_to_the_right_and_down():
    folder, network = photos(), Tiny()
    found = tinv.measure(network, folder, protocol="afc2023", seed=2)
    images = laid_out(folder, 256, 224)
    with torch.no_grad():
        still = network(images).argmax(1)
        shifts = draw_offsets(torch.arange(4), 31, 2, 1) + 1
        rolled = [image.roll((dy, dx), (1, 2)) for image, (dx, dy) in zip(images, shifts.tolist(), strict=True)]
        moved = network(torch.stack(rolled)).argmax(1)
    assert found.metrics["integer"] == pytest.approx(100 * float((still == moved).double().mean()))
    assert "half_pixel" in found.metrics


def test_rics_2024_is_fooled_by_any_of_eight_neighbours():
    folder, network = photos(), Tiny()
    found = tinv.measure(network, folder, protocol="rics2024")
    images = laid_out(folder, 226, 226)
    with torch.no_grad():
        answers = torch.stack(
            [network(images[:, :, y : y + 224, x : x + 224]).argmax(1) for y in range(3) for x in range(3)]
        )
    kept = (answers == answers[4]).all(dim=0).double().mean()
    assert found.metrics["neighbours_never_changed"] == pytest.approx(100 * float(kept))


def test_peculiarities_are_off_unless_asked_for():
    for protocol in list_protocols():
        for metric in protocol.make_metrics(0).values():
            assert getattr(metric, "draw", "image") == "image"
    published = load_protocol("kayhan2020").make_metrics(0, as_published=True)["consistency"]
    assert isinstance(published, ShiftConsistency)
    assert published.draw == "batch"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "circular"}, "protocol zhang2019 says mode; leave mode out"),
        ({"metrics": ["map"]}, "protocol zhang2019 says metrics"),
        ({"passes": 2}, "protocol zhang2019 says passes"),
        ({"input_size": 96}, "shows images of 224 pixels a side, not 96x96"),
        ({"protocol": None, "as_published": True}, "name its protocol too"),
        ({"protocol": "zhang2020"}, "did you mean zhang2019"),
    ],
)
def test_what_a_protocol_decides_cannot_be_said_twice(options, message):
    with pytest.raises(TinvError, match=message):
        tinv.measure(Tiny(), photos(2), **{"protocol": "zhang2019", **options})


@pytest.mark.parametrize("shifts", [[3, 1], [0, 1.5], [-40, 2], [1]])
def test_shifts_that_cannot_be_drawn_are_refused(shifts):
    with pytest.raises(TinvError, match="shifts="):
        ShiftConsistency(64, "circular", shifts=shifts)
    with pytest.raises(TinvError, match="mode in which the image moves"):
        ShiftConsistency(64, "crop", shifts=[1, 2])


def test_the_command_writes_the_card_of_the_protocol(capsys):
    photos(2)
    words = ["measure", "--backbone=resnet10t", "--num-classes=3", "--images=photos", "--out=out"]
    assert main([*words, "--protocol=mouton2020"]) == 0
    found = json.loads(Path("out/measure.json").read_text())
    assert found["protocol"]["source"].startswith("Mouton")
    assert {"mcs", "mcs_softmax", "mcs_relu"} <= found["metrics"].keys()
    assert found["options"]["input_size"] == [50, 50]
    assert main([*words, "--protocol=mouton2020", "--mode=crop", "--offset-range=8"]) == 2
    assert "protocol mouton2020 says offset_range" in capsys.readouterr().err


def test_equal_views_are_run_once():
    network = Tiny()
    shared, images = SharedViews(network), torch.randn(5, 3, 32, 32)
    first = shared(images)
    again = shared(images[[3, 1, 1]].contiguous(memory_format=torch.channels_last))
    # and one image to see how large the maps are
    assert network.runs - 1 == shared.runs == 5
    assert torch.equal(again, first[[3, 1, 1]])
    twice = torch.cat([torch.randn(1, 3, 32, 32)] * 2)
    assert torch.equal(*shared(twice))
    assert shared.runs == 6
    shared.forget()
    shared(images)
    assert shared.runs == 11
