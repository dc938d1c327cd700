"""The verdict on networks as users write them: what it calls exact is exact, and what it refuses is not."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from tinv import convert
from tinv.graph.analysis import analyze
from tinv.graph.exact_invariance import ExactInvariance

IMAGES = torch.randn(1, 3, 64, 64, dtype=torch.double, generator=torch.Generator().manual_seed(0))


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)


class Base(nn.Module):
    """Two convolutions and a pooled head; `middle` is what is tried between them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = conv(3, 8, 3, 2), conv(8, 8)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
        self.p = nn.Parameter(torch.randn(1, 8, 32, 32))
        self.norm = nn.LayerNorm((8, 32, 32))
        nn.init.normal_(self.norm.weight)
        self.local = nn.LocalResponseNorm(3)
        self.linear = nn.Linear(8, 8)

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.b(F.relu(self.middle(self.a(images))))))


class Maxout(Base):
    def middle(self, x):
        return torch.max(*torch.cat([x, -x], 1).chunk(2, 1))


class PositionTable(Base):
    def middle(self, x):
        return x + self.p


class PositionMask(Base):
    def middle(self, x):
        return torch.where(self.p > 0, x, -x)


class ImageNorm(Base):
    def middle(self, x):
        return self.norm(x)


class CallOfNorm(Base):
    def middle(self, x):
        return F.layer_norm(x, x.shape[1:])


class Argmax(Base):
    def middle(self, x):
        return x * x.flatten(2).argmax(-1)[:, :, None, None]


class Cumulative(Base):
    def middle(self, x):
        return x.cumsum(2)


class Local(Base):
    def middle(self, x):
        return self.local(x) * torch.ones_like(x)


class FlatMean(Base):
    def forward(self, images):
        return self.b(self.a(images)).flatten(2).mean(-1)


class ViewMax(Base):
    def forward(self, images):
        x = self.b(self.a(images))
        return x.view(x.shape[0], x.shape[1], -1).max(2)[0]


class SortPool(Base):
    def forward(self, images):
        return self.b(self.a(images)).flatten(2).sort(-1, descending=True)[0][..., :5]


class Context(Base):
    def forward(self, images):
        x = self.b(self.a(images))
        return (x.flatten(2) * x.mean(1, keepdim=True).flatten(2).softmax(-1)).sum(-1)


class Tokens(Base):
    def forward(self, images):
        tokens = self.linear(self.a(images).flatten(2).transpose(1, 2))
        return F.scaled_dot_product_attention(tokens, tokens, tokens).mean(1)


def changes(network: nn.Module, unit: int) -> float:
    with torch.no_grad():
        before = network(IMAGES)
        moved = [network(IMAGES.roll((k * unit, -k * unit), (2, 3))) for k in (1, 3)]
    return max(float((after - before).abs().max() / before.abs().max()) for after in moved)


def said(network: nn.Module, padding: str, subsampling: str = "keep", **options) -> tuple[nn.Module, ExactInvariance]:
    converted = convert(network.double().eval(), padding, subsampling, stem="convert", example_input=IMAGES, **options)
    return converted, analyze(converted, IMAGES).verdict


@pytest.mark.parametrize("network", [PositionTable, PositionMask, ImageNorm, Argmax, Cumulative])
def test_what_tells_positions_apart_is_never_called_exact(network):
    converted, found = said(network(), "same_circular")
    assert [standing.unit for standing in (*found.circular, *found.zero_canvas)].count(None) >= 2
    broken = [standing for standing in found.circular if standing.unit is None]
    assert broken
    assert changes(converted, 2) > 1e-6


@pytest.mark.parametrize(
    "network", [Maxout, CallOfNorm, Local, FlatMean, ViewMax, SortPool, Context, Tokens], ids=lambda n: n.__name__
)
@pytest.mark.parametrize(("subsampling", "unit"), [("keep", 2), ("aps", 1)])
def test_what_takes_positions_together_stays_exact(network, subsampling, unit):
    converted, found = said(network(), "same_circular", subsampling)
    assert [standing.unit for standing in (*found.circular, *found.zero_canvas)] == [unit] * 4
    assert changes(converted, unit) < 1e-12


def test_elementwise_maxima_leave_no_convolution_unconverted():
    converted, _ = said(Maxout(), "same_circular", "aps")
    assert converted.conversion.skipped == []


def test_a_norm_over_the_image_moves_what_is_blank_so_that_zeros_are_not():
    """Statistics over the image turn blank cells into the mean's distance from zero."""
    network = timm.create_model("poolformer_s12", num_classes=10).double().eval()
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        if "scale" in name:
            nn.init.ones_(parameter)
    canvas = torch.zeros(1, 3, 64, 64, dtype=torch.double)
    converted = convert(network, "full_zero", pool="full", example_input=canvas)
    assert analyze(converted, canvas).verdict.zero_canvas[0].unit is None


def test_indices_of_a_pool_say_where_the_maximum_is():
    class Unpooled(Base):
        def forward(self, images):
            x, index = F.max_pool2d(F.relu(conv_of(self)(images)), 2, return_indices=True)
            return self.b(F.max_unpool2d(x, index, 2)).mean((2, 3))

    def conv_of(network):
        return network.a

    found = analyze(Unpooled().double().eval(), IMAGES).verdict
    assert {standing.unit for standing in (*found.circular, *found.zero_canvas)} == {None}


def test_a_map_is_equivariant_at_best_and_moves_by_the_stride():
    network = nn.Sequential(conv(3, 8, 3, 2), nn.ReLU(), conv(8, 4))
    converted, found = said(network, "same_circular")
    assert found.name == "equivariant"
    assert found.output_stride == (2, 2)
    assert "it moves by one for each 2 pixels" in str(found)
    assert "invariant" not in str(found)
    with torch.no_grad():
        torch.testing.assert_close(converted(IMAGES.roll(4, 2)), converted(IMAGES).roll(2, 2), rtol=0, atol=1e-12)
    # adaptive layers keep one of several positions: only multiples of the stride move the map by whole positions
    assert said(network, "same_circular", "aps")[1].circular[0].unit == 2


def test_what_is_exact_for_rolls_is_exact_on_a_canvas_for_the_same_multiples():
    _, found = said(Base(), "same_circular")
    assert [standing.unit for standing in found.zero_canvas] == [standing.unit for standing in found.circular] == [2, 2]
    assert said(Base(), "valid")[1].zero_canvas[0].unit is None


def test_instance_norm_without_statistics_is_judged():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.InstanceNorm2d(8), nn.AdaptiveAvgPool2d(1))
    assert analyze(network, torch.zeros(1, 3, 32, 32)).verdict.circular[0].unit is None


def test_a_map_that_was_broken_along_one_axis_is_exact_along_the_other():
    class Row(Base):
        def middle(self, x):
            return x * self.p[..., :1]

    _, found = said(Row(), "same_circular")
    assert [standing.unit for standing in found.circular] == [None, 2]


@pytest.mark.parametrize(
    ("draw", "always"),
    [
        (lambda x, training: F.dropout(x, 0.5), True),
        (lambda x, training: F.dropout2d(x, 0.5), True),
        (lambda x, training: F.alpha_dropout(x, 0.5, True), True),
        (lambda x, training: F.rrelu(x, training=True), True),
        (lambda x, training: F.dropout(x, 0.5, training), False),
        (lambda x, training: F.dropout(x, training=training), False),
        (lambda x, training: F.dropout(x, 0.0), False),
        (lambda x, training: F.alpha_dropout(x, 0.5), False),
    ],
)
def test_a_dropout_that_is_never_off_breaks_every_claim(draw, always):
    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")

        def forward(self, images):
            return draw(self.conv(images), self.training).mean((2, 3))

    shifts = analyze(Dropping(), torch.zeros(1, 3, 8, 8)).verdict.circular[0]
    assert shifts.unit == (None if always else 1)
    assert ("draws random numbers" in shifts.reason) == always
