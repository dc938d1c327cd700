"""Attribution by real context: the same positions on a larger cut, and shares that are known by construction."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import tinv
from tinv.data.formats.images import find_images
from tinv.errors import TinvError
from tinv.evaluation.context_attribution import ContextAttribution, Displacements, few_pixels
from tinv.evaluation.images import ImageLayout, Photographs
from tinv.evaluation.invariance_report import InvarianceReport
from tinv.evaluation.real_context import real_context
from tinv.evaluation.scenes import SceneLayout, mirrored


class Residual(nn.Module):
    """Two branches of different kernels, one of which is strided by a single pixel."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.long = nn.Sequential(nn.Conv2d(6, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 6, 5, padding=2))
        self.short = nn.Conv2d(6, 6, 1, 2)

    def forward(self, images):
        images = self.first(images).relu()
        return (self.long(images) + self.short(images)).relu()


class Excited(nn.Module):
    """Scales a padded map by its own mean."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, images):
        found = self.conv(images)
        return (found * found.mean((2, 3), keepdim=True).sigmoid()).amax((2, 3))


def pooled(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten()).eval()


def fair(network: nn.Module) -> nn.Module:
    """Gives every class the same chance on noise: no filter is larger than another, or has a mean."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            weight = layer.weight.data - layer.weight.data.mean((1, 2, 3), keepdim=True)
            layer.weight.data = weight / weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            layer.bias.data.zero_()
    return network


def colors(stride: int) -> nn.Module:
    """The color that has the brightest of the pixels at multiples of a stride."""
    network = pooled(nn.Conv2d(3, 3, 1, stride, bias=False))
    network[0].weight.data = torch.eye(3)[..., None, None]
    return network


def mobilenet() -> nn.Module:
    # SAME padding, which on even sizes pads the bottom and the right alone
    return timm.create_model("mobilenetv2_035", pad_type="same", num_classes=0, global_pool="")


STACKS = {
    "odd kernels": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 6, 5, 2, 2), nn.Conv2d(6, 6, 3, 1, 1)
    ),
    "even kernels": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 4, 2, 1), nn.ReLU(), nn.Conv2d(6, 6, 2, 2), nn.AvgPool2d(3, 2, 1), nn.Conv2d(6, 6, 3, 1, 1)
    ),
    "a map that ceil_mode makes longer": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 7, 2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(6, 6, 3, padding=1)
    ),
    "dilation and a stride of three": lambda: nn.Sequential(nn.Conv2d(3, 6, 3, 1, 2, 2), nn.Conv2d(6, 6, 3, 3, 1)),
    "another size of each axis": lambda: nn.Sequential(nn.Conv2d(3, 6, (3, 5), 2, (1, 0)), nn.Conv2d(6, 6, 3, 1, 1)),
    "branches": Residual,
    "SAME padding": mobilenet,
}


@pytest.mark.parametrize("name", STACKS)
@torch.no_grad()
def test_the_cut_gives_the_positions_of_the_padded_map_with_real_context(name):
    """Those that the padded network computes far inside of a scene, where no padding is seen."""
    network = STACKS[name]().eval()
    example = torch.zeros(1, 3, 64, 64 if name == "SAME padding" else 72)
    context = real_context(network, example)
    height, width = example.shape[2:]
    far = context.stride * math.ceil(max(*(-s for s in context.start), *context.size) / context.stride)
    scene = torch.rand(1, 3, 2 * far + height, 2 * far + width)
    (top, left), (h, w) = (far + s for s in context.start), context.size
    found = context.network(scene[..., top : top + h, left : left + w])
    assert found.shape == network(example).shape
    assert tuple(found.shape[2:]) == context.positions
    first = far // context.stride
    inside = [slice(first, first + count) for count in context.positions]
    torch.testing.assert_close(found, network(scene)[..., inside[0], inside[1]], atol=1e-5, rtol=1e-5)
    # the slow way: without padding on the whole scene, from the same phase on
    whole = context.network(scene[..., top % context.stride :, left % context.stride :])
    begin = top // context.stride, left // context.stride
    same = whole[..., begin[0] : begin[0] + context.positions[0], begin[1] : begin[1] + context.positions[1]]
    torch.testing.assert_close(found, same, atol=1e-5, rtol=1e-5)
    # and no pixel of the cut is read in vain
    assert real_context(context.network, scene[..., :h, :w]).size == (h, w)
    assert context.network(scene[..., : h - 1, :w]).shape[2] < context.positions[0]


@torch.no_grad()
def test_inside_a_view_padding_is_not_seen_and_the_maps_are_equal():
    network = STACKS["odd kernels"]().eval()
    context = real_context(network, torch.zeros(1, 3, 64, 64))
    (top, left), (h, w) = (32 + s for s in context.start), context.size
    scene = torch.rand(1, 3, 128, 128)
    valid, padded = context.network(scene[..., top : top + h, left : left + w]), network(scene[..., 32:96, 32:96])
    torch.testing.assert_close(valid[..., 3:-3, 3:-3], padded[..., 3:-3, 3:-3], atol=1e-6, rtol=1e-6)
    assert (valid - padded)[..., 0, :].abs().max() > 1e-3


def test_a_network_without_padding_is_its_own_and_sees_the_view():
    network = pooled(nn.Conv2d(3, 4, 3, 2))
    context = real_context(network, torch.zeros(1, 3, 16, 16))
    assert context.network is network
    assert (context.size, context.start, context.positions, context.stride) == ((16, 16), (0, 0), (7, 7), 2)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Excited(), "mean reads its whole map, which is larger on the cut"),
        (pooled(nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4)), "layer 1 normalizes by its whole map"),
        (nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Upsample(scale_factor=2)), "layer 1 has other positions"),
    ],
)
def test_a_network_that_is_another_one_on_a_larger_cut_is_refused(network, message):
    with pytest.raises(TinvError, match=message):
        real_context(network.eval(), torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("size", [(60, 90), (90, 61), (3, 40)])
@pytest.mark.parametrize("margins", [((5, 2), (33, 60)), ((0, 0), (0, 0))])
def test_a_scene_holds_the_pixels_of_the_other_measures_and_mirrors_its_edge(size, margins):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    shape = ((20, 24), 8, "crop", (0.5,) * 3, (0.5,) * 3)
    plain = ImageLayout(*shape).lay_out(Path("photo.png"))
    scene = SceneLayout(*shape, margins=margins).lay_out(Path("photo.png"))
    (top, bottom), (left, right) = margins
    assert scene.shape == (3, 28 + top + bottom, 32 + left + right)
    torch.testing.assert_close(scene[:, top : top + 28, left : left + 32], plain, atol=1, rtol=0)


def test_what_is_mirrored_may_be_wider_than_the_picture():
    assert mirrored(-3, 10, 4).tolist() == [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]
    assert mirrored(-2, 4, 1).tolist() == [0] * 4


def test_views_lie_one_stride_apart_and_as_much_nearer_as_further():
    index = torch.arange(2000)
    offsets = Displacements(8, few_pixels(8), 12, seed=0).offsets(index)
    base, on, further, nearer = offsets
    moves = [(view - base).abs() for view in (on, further, nearer)]
    assert all((move.min(dim=1).values == 0).all() for move in moves)
    far, more, less = (move.sum(dim=1) for move in moves)
    assert set(far.tolist()) == {8}
    assert set((more - 8).tolist()) == {1, 2}
    assert (more - 8 == 8 - less).all()
    assert (base.amin(), base.amax(), offsets.amin(), offsets.amax()) == (0, 12, 0, 12)
    directions = {tuple(d) for d in (on - base).sign().tolist()}
    assert directions == {(0, 1), (0, -1), (1, 0), (-1, 0)}
    assert torch.equal(offsets[:, 700:], Displacements(8, 2, 12, seed=0).offsets(index[700:]))
    wide = Displacements(8, 2, 8, seed=0)
    assert (wide.reach, wide.offsets(index).amin(), wide.offsets(index).amax()) == (2, -2, 10)
    assert len(Displacements(1, few_pixels(1), 12, seed=0).offsets(index)) == 2


def attribution(network: nn.Module, scenes: str, size: int = 16, images: int = 48) -> dict:
    """The attribution on noise, or on noise that is repeated after `size` pixels."""
    layout = ImageLayout((size, size), 8, "crop", (0.0,) * 3, (1.0,) * 3)
    found = ContextAttribution(network, Photographs(None, layout, 16, 0), seed=0, device=torch.device("cpu"))
    (top, bottom), (left, right) = found.photographs.layout.margins
    draw = torch.Generator().manual_seed(2)
    shape = size + 8 + top + bottom, size + 8 + left + right
    tile = torch.rand(images, 3, *((size, size) if scenes == "repeated" else shape), generator=draw)
    tile = tile[..., torch.arange(shape[0]) % tile.shape[2], :][..., torch.arange(shape[1]) % tile.shape[3]]
    for index in torch.arange(images).split(16):
        found.update(tile[index], index % 3, index)
    return found.to_dict()


def values(found: dict) -> dict[str, list[float]]:
    return {order: [share["value"] for share in parts.values()] for order, parts in found["shares"].items()}


def test_an_exact_network_has_shares_of_zero():
    found = attribution(colors(1), "repeated")
    assert values(found) == {"padding first": [0.0] * 3, "aliasing first": [0.0] * 3}
    assert found["explanation"][-1] == "No pair of views got two answers: there is nothing to attribute."
    assert "percent" in json.dumps(found, allow_nan=False)


def test_a_stride_alone_is_aliasing():
    found = attribution(colors(4), "repeated")
    assert (found["stride"], found["distance"], found["off_by"], found["size"]) == (4, 4, 1, [16, 16])
    for padding, aliasing, rest in values(found).values():
        assert (padding, rest) == (0.0, 0.0)
        assert aliasing == pytest.approx(found["conditions"]["as it is"]["off_stride"])
        assert aliasing > 20
    assert found["shares"]["padding first"]["aliasing"]["percent"] == pytest.approx(100)


def test_padding_alone_has_no_aliasing_and_a_stride_of_one_is_said():
    found = attribution(fair(pooled(nn.Conv2d(3, 8, 5, padding=2))), "repeated")
    for padding, aliasing, rest in values(found).values():
        # real pixels on every side: nothing but the padding tells the views apart
        assert (aliasing, rest) == (0.0, 0.0)
        assert padding == pytest.approx(found["conditions"]["as it is"]["on_stride"])
        assert padding > 0
    assert any(line.startswith("The total stride is 1 pixel: every move") for line in found["explanation"])


def test_shares_add_up_to_the_inconsistency_and_lie_in_their_intervals():
    found = attribution(fair(pooled(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))), "noise")
    conditions = found["conditions"]
    for parts in found["shares"].values():
        total = sum(share["value"] for share in parts.values())
        assert total == pytest.approx(conditions["as it is"]["off_stride"])
        for share in parts.values():
            assert share["low"] <= share["value"] <= share["high"]
    assert set(conditions["valid"]) == {
        f"{key}{end}" for key in ("on_stride", "off_stride", "accuracy") for end in ("", "_low", "_high")
    }
    first, second, *_, last = found["explanation"]
    assert first.startswith("Of 100 pairs of views one total stride (4 pixels) apart, ")
    assert "of 100 that are 1 pixel nearer or further, " in first
    assert "on cuts of 19x19 pixels with the same 4x4 positions" in second
    assert any(line.startswith("With padding first: padding ") and "the rest " in line for line in found["explanation"])
    assert last


def test_answers_that_are_not_finite_are_said():
    class Diverged(nn.Conv2d):
        def forward(self, images):
            return super().forward(images) * float("nan")

    found = attribution(pooled(Diverged(3, 4, 1)), "noise")
    assert found["explanation"] == ["The network's answers are not finite: there is nothing to attribute."]
    assert "NaN" not in json.dumps(found)


def write_photographs(folder: Path, count: int = 6) -> Path:
    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (40 + number, 52, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def measured(network: nn.Module, **options) -> InvarianceReport:
    given = {"num_classes": 4, "input_size": 24, "offset_range": 8, "metrics": ["attribution"]} | options
    return tinv.measure(network, "photos", **given)


SMALL = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1))


def test_measure_attributes_whatever_the_batch_size():
    write_photographs(Path("photos"))
    network = pooled(*SMALL)
    found = [measured(network, batch_size=size) for size in (1, 4)]
    first, second = (each.attribution for each in found)
    assert first["explanation"] == second["explanation"]
    assert values(first) == {order: pytest.approx(numbers) for order, numbers in values(second).items()}
    assert found[0].attribution["method"] == "context"
    assert found[0].attribution["images"] == 6
    assert found[0].attribution["conditions"]["valid"]["accuracy"] is None
    assert found[0].to_dict()["attribution"]["explanation"][0] in str(found[0])
    assert measured(network, attribution_images=2).attribution["images"] == 2
    assert not found[0].attribution_by_conversion


def test_attribution_by_conversion_is_measured_when_asked_for():
    write_photographs(Path("photos"))
    found = measured(pooled(*SMALL), metrics=["attribution", "attribution_by_conversion"]).to_dict()
    assert found["attribution"]["method"] == "context"
    assert {"consistency", "accuracy", "share", "explanation"} <= set(found["attribution_by_conversion"])


@pytest.mark.parametrize(
    ("network", "options", "reason"),
    [
        (Excited().eval(), {}, "mean reads its whole map"),
        (pooled(*SMALL), {"mode": "circular"}, "it is for views of mode crop, not circular"),
        (pooled(*SMALL), {"mode": "zero"}, "it is for views of mode crop, not zero"),
        (pooled(nn.Conv2d(3, 4, 3, 12, 1)), {}, "the total stride, 12 pixels, is more than offset_range=8"),
    ],
)
def test_where_real_context_cannot_be_had_it_is_said_and_weights_are_converted(network, options, reason):
    write_photographs(Path("photos"))
    found = measured(network, **options).attribution
    assert found["method"] == "conversion"
    assert reason in found["explanation"][0]
    assert found["explanation"][0].endswith("this one converts the weights instead.")
    assert "unconverted" in found["consistency"]


def test_scenes_come_in_batches():
    files = find_images(write_photographs(Path("photos"), 3))
    layout = ImageLayout((24, 24), 8, "crop", (0.5,) * 3, (0.5,) * 3)
    found = ContextAttribution(pooled(*SMALL), Photographs(files, layout, 2, 0), 0, torch.device("cpu"))
    assert found.to_dict()["images"] == 0
    for scenes, targets, index in found.photographs.batches(torch.device("cpu")):
        found.update(scenes, targets, index)
    assert len(torch.cat(found.rows)) == 3
