"""The smallest moves that change an answer: found as a plain loop finds them, and true of the pictures shown."""

import json
import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from evaluation.test_measure import write_images
from PIL import Image
from torch import nn
from torch.nn import functional as F

import tinv
from tinv.evaluation.class_names import class_names, imagenet_names
from tinv.evaluation.gallery import flips, moved_views, moves, smallest_changes
from tinv.evaluation.images import ImageLayout
from tinv.metrics.views import center_view
from tinv.translation import ShiftMode

MODES = ("crop", "zero", "circular")


def network(seed: int = 0, classes: int = 4) -> nn.Sequential:
    """A strided network whose answers change often."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 8, 3, stride=4, bias=False), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(8, classes, bias=False)).eval()


def room(mode: str, count: int = 12, offset_range: int = 8) -> torch.Tensor:
    """Smooth random images for views of 24 pixels: some change at once, others only under larger moves."""
    side = 24 + (offset_range if mode == "crop" else 0)
    small = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    return F.interpolate(small, (side, side), mode="bilinear")


@torch.no_grad()
def by_hand(net: nn.Module, image: torch.Tensor, offset_range: int, mode: str) -> tuple[int, tuple[int, int] | None]:
    """The smallest move that changes the answer to one image, cut and rolled without the code under test."""
    half = offset_range // 2

    def view(dx: int, dy: int) -> torch.Tensor:
        if mode == "crop":
            return image[:, half - dy : half - dy + 24, half - dx : half - dx + 24]
        if mode == "circular":
            return image.roll((dy, dx), (1, 2))
        canvas = torch.zeros(3, 24 + 2 * half, 24 + 2 * half)
        canvas[:, half + dy : half + dy + 24, half + dx : half + dx + 24] = image
        return canvas[:, half : half + 24, half : half + 24]

    still = int(net(view(0, 0)[None]).argmax())
    for size in (1, 2, 3, 4):
        for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)):
            if int(net(view(size * x, size * y)[None]).argmax()) != still:
                return still, (size * x, size * y)
    return still, None


@pytest.mark.parametrize("mode", MODES)
def test_the_smallest_move_is_that_of_a_plain_loop(mode):
    net, images = network(), room(mode)
    expected = {n: move for n, image in enumerate(images) if (move := by_hand(net, image, 8, mode)[1])}
    found = smallest_changes(net, images, 8, mode, batch_size=3)
    assert {change.image: change.move for change in found} == expected
    assert len({max(map(abs, move)) for move in expected.values()}) > 1  # moves of several sizes, or it shows little
    sizes = [max(map(abs, change.move)) for change in found]
    assert sizes == sorted(sizes)
    few = smallest_changes(net, images, 8, mode, most=2)
    assert [(change.image, change.move) for change in few] == [(change.image, change.move) for change in found[:2]]


@pytest.mark.parametrize("mode", MODES)
@torch.no_grad()
def test_changes_are_real(mode):
    """The network, run again on the pictures that are shown, gives the two answers."""
    # a blank canvas has the mean color, which bytes hold exactly
    layout = ImageLayout((24, 24), 8, mode, (102 / 255, 127 / 255, 153 / 255), (0.2, 0.3, 0.25))
    side = 32 if mode == "crop" else 24 - 8 if mode == "zero" else 24
    bytes_ = torch.randint(0, 256, (8, 3, side, side), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    net, images = network(1), layout.normalize(bytes_)
    changes = smallest_changes(net, images, 8, mode)
    names = ["a", "b", "c", "d"]
    files, labels = [f"{n}.png" for n in range(8)], ["a"] * 8
    found = flips(changes, images, 8, mode, names, files, labels, layout.pixels)
    assert found
    for flip in found:
        assert flip.before.name != flip.after.name
        for pixels, answer in zip(flip.views, (flip.before, flip.after), strict=True):
            assert (pixels.dtype, pixels.shape) == (torch.uint8, (3, 24, 24))
            mean, std = (torch.tensor(v).view(3, 1, 1) for v in (layout.mean, layout.std))
            likely = net(((pixels / 255 - mean) / std)[None]).softmax(dim=1)[0]
            assert int(likely.argmax()) == answer.number
            assert names[answer.number] == answer.name
            assert float(likely[answer.number]) == pytest.approx(answer.probability, abs=1e-4)


def test_the_middle_view_is_the_one_that_is_measured():
    for mode in MODES:
        images = room(mode)
        assert torch.equal(moved_views(images, (0, 0), 8, mode), center_view(images, 8, mode))


def test_an_invariant_network_has_no_changes_and_answers_that_are_not_finite_are_none():
    images = room("circular")
    invariant = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    assert smallest_changes(invariant, images.double(), 8, "circular") == []
    assert smallest_changes(lambda x: network()(x) * math.nan, images, 8, "circular") == []
    assert smallest_changes(invariant, images[:0].double(), 8, "circular") == []


def test_the_search_stops_once_there_are_enough():
    calls = []

    def flipping(images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        return torch.eye(2)[len(calls) % 2].expand(len(images), 2)

    found = smallest_changes(flipping, room("circular"), 8, "circular", most=3)
    assert [change.move for change in found] == [(1, 0)] * 3
    assert calls == [12, 12]


def test_moves_grow_to_half_of_the_range():
    for offset_range in (4, 8, 20, 32, 64):
        sizes = [max(map(abs, size[0])) for size in moves(offset_range)]
        assert sizes == sorted(set(sizes))
        assert sizes[-1] == offset_range // 2
    assert all(len(size) == len(set(size)) == 8 for size in moves(32))


@pytest.mark.parametrize("mode", get_args(ShiftMode))
def test_moved_views_show_the_image_moved_in_every_mode(mode):
    """One bright pixel in the middle goes where the move says, in all modes."""
    scale = 2 if mode == "camera" else 1
    side = 24 * scale
    images = torch.zeros(1, 1, side, side)
    images[..., side // 2 : side // 2 + scale, side // 2 : side // 2 + scale] = 1

    def place(views):
        peak = int(views[0, 0].argmax())
        return peak % views.shape[-1], peak // views.shape[-1]

    (x, y), (moved_x, moved_y) = (place(moved_views(images, move, 8, mode)) for move in ((0, 0), (3, -2)))
    assert (moved_x - x, moved_y - y) == (3, -2)


def test_classes_have_the_names_of_their_folders_or_of_imagenet():
    words = class_names(1000)
    assert (words[0], words[217], words[569]) == ("tench", "English springer", "garbage truck")
    assert (words[134], words[517]) == ("crane (134)", "crane (517)")
    assert len(set(words)) == 1000
    assert class_names(1000, ["n01440764", "n02102040"]) == words
    assert class_names(2, ["n01440764", "bee"]) == ["tench", "bee"]
    assert class_names(3, ["a", "b"]) == ["class 0", "class 1", "class 2"]
    assert len(imagenet_names()) == 1000


def test_measure_names_the_changes(tmp_path):
    draw = np.random.default_rng(0)
    for number in range(9):
        path = Path("photos", ("ant", "bee", "cat")[number % 3], f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    options = {"num_classes": 3, "input_size": 32, "offset_range": 8, "metrics": ["consistency", "gallery"]}
    found = tinv.measure(network(1, 3), "photos", batch_size=4, **options)
    assert found.gallery
    found.save(tmp_path)
    written = json.loads((tmp_path / "measure.json").read_text())
    assert written["gallery"] == [flip.to_dict() for flip in found.gallery]
    first = written["gallery"][0]
    assert first["label"] == first["file"].partition("/")[0]
    assert Path("photos", first["file"]).is_file()
    assert {first[when]["name"] for when in ("before", "after")} <= {"ant", "bee", "cat"}
    assert "Smallest moves" in (tmp_path / "measure.html").read_text()
    # the batch size changes nothing
    again = tinv.measure(network(1, 3), "photos", batch_size=9, **options)
    assert [(f.file, f.move) for f in again.gallery] == [(f.file, f.move) for f in found.gallery]
    without = tinv.measure(network(1, 3), "photos", **{**options, "metrics": ["consistency"]})
    assert without.gallery is None
    assert "gallery" not in without.to_dict()


def test_a_report_is_tables_and_a_picture():
    write_images(Path("photos"), 5)
    Path("photos/00.jpg").write_bytes(b"damaged")
    options = {
        "num_classes": 4,
        "input_size": 32,
        "offset_range": 8,
        "metrics": ["consistency", "ring", "comb", "layers"],
    }
    found = tinv.measure(network(), "photos", on_error="skip", **options)
    table = found.table().set_index("name")
    assert list(table.columns) == ["value", "low", "high", "unit"]
    assert table.loc["consistency", "unit"] == "percent"
    assert table.loc["consistency_cosine", "unit"] == "cosine"
    for name in table.index:
        ends = [found.metrics[f"{name}_{end}"] for end in ("low", "high")]
        assert table.loc[name, ["value", "low", "high"]].tolist() == [found.metrics[name], *ends]
    assert json.loads(found.to_json()) == found.to_dict()
    images = found.per_image
    assert images["file"].tolist() == [f"{n:02}.{'jpg' if n in (1, 4) else 'png'}" for n in range(1, 5)]
    assert 100 * images["consistency/agree"].mean() == pytest.approx(found.metrics["consistency"])
    assert images["label"].isna().all()
    for name in ("layers", "ring", "comb"):
        assert any(column.startswith(f"{name}/") for column in images.columns)
    ring = images[[column for column in images.columns if column.startswith("ring/agree")]]
    assert 100 * ring.to_numpy().mean() == pytest.approx(found.metrics["ring_consistency"])
    labels = [text.get_text() for axes in found.plot().axes for text in axes.get_yticklabels()]
    assert sorted(labels) == sorted(table.index)
