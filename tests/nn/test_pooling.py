import pytest
import torch
from torch.nn import functional as F

from tinv.errors import TinvError
from tinv.nn.pooling import Pool


def reference(kind: str, x: torch.Tensor, kernel: int, stride: int, left: int, right: int, dilation: int = 1):
    """Pools one axis of a (N, C, L) batch by hand, padded pixels left out."""
    size = x.shape[-1]
    columns = []
    for start in range(-left, size + right - dilation * (kernel - 1), stride):
        window = [start + dilation * k for k in range(kernel)]
        values = x[..., [i for i in window if 0 <= i < size]]
        columns.append(values.amax(-1) if kind == "max" else values.mean(-1))
    return torch.stack(columns, dim=-1)


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_zero_padding_adds_nothing_to_a_pool(kind, kernel, stride, dilation):
    x = torch.randn(2, 3, 11) - 5  # all negative: a zero in the padding would show
    reach = dilation * (kernel - 1)
    pool = Pool(kind, kernel, stride, "same", dilation)
    torch.testing.assert_close(pool(x), reference(kind, x, kernel, stride, reach // 2, reach - reach // 2, dilation))


@pytest.mark.parametrize("kind", ["max", "average"])
def test_valid_pooling_equals_torch(kind):
    x = torch.randn(2, 3, 9, 8)
    theirs = F.max_pool2d if kind == "max" else F.avg_pool2d
    torch.testing.assert_close(Pool(kind, 3, 2)(x), theirs(x, 3, 2))


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_dense_circular_pooling_is_equivariant_to_every_shift(kind, axes):
    x = torch.randn(1, 2, *[6] * axes)
    pool = Pool(kind, 4, 1, "same", padding_mode="circular")
    dims = list(range(2, 2 + axes))
    assert pool(x).shape == x.shape
    torch.testing.assert_close(pool(x.roll([1] * axes, dims)), pool(x).roll([1] * axes, dims))


def test_full_padding_of_a_maximum_is_minus_infinity():
    x = -torch.ones(1, 1, 4)
    assert Pool("max", 3, 1, "full")(x).flatten().tolist() == [-1.0] * 6


def test_local_homogeneity_example():
    """Mouton et al. 2020: runs of f alike neighbours survive subsampling by f; a maximum of f makes such runs."""
    row = torch.tensor([[[0.0, 0, 0, 0, 0, 2, 2, 3, 3, 1, 1, 2, 2, 0, 0, 0, 0, 0]]])
    moved = row.roll(1, dims=2)
    kept = Pool("max", 1, 2)(row).flatten()
    assert kept.tolist() == [0, 0, 0, 2, 3, 1, 2, 0, 0]
    assert Pool("max", 1, 2)(moved).flatten().tolist() == [0, 0, 0, 2, 3, 1, 2, 0, 0]


def test_a_kernel_larger_than_the_map_is_refused():
    with pytest.raises(TinvError, match="max pool: its kernel of 5x5 is larger than the map of 4x4"):
        Pool("max", 5)(torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_full_average_weighs_an_object_at_the_border_as_one_inside(axes):
    pool = Pool("average", 2, 2, "full")
    sums = []
    for at in (0, 2, 6):
        x = torch.zeros(1, 1, *[8] * axes)
        x[(0, 0, *[at] * axes)] = 1
        sums.append(pool(x).sum().item())
    assert sums == [sums[0]] * 3


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize("size", [5, 6, 7, 8])
@pytest.mark.parametrize("amount", [0, 1])
def test_ceil_mode_equals_torch(kind, size, amount):
    x = torch.randn(2, 3, size, 7) - 5
    ours = Pool(kind, 3, 2, [(amount, amount)] * 2, ceil_mode=True, count_include_pad=False)
    if kind == "max":
        theirs = F.max_pool2d(x, 3, 2, amount, ceil_mode=True)
    else:
        theirs = F.avg_pool2d(x, 3, 2, amount, ceil_mode=True, count_include_pad=False)
    torch.testing.assert_close(ours(x), theirs)
    # the same windows when the border is filled with real pixels
    ours = Pool(kind, 3, 2, amount, padding_mode="replicate", ceil_mode=True)
    assert ours(x).shape == theirs.shape


@pytest.mark.parametrize(("size", "dilation"), [(1, 2), (3, 4), (5, 8)])
def test_windows_that_hold_padding_only_are_refused(size, dilation):
    images = torch.randn(1, 1, size, size)
    for kind in ("max", "average"):
        pool = Pool(kind, 3, 1, "full", dilation, count_include_pad=False)
        with pytest.raises(TinvError, match=rf"{kind} pool: its map of .* is smaller than the dilation {dilation}"):
            pool(images)
    # zeros that count have a mean, and pixels of the map a maximum
    assert Pool("average", 3, 1, "full", dilation)(images).isfinite().all()
    assert Pool("max", 3, 1, "full", dilation, padding_mode="circular")(torch.randn(1, 1, 8, 8)).isfinite().all()


def test_a_missing_batch_axis_is_said():
    with pytest.raises(TinvError, match=r"max pool: takes maps \(N, C, H, W\), not of shape \(3, 8, 8\)"):
        Pool("max", (3, 3), 1, "same")(torch.randn(3, 8, 8))


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize(("size", "ceil_mode"), [(8, False), (7, True), (8, True)])
def test_a_pool_along_the_width_wraps_it_and_adds_nothing_to_the_height(kind, size, ceil_mode):
    x = torch.randn(2, 3, 8, size, dtype=torch.double) - 5
    pool = Pool(kind, 3, 2, [(1, 1), (1, 1)], padding_mode="circular_width", ceil_mode=ceil_mode)
    # the height is as under zeros; the width as on the map repeated on both sides
    around = F.pad(x, (1, 2, 0, 0), mode="circular")
    columns = range(0, (size + 2 - 3 + (1 if ceil_mode else 0)) // 2 * 2 + 1, 2)
    rows = range(0, (8 + 2 - 3 + (1 if ceil_mode else 0)) // 2 * 2 + 1, 2)
    expected = torch.stack(
        [
            torch.stack([_mean_or_max(kind, around[:, :, max(0, i - 1) : i + 2, j : j + 3]) for j in columns], -1)
            for i in rows
        ],
        2,
    )
    torch.testing.assert_close(pool(x), expected)


def _mean_or_max(kind: str, window: torch.Tensor) -> torch.Tensor:
    return window.amax((2, 3)) if kind == "max" else window.mean((2, 3))
