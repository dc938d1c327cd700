"""Control flow that depends on sizes is followed, checked whenever the network runs, and never changes a claim."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tinv import convert
from tinv.errors import TinvError
from tinv.graph.analysis import analyze
from tinv.graph.decisions import same_decision

IMAGES = torch.randn(2, 3, 32, 32, dtype=torch.double, generator=torch.Generator().manual_seed(0))


class Windows(nn.Module):
    """A convolution in windows of 8 x 8, if the map is a multiple of them, and of the padded map otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, images):
        height, width = images.shape[2:]
        if height % 8 or width % 8:
            images = F.pad(images, (0, -width % 8, 0, -height % 8))
        if len(images.shape) != 4 or images.dtype == torch.float16:
            raise ValueError("unreachable")
        return F.relu(self.conv(images)).mean((2, 3))


class Loop(nn.Module):
    """As many steps as its map has rows in groups of eight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images):
        for _ in range(images.shape[-1] // 8):
            images = F.relu(self.conv(images))
        return images.mean((2, 3))


class OfBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images):
        return self.conv(images if images.shape[0] == 2 else images + 1).mean((2, 3))


@pytest.mark.filterwarnings("ignore:.*changed nothing.*")
@pytest.mark.parametrize("network", [Windows(), Loop()])
def test_control_flow_on_sizes_is_followed_and_the_verdict_is_true(network):
    network = network.double()
    converted = convert(network, "same_circular", example_input=IMAGES)
    assert converted.conversion.counts == {"convolutions padded": 1}
    assert analyze(converted, IMAGES).verdict.circular[0].unit == 1
    with torch.no_grad():
        torch.testing.assert_close(converted(IMAGES.roll((1, 3), (2, 3))), converted(IMAGES), rtol=1e-12, atol=1e-12)
        kept = convert(network, "same_zero", example_input=IMAGES, partial=True)
        torch.testing.assert_close(kept(IMAGES), network(IMAGES), rtol=0, atol=0)


@pytest.mark.parametrize("network", [Windows(), Loop()])
def test_a_size_at_which_control_flow_goes_another_way_is_an_error_and_others_are_not(network):
    converted = convert(network.double(), "same_circular", example_input=IMAGES)
    assert converted(IMAGES[:1]).shape[0] == 1
    if isinstance(network, Windows):
        assert converted(torch.cat([IMAGES, IMAGES], 3)).isfinite().all()
    for other in (IMAGES[:, :, :20, :20], IMAGES.repeat(1, 1, 3, 3)[:, :, :75, :75]):
        with pytest.raises(TinvError, match="the control flow of the network depends on the size of its map"):
            converted(other)
        with pytest.raises(TinvError, match="the control flow of the network depends on the size of its map"):
            analyze(converted, other)


def test_control_flow_that_a_policy_would_change_is_refused_by_name():
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), Windows())
    with pytest.raises(
        TinvError, match="layer 1: its control flow depends on the size of its map, which padding=full_zero changes"
    ) as error:
        convert(network, "full_zero", example_input=torch.zeros(1, 3, 32, 32))
    assert "\n" not in str(error.value)


def test_control_flow_on_the_batch_is_refused_when_it_is_converted():
    with pytest.raises(TinvError, match="the network: its control flow depends on the number of images in a batch"):
        convert(OfBatch().double(), "same_circular", example_input=IMAGES)


def test_control_flow_on_values_is_still_refused():
    class OfValues(OfBatch):
        def forward(self, images):
            return self.conv(images if images.sum() > 0 else images + 1).mean((2, 3))

    with pytest.raises(TinvError, match=r"layer 0 \(OfValues\) cannot be traced: its control flow needs the values"):
        convert(nn.Sequential(OfValues()), "same_circular", example_input=IMAGES.float())


def test_a_decision_is_compared_with_what_was_taken():
    same_decision(3, True, "a")
    same_decision(3, 3, "a")
    with pytest.raises(TinvError, match="the control flow of a "):
        same_decision(0, True, "a")
    with pytest.raises(TinvError, match="the control flow of a "):
        same_decision(4, 3, "a")


class Precise(nn.Module):
    """Computes a product in the precision of its input, whatever autocast says outside."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.after = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, images):
        x = self.conv(images).float()
        if x.device.type != "meta":
            with torch.autocast(device_type=x.device.type, enabled=False):
                x = x @ x
        else:
            x = x + 1
        return self.after(x)


@pytest.mark.filterwarnings("ignore:.*changed nothing.*")
def test_autocast_inside_of_a_network_is_kept_and_ends_with_it():
    torch.manual_seed(0)
    network, images = Precise(), IMAGES.float()
    converted = convert(network, "same_zero", example_input=images, partial=True)
    for enabled in (False, True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            torch.testing.assert_close(converted(images), network(images), rtol=0, atol=0)
            assert torch.is_autocast_enabled("cpu") == enabled
            with pytest.raises(RuntimeError):
                converted(images[..., :-1])
            assert torch.is_autocast_enabled("cpu") == enabled


class Biased(nn.Module):
    """Attention with a bias of its own for each pair of positions, in windows of 4 x 4 or over the whole map."""

    def __init__(self, windows: bool) -> None:
        super().__init__()
        self.windows, self.project = windows, nn.Conv2d(3, 4, 1)
        self.bias = nn.Parameter(torch.randn(16 if windows else 1024, 16 if windows else 1024))
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, images):
        x = self.project(images)
        n, c, h, w = x.shape
        size = 4 if self.windows else h
        x = x.view(n, c, h // size, size, w // size, size).permute(0, 2, 4, 3, 5, 1).reshape(-1, size * size, c)
        x = F.scaled_dot_product_attention(x, x, x, attn_mask=self.bias)
        x = x.view(n, h // size, w // size, size, size, c).permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)
        return F.relu(self.conv(x)).mean((2, 3))


@pytest.mark.parametrize(("windows", "unit"), [(True, 4), (False, None)])
def test_the_positions_of_a_map_are_known_behind_attention_with_a_bias(windows, unit):
    torch.manual_seed(0)
    network = convert(Biased(windows).double(), "same_circular", example_input=IMAGES)
    assert network.conversion.counts == {"convolutions padded": 1}
    assert analyze(network, IMAGES).verdict.circular[0].unit == unit
    with torch.no_grad():
        change = float((network(IMAGES.roll((4, 4), (2, 3))) - network(IMAGES)).abs().max())
    assert change < 1e-12 if windows else change > 1e-6


def test_a_bias_of_each_window_tells_windows_apart():
    torch.manual_seed(0)
    network = Biased(windows=True).double()
    network.bias = nn.Parameter(torch.randn(64, 16, 16, dtype=torch.double))  # of 8 x 8 windows
    one = IMAGES[:1]
    converted = convert(network, "same_circular", example_input=one)
    assert analyze(converted, one).verdict.circular[0].unit is None
    with torch.no_grad():
        assert float((converted(one.roll((4, 4), (2, 3))) - converted(one)).abs().max()) > 1e-6


class Tokens(nn.Module):
    """Reads the size of its map before a convolution, and makes tokens a map by it after them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.linear = nn.Linear(4, 4, bias=False)

    def forward(self, images):
        n, _, height, width = images.shape
        tokens = self.linear(self.a(images).flatten(2).transpose(1, 2))
        return F.relu(self.b(tokens.transpose(1, 2).reshape(n, -1, height, width))).mean((2, 3))


class Maps(Tokens):
    """The same network without tokens."""

    def forward(self, images):
        x = self.linear(self.a(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return F.relu(self.b(x)).mean((2, 3))


@pytest.mark.parametrize("padding", ["full_zero", "valid"])
def test_tokens_become_a_map_of_the_size_that_the_policy_gave_it(padding):
    torch.manual_seed(0)
    tokens, maps = Tokens().double(), Maps().double()
    maps.load_state_dict(tokens.state_dict())
    converted, expected = (convert(n, padding, example_input=IMAGES) for n in (tokens, maps))
    for images in (IMAGES, torch.randn(1, 3, 21, 26, dtype=torch.double)):
        torch.testing.assert_close(converted(images), expected(images), rtol=1e-12, atol=1e-12)
    units = [[s.unit for s in analyze(n, IMAGES).verdict.zero_canvas] for n in (converted, expected)]
    assert units[0] == units[1] == ([1, 1] if padding == "full_zero" else [None, None])


class Choosy(nn.Module):
    """Holds no window; at other sizes than 32 x 32 it does something else."""

    def forward(self, images):
        return images if images.shape[2] == 32 else images - 1


def test_a_module_without_windows_does_as_it_likes_at_the_size_that_the_policy_gives_it():
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), Choosy()).double()
    converted = convert(network, "full_zero", example_input=IMAGES)
    for images in (IMAGES, IMAGES[..., :30, :30]):
        expected = F.conv2d(images, network[0].weight, network[0].bias, padding=2)
        torch.testing.assert_close(converted(images), network[1](expected), rtol=1e-12, atol=1e-12)
    assert {shifts.unit for shifts in analyze(converted, IMAGES).verdict.circular} == {None}
