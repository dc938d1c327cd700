import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tinv import convert
from tinv.errors import TinvError
from tinv.testing import assert_equivariant, assert_invariant


def network(stride: int = 1, mode: str = "circular") -> nn.Module:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, stride=stride, padding=1, padding_mode=mode)
    return nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()


def images(size: int = 12, content: int | None = None) -> torch.Tensor:
    content = content or size
    made = torch.randn(2, 3, content, content, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    room = size - content
    return F.pad(made, (room // 2, room - room // 2) * 2)


def test_an_invariant_network_passes_and_another_is_described():
    assert_invariant(network(), images())
    with pytest.raises(AssertionError, match=r"changes under \d+ of \d+ shifts tried; the worst is by \(.*image [01]"):
        assert_invariant(network(mode="zeros"), images())


def test_multiples_of_the_stride_pass_and_others_do_not():
    assert_invariant(network(stride=2), images(), multiples_of=2)
    with pytest.raises(AssertionError, match="shifts tried"):
        assert_invariant(network(stride=2), images())
    exact = convert(network(stride=2), "same_circular", "aps", stem="convert", example_input=images())
    assert_invariant(exact, images())


def test_content_moves_on_a_zero_canvas_only_as_far_as_it_stays_inside():
    plain = network(mode="zeros")
    plain[0].bias.data.zero_()
    assert_invariant(plain, images(size=16, content=8), "zero_canvas", up_to=3)
    with pytest.raises(AssertionError, match="changes"):
        assert_invariant(plain, images(size=16, content=8), "zero_canvas", up_to=4)  # touches the border
    with pytest.raises(TinvError, match="leave more zeros"):
        assert_invariant(plain, images(), "zero_canvas")


def test_shifts_of_a_list_are_the_ones_that_are_tried():
    seen = []

    def record(batch: torch.Tensor) -> torch.Tensor:
        seen.append(batch)
        return batch.sum((2, 3))

    batch = images()
    assert_invariant(record, batch, [(1, 0), (-2, 3)])
    assert [torch.equal(s, batch.roll(by, (2, 3))) for s, by in zip(seen, [(0, 0), (1, 0), (-2, 3)], strict=True)]


@pytest.mark.parametrize("stride", [1, 2, (1, 2), (2, 3)])
def test_maps_move_by_one_position_for_each_stride(stride):
    conv = nn.Conv2d(3, 4, 3, stride=stride, padding=1, padding_mode="circular").double()
    assert_equivariant(conv, images(), stride=stride)
    with pytest.raises(AssertionError, match="does not move"):
        assert_equivariant(nn.Conv2d(3, 4, 3, stride=stride, padding=1).double(), images(), stride=stride)


def test_a_difference_that_is_no_number_is_a_difference():
    batch = images()
    with pytest.raises(AssertionError, match="not finite"):
        assert_invariant(lambda x: x.sum((2, 3)) / 0, batch)
    with pytest.raises(AssertionError, match="by up to inf"):
        assert_invariant(lambda x: x.sum((2, 3)) * (1 if torch.equal(x, batch) else float("nan")), batch)


def test_modes_of_the_network_are_left_as_they_are():
    model = network().train()
    model[0].eval()
    assert_invariant(model, images())
    assert [module.training for module in model.modules()] == [True, False, True, True, True]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shifts": "diagonal"}, "diagonal"),
        ({"shifts": [(1,)]}, "2 spatial axes need 2 numbers"),
        ({"up_to": 2, "multiples_of": 3}, "no shift of up to 2 pixels by multiples of 3"),
    ],
)
def test_bad_options_are_named(given, message):
    with pytest.raises(TinvError, match=message):
        assert_invariant(network(), images(), **given)


def test_shifts_that_are_no_multiple_of_the_stride_are_refused():
    with pytest.raises(TinvError, match=r"\(1, 0\) pixels is no multiple of the stride 2"):
        assert_equivariant(nn.MaxPool2d(2), images(), [(1, 0)], stride=2)


def test_the_example_of_the_page_runs(capsys):
    page = Path(__file__).parents[1] / "docs/how-to/test-a-network.md"
    [code] = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    exec(compile(code, str(page), "exec"), {})
    assert "shifts tried" in capsys.readouterr().out
