"""A policy that cannot be put on a window larger than one pixel is an error, unless partial conversions are allowed."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from tinv import convert
from tinv.errors import TinvError
from tinv.graph.analysis import analyze

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Unknown(nn.Module):
    """Positions are not known after it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, images):
        shuffled = self.first(images)[:, :, torch.randperm(30)][:, :, :, torch.randperm(30)]
        return self.third(self.second(shuffled)).mean((2, 3))


class Padded(nn.Conv2d):
    def forward(self, images):
        return super().forward(F.pad(images, (1, 1, 1, 1)))


class Called(nn.Module):
    """A convolution that is a call, with weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))

    def forward(self, images):
        return F.conv2d(images, self.weight, None, 2, 1).mean((2, 3))


def test_layers_that_a_policy_cannot_be_put_on_are_an_error_that_names_them_and_why():
    with pytest.raises(
        TinvError, match=r"2 layers cannot take padding=full_zero: second: the positions .* after getitem"
    ):
        convert(Unknown(), "full_zero", example_input=IMAGES)


def test_partial_converts_the_rest_and_says_so():
    network = convert(Unknown(), "full_zero", partial=True, example_input=IMAGES)
    assert network.first.padding == (2, 2)
    assert network.second.padding == (0, 0)
    assert [note.layer for note in network.conversion.partial] == ["second", "third"]
    assert str(network.conversion).startswith("partial: ")
    assert (
        convert(torchvision.models.resnet18(), "full_zero", partial=True, example_input=IMAGES).conversion.partial == []
    )


@pytest.mark.filterwarnings("ignore:.*changed nothing.*")
@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (Padded(3, 4, 3), "Padded"),
        (nn.ConvTranspose2d(3, 4, 3, 2), "ConvTranspose2d"),
        (nn.Unfold(3), "patches"),
        (nn.LPPool2d(2, 2), "LPPool2d"),
        (nn.ConstantPad2d(1, 0.5), "number other than zero"),
    ],
)
def test_windows_that_cannot_take_a_policy_are_refused_by_name(layer, name):
    with pytest.raises(TinvError, match=rf"layer 0.*{name}"):
        convert(nn.Sequential(layer), "full_zero", example_input=IMAGES)
    assert len(convert(nn.Sequential(layer), "full_zero", partial=True, example_input=IMAGES).conversion.partial) == 1


@pytest.mark.parametrize(
    "between",
    [
        nn.ZeroPad2d(1),
        nn.ReflectionPad2d(1),
        nn.ReplicationPad2d(1),
        nn.CircularPad2d(1),
        nn.PixelUnshuffle(2),
        nn.PixelShuffle(2),
        nn.Upsample(scale_factor=2),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.ChannelShuffle(2),
        nn.LocalResponseNorm(3),
        torchvision.ops.FrozenBatchNorm2d(4),
    ],
    ids=lambda m: type(m).__name__,
)
def test_common_operations_leave_the_layers_behind_them_convertible(between):
    channels = {"PixelUnshuffle": 16, "PixelShuffle": 1}.get(type(between).__name__, 4)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), between, nn.Conv2d(channels, 4, 3))
    for padding in ("same_circular", "full_zero"):
        converted = convert(network, padding, example_input=IMAGES)
        assert converted.conversion.skipped == []
        assert converted.conversion.counts["convolutions padded"] == 2
        assert converted(IMAGES).isfinite().all()


def test_explicit_padding_is_replaced_by_that_of_the_policy():
    """Two ways to write the same network are the same network under a policy."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3, padding=1)
    bare = nn.Conv2d(3, 4, 3)
    bare.load_state_dict(layer.state_dict())
    written = convert(nn.Sequential(nn.ReflectionPad2d(1), bare), "same_circular", example_input=IMAGES)
    plain = convert(nn.Sequential(layer), "same_circular", example_input=IMAGES)
    torch.testing.assert_close(written(IMAGES), plain(IMAGES), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:.*changed nothing.*")
def test_explicit_padding_for_one_reader_does_not_reach_another():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = nn.MaxPool2d(3, 1)

        def forward(self, images):
            return self.pool(F.pad(images, (1, 1, 1, 1))).mean((2, 3)) + self.pool(images).mean((2, 3))

    images = IMAGES.abs()
    torch.testing.assert_close(convert(Two(), "same_zero", example_input=images, partial=True)(images), Two()(images))


def test_a_convolution_that_is_a_call_takes_every_policy():
    network, images = Called().double(), IMAGES.double()
    exact = convert(network, "same_circular", "aps", stem="convert", example_input=images)
    assert analyze(exact, images).verdict.circular[0].unit == 1
    with torch.no_grad():
        torch.testing.assert_close(exact(images.roll((1, 3), (2, 3))), exact(images), rtol=1e-12, atol=1e-12)


def test_a_slice_of_every_other_pixel_is_a_stride():
    class Shortcut(nn.Module):
        def forward(self, images):
            return F.pad(images[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1)).square().mean((2, 3))

    images = IMAGES.double()
    network = convert(Shortcut(), "keep", "aps", example_input=images)
    assert network.conversion.counts == {"strides replaced": 1}
    torch.testing.assert_close(network(images.roll((1, 1), (2, 3))), network(images), rtol=1e-12, atol=1e-12)

    class Odd(nn.Module):
        def forward(self, images):
            return images[:, :, 1::2, ::2].mean((2, 3))

    with pytest.raises(TinvError, match="positions that do not begin at the first one"):
        convert(Odd(), "keep", "aps", example_input=images)


@pytest.mark.parametrize("how", [{"scale_factor": 2}, {"size": "skip"}])
@pytest.mark.parametrize("padding", ["full_zero", "full_background", "same_circular", "valid"])
def test_an_hourglass_takes_every_padding(how, padding):
    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.down = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, 2, 1)
            self.up, self.out = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

        def forward(self, images):
            a = F.relu(self.a(images))
            size = {"size": a.shape[2:]} if "size" in how else how
            b = F.interpolate(F.relu(self.down(a)), **size)
            return self.out(F.relu(self.up(torch.cat([a, b], 1))))

    images = IMAGES.double()
    network = convert(UNet().double(), padding, example_input=images)
    assert network(images).isfinite().all()
    assert network(torch.randn(1, 3, 46, 50, dtype=torch.double)).shape[0] == 1
    if padding in ("full_background", "same_circular"):
        found = analyze(network, images).verdict
        assert (found.name, found.zero_canvas[0].unit) == ("equivariant", 2)


def test_background_that_cannot_be_followed_is_refused_by_name():
    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, images):
            x = self.a(images)
            return self.b(F.layer_norm(x, x.shape[1:])).mean((2, 3))

    with pytest.raises(TinvError, match="layer layer_norm: background padding cannot follow"):
        convert(Norm(), "full_background", example_input=IMAGES)


def test_a_head_of_fixed_size_says_that_the_padding_changes_the_map():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4096, 2))
    with pytest.raises(TinvError, match="takes 4096 features, its input has 4624; padding=full_zero changes the size"):
        convert(network, "full_zero", example_input=IMAGES)


class Reduction(nn.Module):
    """Halves a map twice, once moved by a pixel, as NASNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.conv = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(8, 4, 3, padding=1)
        self.move = nn.ZeroPad2d((-1, 1, -1, 1))

    def forward(self, images):
        moved = F.avg_pool2d(self.move(images), 1, 2)
        return F.relu(self.conv(torch.cat([self.a(F.avg_pool2d(images, 1, 2)), self.b(moved)], 1))).mean((2, 3))


def test_a_map_that_is_moved_by_its_padding_gains_what_the_policy_pads_with():
    images = IMAGES.double()
    network = Reduction().double()
    ring = convert(network, "same_circular", example_input=images)
    assert ring.conversion.partial == []
    by_hand = convert(network, "same_circular", example_input=images)
    by_hand.register_forward_pre_hook(lambda _, given: (given[0].roll((2, 4), (2, 3)),))
    with torch.no_grad():
        torch.testing.assert_close(ring(images), by_hand(images), rtol=1e-12, atol=1e-12)
    assert analyze(ring, images).verdict.circular[0].unit in (2, None)
    full = convert(network, "full_zero", example_input=images)
    assert analyze(full, images).verdict.circular[0].unit is None
    assert full(images).isfinite().all()
    with pytest.raises(TinvError, match="layer move: it pads some sides and crops others"):
        convert(network, "valid", example_input=images)


class LastAxis(nn.Module):
    """A gated block whose maps are (N, H, W, C), of which a part of the channels is convolved, as MambaOut's are."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.conv = nn.Conv2d(3, 8, 1), nn.LayerNorm(8), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, images):
        x = self.norm(self.stem(images).permute(0, 2, 3, 1))
        kept, convolved = x.split((4, 4), -1)
        convolved = self.conv(convolved.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return torch.cat([kept, F.relu(convolved)], -1).mean((1, 2))


@pytest.mark.parametrize("padding", ["full_zero", "full_background", "valid"])
def test_branches_whose_channels_are_the_last_axis_are_aligned(padding):
    class FirstAxis(LastAxis):
        """The same network with channels where they usually are."""

        def forward(self, images):
            x = self.norm(self.stem(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            kept, convolved = x.split((4, 4), 1)
            return torch.cat([kept, F.relu(self.conv(convolved))], 1).mean((2, 3))

    torch.manual_seed(0)
    images, network, usual = IMAGES.double(), LastAxis().double(), FirstAxis().double()
    usual.load_state_dict(network.state_dict())
    converted, expected = (convert(n, padding, example_input=images) for n in (network, usual))
    assert converted.conversion.counts["branches aligned"] == 1
    for given in (images, torch.randn(1, 3, 21, 26, dtype=torch.double)):
        torch.testing.assert_close(converted(given), expected(given), rtol=1e-12, atol=1e-12)
    assert analyze(converted, images).verdict.zero_canvas == analyze(expected, images).verdict.zero_canvas
