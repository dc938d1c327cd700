import numpy as np
import pytest
import torch

from tinv.data import Digits, RedGreen, Rook
from tinv.data.red_green import draw_squares
from tinv.data.rook import rook_patch
from tinv.errors import TinvError


def test_rook_patch_is_flush_with_both_corners_and_touches_the_border():
    data = Rook()
    data.setup()
    image, target = data.splits.train
    assert image.shape == (2, 32, 32, 1)
    assert target.tolist() == [0, 1]
    assert torch.equal(image[0, :16, :13], image[1, 16:, 19:])
    assert image[0].sum() == image[0, :16, :13].sum()
    patch = rook_patch()
    for edge in (patch[0], patch[-1], patch[:, 0], patch[:, -1]):
        assert edge.any()
    assert (patch == 0).any()  # black around the rook
    assert len(np.unique(patch)) > 30  # textured


@pytest.fixture(params=["published", "independent"])
def red_green(request) -> RedGreen:
    data = RedGreen(splits=request.param)
    data.setup()
    return data


def test_red_green_classes_differ_in_order_and_half(red_green):
    image, target = red_green.splits.train
    assert image.shape == (2000, 32, 32, 3)
    assert target.tolist() == [0, 1] * 1000
    assert set(image.unique().tolist()) == {0, 255}
    column = torch.arange(32.0)
    row = torch.arange(32.0)
    x, y = {}, {}
    for channel, colour in ((0, "red"), (1, "green")):
        mask = image[..., channel] == 255
        assert (mask.sum((1, 2)) == 16).all()
        x[colour] = (mask.any(1) * column).sum(1) / 4
        y[colour] = (mask.any(2) * row).sum(1) / 4
    assert ((x["red"] < x["green"]) == (target == 0)).all()
    assert ((x["red"] - x["green"]).abs() >= 5).all()
    for colour in ("red", "green"):
        assert ((y[colour] < 16) == (target == 0)).all()
    # top rows are 3..10 in the upper half, 19..26 in the lower; the centre is 1.5 below
    assert set((y["red"] - 1.5).tolist()) == {*range(3, 11), *range(19, 27)}
    assert not image[..., 2].any()


def test_red_green_left_square_stays_in_the_left_part():
    left = draw_squares(5000, 0)[:, 0, 0]
    assert (left.min(), left.max()) == (0, 9)
    right = draw_squares(5000, 0)[:, 1, 0]
    assert (right.min(), right.max()) == (5, 27)


def test_dissimilar_images_are_the_similar_ones_moved_by_16_rows(red_green):
    similar, dissimilar = red_green.splits.test["similar"], red_green.splits.test["dissimilar"]
    for target, rows in ((0, 16), (1, -16)):
        assert torch.equal(similar.image[target::2].roll(rows, 1), dissimilar.image[target::2])
    assert torch.equal(similar.target, dissimilar.target)


def test_published_splits_share_images_and_independent_ones_do_not():
    published, independent = RedGreen(), RedGreen(splits="independent")
    for data in (published, independent):
        data.setup()
    train, val, test = published.splits.train, published.splits.val, published.splits.test["similar"]
    assert torch.equal(train.image[:1000], val.image)
    assert torch.equal(val.image, test.image)
    train, val, test = independent.splits.train, independent.splits.val, independent.splits.test["similar"]
    assert not torch.equal(train.image[:1000], val.image)
    assert not torch.equal(val.image, test.image)


def test_red_green_does_not_depend_on_the_run_s_seed(monkeypatch):
    first = RedGreen()
    first.setup()
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    second = RedGreen()
    second.setup()
    assert torch.equal(first.splits.train.image, second.splits.train.image)


def test_unknown_splits_are_refused():
    with pytest.raises(TinvError, match="did you mean published"):
        RedGreen(splits="publish")


def test_digits_are_real_and_centred_on_black():
    data = Digits()
    data.setup()
    assert data.input_shape == (1, 24, 24)
    assert data.canvas_margin == 8
    image = data.prepare(data.splits.train.image[:4])
    assert image.min() == 0
    assert image.max() == 1
    assert not image[:, :, :8].any()
    assert torch.bincount(data.splits.test["test"].target).tolist() == [40] * 10
