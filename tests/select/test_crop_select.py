"""The crop that is chosen, against a slow reference; the same pixels while the maximum stays; certificates."""

import itertools

import pytest
import torch
from torch import nn

from tinv.errors import TinvError
from tinv.select import CenterCrop, CropSelect, LaplacianEnergy, RandomFilter


def textured(count: int, height: int, width: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, height, width, generator=draw, dtype=dtype)


def smooth(count: int, side: int, seed: int = 0) -> torch.Tensor:
    """Images whose scores rise over several pixels, so that maxima crowd at the border of the range."""
    return nn.functional.avg_pool2d(textured(count, side + 10, side + 10, seed), 11, 1) * 11


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)).double()


def same(images: torch.Tensor) -> torch.Tensor:
    return images


def reference(image: torch.Tensor, kernel: torch.Tensor, crop: tuple[int, int], suppress: int) -> tuple[int, int]:
    """The first row and column of the crop of one image, with loops."""
    grey, reach = image.mean(0), kernel.shape[0] // 2

    def score(y: int, x: int) -> float:
        return float((grey[y - reach : y + reach + 1, x - reach : x + reach + 1] * kernel).sum())

    best, best_peak = None, None
    for top in range(image.shape[1] - crop[0] + 1):
        for left in range(image.shape[2] - crop[1] + 1):
            y, x = top + crop[0] // 2, left + crop[1] // 2
            near = itertools.product(range(-suppress, suppress + 1), repeat=2)
            here = score(y, x)
            if best is None or here > best[0]:
                best = (here, top, left)
            if all(score(y + dy, x + dx) <= here + 1e-12 for dy, dx in near) and (
                best_peak is None or here > best_peak[0]
            ):
                best_peak = (here, top, left)
    return (best_peak or best)[1:]


@pytest.mark.parametrize("suppress", [0, 1, 3])
@pytest.mark.parametrize("crop", [(12, 12), (13, 11)])
def test_the_choice_is_that_of_loops(suppress, crop):
    images = smooth(4, 20)
    selection = CropSelect(same, crop, RandomFilter(size=3, seed=5), suppress).double()
    expected = [reference(image, selection.score.kernel, crop, suppress) for image in images]
    assert selection.position(images).tolist() == [list(position) for position in expected]
    for image, chosen, (top, left) in zip(images, selection(images), expected, strict=True):
        assert torch.equal(chosen, image[:, top : top + crop[0], left : left + crop[1]])


def test_the_laplacian_has_its_maximum_where_detail_is():
    images = torch.zeros(1, 1, 30, 30)
    images[0, 0, 12:15, 16:19] = textured(1, 3, 3)[0, 0].float()
    selection = CropSelect(same, 20, LaplacianEnergy(size=5), 0)
    assert selection.position(images).sub(torch.tensor([13 - 10, 17 - 10])).abs().max() <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_the_output_is_the_same_to_the_last_bit_while_the_maximum_stays_inside(dtype, memory):
    scenes = textured(6, 60, 60, dtype=dtype).contiguous(memory_format=memory)
    stable, window = CropSelect(network().to(dtype), 24, "random", 2), slice(10, 50)
    chosen, before = stable.position(scenes[..., window, window]), stable(scenes[..., window, window])
    certificate = stable.certificate(scenes, 40)
    assert certificate.max() >= 2
    for dy, dx in itertools.product((-2, 0, 1), repeat=2):
        views = scenes[..., 10 + dy : 50 + dy, 10 + dx : 50 + dx]
        kept = certificate >= max(abs(dy), abs(dx))
        moved = stable.position(views) + torch.tensor([dy, dx])
        assert torch.equal(moved[kept], chosen[kept])
        assert torch.equal(stable(views)[kept], before[kept])


@pytest.mark.parametrize("suppress", [0, 2, 4])
@pytest.mark.parametrize("score", ["random", "laplacian"])
@pytest.mark.parametrize("scenes", [textured(12, 56, 52, 3), smooth(12, 54, 4)], ids=["noise", "smooth"])
def test_certificates_are_the_largest_shifts_that_keep_the_crop(suppress, score, scenes):
    """By every shift there is; nothing larger than the certificate holds either."""
    stable, room = CropSelect(same, 24, score, suppress), 8
    top, left = (scenes.shape[2] - 38) // 2, (scenes.shape[3] - 34) // 2
    found = stable.certificate(scenes, (38, 34))
    room = min(top, left)
    start = stable.position(scenes[..., top : top + 38, left : left + 34])
    longest = torch.full((len(scenes),), room)
    for dy, dx in itertools.product(range(-room, room + 1), repeat=2):
        view = scenes[..., top + dy : top + dy + 38, left + dx : left + dx + 34]
        follows = (stable.position(view) + torch.tensor([dy, dx]) == start).all(1)
        longest = torch.where(follows, longest, longest.clamp(max=max(abs(dy), abs(dx)) - 1))
    assert found.tolist() == longest.tolist()
    assert found.max() > 0


def test_a_window_without_more_around_it_has_no_certificate():
    assert CropSelect(same, 24).certificate(textured(3, 40, 40), 40).tolist() == [0, 0, 0]


def test_equal_scores_take_the_first_by_rows_and_have_no_certificate():
    stable, images = CropSelect(same, 16, "random", 2), torch.ones(2, 3, 40, 40)
    assert stable.position(images).tolist() == [[0, 0], [0, 0]]
    assert stable.certificate(images, 30).tolist() == [0, 0]
    images[0, 0, 0, 0] = torch.nan
    assert stable.certificate(images, 40).tolist() == [0, 0]


def test_suppression_takes_no_maximum_that_only_rises_to_one_outside():
    images = torch.zeros(1, 1, 32, 32)
    images[0, 0, 16, 14], images[0, 0, 16, 22] = 1.0, 3.0  # the second is a peak outside of the range 12 .. 20

    def hills(images):
        return nn.functional.avg_pool2d(images, 5, 1)

    def score(images):
        return hills(hills(images))

    assert CropSelect(same, (24, 24), score, 0).position(images).tolist() == [[4, 8]]
    assert CropSelect(same, (24, 24), score, 4).position(images).tolist() == [[4, 2]]


def test_suppression_keeps_more_crops():
    scenes = smooth(200, 62, 9)
    views = {move: scenes[..., 1 + move : 61 + move, 1:61] for move in (0, 1)}

    def kept(suppress: int) -> float:
        stable = CropSelect(same, 30, RandomFilter(5), suppress)
        follows = stable.position(views[1]) + torch.tensor([1, 0]) == stable.position(views[0])
        return float(follows.all(1).double().mean())

    assert kept(0) < kept(6)


def test_any_callable_is_a_score():
    images = textured(3, 30, 30)
    own, filtered = RandomFilter(5, 1), CropSelect(same, 16, RandomFilter(5, 1))
    assert torch.equal(CropSelect(same, 16, lambda images: own(images)).position(images), filtered.position(images))
    assert torch.equal(
        CropSelect(same, 16, lambda images: own(images)).certificate(images, 22), filtered.certificate(images, 22)
    )
    padded = nn.Conv2d(3, 1, 3, padding=1).double()
    assert CropSelect(network(), 16, padded)(images).shape == (3, 5)


def test_gradients_reach_the_chosen_pixels_and_the_parameters():
    images = textured(2, 30, 30).requires_grad_()
    stable = CropSelect(network(), 16, suppress=2)
    stable(images)
    stable(images).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in stable.network.parameters())
    for number, (top, left) in enumerate(stable.position(images).tolist()):
        outside = images.grad[number].clone()
        assert outside[:, top : top + 16, left : left + 16].abs().sum() > 0
        outside[:, top : top + 16, left : left + 16] = 0
        assert outside.abs().sum() == 0
    stable = CropSelect(lambda crops: crops.square().sum((1, 2, 3)), 16, suppress=2)
    assert torch.autograd.gradcheck(stable, textured(2, 20, 20).requires_grad_())


def test_scores_are_computed_in_full_precision_under_autocast_and_in_half_precision():
    images = textured(4, 40, 40, dtype=torch.float32)
    stable = CropSelect(same, 24)
    with torch.autocast("cpu", torch.bfloat16):
        assert stable.scores(images).dtype == torch.float32
        assert torch.equal(stable.scores(images), CropSelect(same, 24).scores(images.clone()))
        inside = stable.position(images)
    assert torch.equal(inside, stable.position(images))
    assert stable(images.half()).dtype == torch.float16
    assert stable.scores(images.half()).dtype == torch.float32
    # a filter that is rounded is centred again: on a constant image it answers 0
    assert float(stable.half().scores(torch.full((1, 3, 40, 40), 2.0)).abs().max()) < 1e-5


def test_a_seed_is_a_filter_of_zero_mean():
    first, again, other = RandomFilter(7, 3), RandomFilter(7, 3), RandomFilter(7, 4)
    assert torch.equal(first.kernel, again.kernel)
    assert not torch.equal(first.kernel, other.kernel)
    assert float(first.kernel.sum().abs()) < 1e-5
    assert not first.state_dict()  # the weights of the network alone load


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CropSelect(same, 24, "laplace"), "unknown score 'laplace'; did you mean laplacian?"),
        (lambda: CropSelect(same, 24, 3), "score is 3; give a name or a callable"),
        (lambda: CropSelect(3, 24), "network is a int, which cannot be called"),
        (lambda: CropSelect(same, 0), "crop must be a size in pixels such as 224"),
        (lambda: CropSelect(same, (1, 2, 3)), "crop must be a size in pixels such as 224"),
        (lambda: CropSelect(same, 24, suppress=-1), "suppress must be 0 or more, not -1"),
        (lambda: CropSelect(same, 10), "a score of 9 pixels with suppress=4 sees beyond a crop of 10 pixels"),
        (lambda: RandomFilter(8), "size must be an odd number of pixels from 3 on, not 8"),
        (lambda: CropSelect(same, 40)(torch.rand(1, 3, 39, 50)), "CropSelect cuts 40x40 pixels.*the images have 39x50"),
        (lambda: CenterCrop(same, 40)(torch.rand(1, 3, 39, 50)), "CenterCrop cuts 40x40 pixels.*have 39x50"),
        (
            lambda: CropSelect(same, 20)(torch.rand(3, 39, 50)),
            r"images \(N, C, H, W\), not torch.float32 \(3, 39, 50\)",
        ),
        (lambda: CropSelect(same, 20)(torch.ones(1, 3, 39, 50).byte()), "takes floating-point images"),
        (lambda: CropSelect(same, 20).certificate(torch.rand(1, 3, 30, 30), 31), "window 31x31 is larger than"),
        (lambda: CropSelect(same, 20).certificate(torch.rand(1, 3, 30, 30), 19), "CropSelect cuts 20x20"),
        (lambda: CropSelect(same, 20, lambda i: i)(torch.rand(1, 3, 30, 30)), "the score returns a tensor"),
        (lambda: CropSelect(same, 20, lambda i: None)(torch.rand(1, 3, 30, 30)), "the score returns a NoneType"),
        (lambda: CropSelect(same, 20, lambda i: i[:, :1, 1:])(torch.rand(1, 3, 30, 30)), "cannot be centred on pixels"),
        (
            lambda: CropSelect(same, 20, lambda i: i[:, :1, 9:-9, 9:-9])(torch.rand(1, 3, 30, 30)),
            "a score of 19 pixels with suppress=4 sees beyond a crop of 20",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(TinvError, match=message):
        make()
