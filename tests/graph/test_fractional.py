"""Networks that follow shifts by parts of a pixel, those that do not, and whether the verdict tells them apart."""

import json

import pytest
import torch
from band_limited import moved, noise, relative
from torch import nn

from tinv import convert, summary
from tinv.graph.analysis import analyze

SIZE = 28
IMAGES = noise(2, 3, SIZE, SIZE, deviation=2.0)
NORMS = {
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(1, channels),
    "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
}


class LayerNorm2d(nn.LayerNorm):
    def forward(self, images):
        return super().forward(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """As in a ConvNeXt."""

    def __init__(self, channels: int, norm, act: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.norm, self.act = norm(channels), act
        self.grow, self.shrink = nn.Conv2d(channels, 2 * channels, 1), nn.Conv2d(2 * channels, channels, 1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.Sigmoid())

    def forward(self, images):
        changed = self.shrink(self.act(self.grow(self.norm(self.conv(images)))))
        return images + changed * self.gate(changed)


def network(norm, act: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(0)
    act = act or nn.GELU()
    first = [nn.Conv2d(3, 6, 4, 2, 1), norm(6), Block(6, norm, act)]
    model = nn.Sequential(*first, nn.Conv2d(6, 8, 2, 2), Block(8, norm, act), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, 1.0 if "weight" in name else 0.0, 0.5)
        else:
            parameter.data *= 3
    for name, buffer in model.named_buffers():
        if "running" in name:
            nn.init.uniform_(buffer, 0.5, 1.5)
    return model.double().eval()


def made(norm, activation: str = "poly2", subsampling: str = "ideal", padding: str = "same_circular", **options):
    model = network(norm, **options)
    return convert(model, padding, subsampling, stem="convert", activation=activation, example_input=IMAGES)


@torch.no_grad()
def change(model: nn.Module, by: tuple[float, float]) -> float:
    return relative(model(moved(IMAGES, by)), model(IMAGES))


SHIFTS = [(0.3, 0.2), (1.7, -2.4), (1.0, 3.0)]


@pytest.mark.parametrize("norm", NORMS)
def test_polynomials_between_ideal_filters_are_exact_for_every_shift(norm):
    model = made(NORMS[norm])
    assert max(change(model, by) for by in SHIFTS) < 1e-12
    found = analyze(model, IMAGES).verdict
    assert [shifts.exact for shifts in found.fractional] == [True, True]
    # whole pixels of any image are followed too, also between the multiples of the strides
    assert [shifts.unit for shifts in found.circular] == [1, 1]
    images = torch.randn(1, 3, SIZE, SIZE, dtype=torch.double)
    with torch.no_grad():
        assert relative(model(images.roll((1, 3), (2, 3))), model(images)) < 1e-12
    assert "circular shifts by parts of a pixel: every shift of band-limited images" in str(found)


@pytest.mark.parametrize(
    ("options", "layer", "reason"),
    [
        ({"norm": LayerNorm2d}, "1", "statistic of each position"),
        ({"activation": "up2"}, "2.act", "beyond its finer grid"),
        ({"activation": "keep"}, "2.act", "makes frequencies that the positions cannot hold"),
        ({"subsampling": "keep"}, "0", "stride 2"),
        ({"subsampling": "blur3"}, "0 + blur3", "stride 2"),
        ({"subsampling": "aps"}, "0 + aps", "chooses among whole positions"),
        ({"padding": "same_zero"}, "0", "pads with zeros"),
    ],
)
def test_what_breaks_them_is_named(options, layer, reason):
    model = made(**{"norm": nn.BatchNorm2d, **options})
    assert max(change(model, by) for by in SHIFTS[:2]) > 1e-9
    for shifts in analyze(model, IMAGES).verdict.fractional:
        assert not shifts.exact
        assert (shifts.layer, reason in shifts.reason) == (layer, True)


class Steps(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")
        self.function = function

    def forward(self, images):
        return self.function(self.conv(images)).mean((2, 3))


@pytest.mark.parametrize(
    ("function", "exact"),
    [
        (lambda x: 2 * x - 1 + x / 3, True),
        (lambda x: x * x.mean((2, 3), keepdim=True), True),
        (lambda x: x / x.std((2, 3), keepdim=True), True),
        (lambda x: x.roll(2, 3).flip(2), True),
        (lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), True),
        (lambda x: nn.functional.avg_pool2d(nn.functional.pad(x, (1, 1, 1, 1), "circular"), 3, 1), True),
        (lambda x: x * x[:, :1] * x[:, 1:2], False),
        (lambda x: 1 / (9 + x), False),
        (lambda x: x.amax(1, keepdim=True), False),
        (lambda x: x.abs(), False),
        (lambda x: torch.maximum(x, -x[:, :1]), False),
        (lambda x: x.softmax(1), False),
        (lambda x: nn.functional.normalize(x, dim=1), False),
        (lambda x: nn.functional.max_pool2d(nn.functional.pad(x, (1, 1, 1, 1), "circular"), 3, 1), False),
        (lambda x: x.amax((2, 3), keepdim=True), False),
        (lambda x: nn.functional.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2), False),
    ],
)
def test_single_steps(function, exact):
    torch.manual_seed(1)
    model = Steps(function).double()
    assert [shifts.exact for shifts in analyze(model, IMAGES).verdict.fractional] == [exact, exact]
    largest = max(change(model, by) for by in SHIFTS[:2])
    assert largest < 1e-12 if exact else largest > 1e-6


def test_norms_are_classified_layer_by_layer():
    for norm, statistics in (
        *zip(NORMS.values(), ("constant", "pooled", "pooled"), strict=True),
        (LayerNorm2d, "per_position"),
    ):
        found = summary(network(norm), IMAGES)
        layers = [layer for layer in found.analysis.layers if layer.name in ("1", "2.norm")]
        assert [layer.statistics for layer in layers] == [statistics] * 2
        told = json.loads(json.dumps(found.to_dict()))
        assert {layer["statistics"] for layer in told["layers"]} == {None, statistics}
        assert [set(axis) for axis in told["verdict"]["fractional"]] == [{"exact", "layer", "reason", "order"}] * 2
        # whatever the statistics, whole positions are followed
        assert all("norm" not in shifts.reason for shifts in found.verdict.circular)
