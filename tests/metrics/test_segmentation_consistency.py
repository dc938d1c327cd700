"""Segmentation consistency: equal to a loop over pixels, 100 where the network is equivariant, below where not."""

import pytest
import torch
from torch import nn

from tinv.errors import TinvError
from tinv.metrics import SegmentationConsistency
from tinv.nn import AdaptivePolyphaseSampling, PaddedConv2d, PolyphaseUnpooling
from tinv.translation import draw_offsets


class UNet(nn.Module):
    """One level: down by two, a convolution, up again; with what was chosen, or with the first of each two pixels."""

    def __init__(self, adaptive: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        mode = "circular"
        self.before = PaddedConv2d(3, 6, 3, padding_mode=mode)
        self.deep = PaddedConv2d(6, 6, 3, padding_mode=mode)
        self.after = PaddedConv2d(12, 4, 3, padding_mode=mode)
        self.pool, self.unpool, self.adaptive = AdaptivePolyphaseSampling(2), PolyphaseUnpooling(2), adaptive

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        skip = self.before(images).relu()
        if self.adaptive:
            maps, choice = self.pool.sample_with_choice(skip)
            up = self.unpool(self.deep(maps).relu(), choice, images.shape[2:])
        else:
            maps = self.deep(skip[..., ::2, ::2]).relu()
            up = self.unpool(maps, maps.new_zeros(len(maps), dtype=torch.long), images.shape[2:])
        return self.after(torch.cat([skip, up], dim=1))


def measured(metric: SegmentationConsistency, network: nn.Module, images: torch.Tensor, batch: int = 10) -> float:
    with torch.no_grad():
        for part in torch.arange(len(images)).split(batch):
            metric.update(network, images[part], None, torch.zeros(len(part)), part)
    return float(metric.compute()["segmentation_consistency"])


def test_a_u_net_that_unpools_what_it_chose_is_consistent_and_another_is_not():
    images = torch.randn(10, 3, 16, 12, dtype=torch.double)
    exact = measured(SegmentationConsistency(8, "circular"), UNet(True).double(), images)
    plain = measured(SegmentationConsistency(8, "circular"), UNet(False).double(), images)
    assert exact == 100
    assert plain < 95


@pytest.mark.parametrize("mode", ["crop", "zero"])
@pytest.mark.parametrize("stride", [1, 2])
def test_overlaps_equal_a_loop_over_pixels(mode, stride):
    torch.manual_seed(0)
    network = nn.Conv2d(1, 3, 3, stride=stride, padding=1).eval()
    images = torch.randn(6, 1, 18, 22)
    metric = SegmentationConsistency(4, mode, stride, passes=2, seed=5)
    found = measured(metric, network, images, 4)
    shares = []
    with torch.no_grad():
        for number, image in enumerate(images):
            for turn in (0, 1):
                views = []
                for view in (0, 1):
                    draw = draw_offsets(torch.tensor([number]), 4 // stride + 1, 5, 2 * turn + view)[0]
                    x, y = (int(value) * stride for value in draw)
                    if mode == "crop":
                        shown, content = image[:, y : y + 14, x : x + 18], (y, x)
                    else:
                        shown, content = torch.zeros_like(image), (2 - y, 2 - x)
                        for row in range(18):
                            for column in range(22):
                                if 0 <= row + 2 - y < 18 and 0 <= column + 2 - x < 22:
                                    shown[0, row, column] = image[0, row + 2 - y, column + 2 - x]
                    classes = network(shown[None])[0].argmax(0)
                    # the class of every pixel of the scene that the view has a position for
                    views.append(
                        {
                            (content[0] + stride * row, content[1] + stride * column): int(classes[row, column])
                            for row in range(classes.shape[0])
                            for column in range(classes.shape[1])
                        }
                    )
                both = views[0].keys() & views[1].keys()
                shares.append(sum(views[0][pixel] == views[1][pixel] for pixel in both) / len(both))
    assert found == pytest.approx(100 * sum(shares) / len(shares))
    assert 0 < found < 100


def test_results_do_not_depend_on_the_batch():
    network, images = UNet(False), torch.randn(9, 3, 8, 8)
    one, many = (measured(SegmentationConsistency(4), network, images, batch) for batch in (9, 2))
    assert one == pytest.approx(many)


def test_the_map_of_a_dictionary_is_found_and_other_outputs_are_refused():
    class Out(nn.Module):
        def __init__(self, key: str) -> None:
            super().__init__()
            self.key, self.conv = key, nn.Conv2d(3, 2, 1)

        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return {self.key: self.conv(images)}

    images = torch.randn(2, 3, 8, 8)
    assert measured(SegmentationConsistency(4), Out("out"), images) == 100
    with pytest.raises(TinvError, match="the network returns a dict, not class scores"):
        measured(SegmentationConsistency(4), Out("logits"), images)
    with pytest.raises(TinvError, match=r"returns \(2, 2, 4, 4\), not class scores .*; give the stride of its output"):
        measured(SegmentationConsistency(4), nn.Conv2d(3, 2, 1, stride=2), images)
    with pytest.raises(TinvError, match="mode fractional moves by parts of a pixel"):
        SegmentationConsistency(4, "fractional")
    with pytest.raises(TinvError, match="must be a multiple of stride=3"):
        SegmentationConsistency(4, stride=3)
