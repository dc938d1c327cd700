from types import SimpleNamespace

import pytest
import torch

from tinv.data import Digits
from tinv.data.batching import Batch, BatchLoader, DistributedBatchSampler
from tinv.data.in_memory import ImageSet, InMemoryData, Splits, balanced_order, split_balanced
from tinv.errors import TinvError


class Dots(InMemoryData):
    """25 images of 6x6 with one bright pixel, at the place of their number."""

    num_classes = 5

    def load(self) -> Splits:
        image = torch.zeros(25, 6, 6, 1, dtype=torch.uint8)
        for number in range(25):
            image[number, number // 5, number % 5] = 255
        images = ImageSet(image, torch.arange(25) % 5)
        return Splits(images, images, {"test": images})


def training(data: InMemoryData, epoch: int = 0) -> InMemoryData:
    data.setup()
    data.trainer = SimpleNamespace(current_epoch=epoch, training=True, overfit_batches=0)  # type: ignore[assignment]
    return data


def batches(data: InMemoryData) -> list[Batch]:
    return [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]


def test_batches_are_cast_normalised_and_centred():
    class Normalised(Dots):
        mean, std = (0.5,), (0.25,)

    data = Normalised(canvas_size=10)
    data.setup()
    batch = data.on_after_batch_transfer(next(iter(data.test_dataloader()[0])), 0)
    assert batch.image.shape == (25, 1, 10, 10)
    assert batch.image[0, 0, 2, 2] == 2  # (1 - 0.5) / 0.25
    assert batch.image[0, 0, 2, 3] == -2
    assert batch.image[0, 0, 0, 0] == 0  # the canvas is zero as the network sees it
    assert data.input_shape == (1, 10, 10)
    assert data.canvas_margin == 2


def test_training_shifts_are_the_same_whatever_the_batch_size():
    one = batches(training(Dots(canvas_size=16, train_max_shift=5, shuffle=False, batch_size=25)))
    many = batches(training(Dots(canvas_size=16, train_max_shift=5, shuffle=False, batch_size=4)))
    assert torch.equal(torch.cat([b.image for b in one]), torch.cat([b.image for b in many]))


def test_training_shifts_move_whole_images_and_lose_nothing():
    plain = batches(training(Dots(canvas_size=16, shuffle=False)))[0].image
    moved = batches(training(Dots(canvas_size=16, train_max_shift=5, shuffle=False)))[0].image
    assert torch.equal(moved.sum((1, 2, 3)), plain.sum((1, 2, 3)))
    places = [(m - p).tolist() for m, p in zip(moved.nonzero()[:, 2:], plain.nonzero()[:, 2:], strict=True)]
    assert len({tuple(place) for place in places}) > 10
    assert all(-5 <= shift <= 5 for place in places for shift in place)


def test_shifts_and_order_change_with_epoch_and_seed_and_nothing_else():
    def pictures(epoch: int, seed: int) -> torch.Tensor:
        data = training(Dots(canvas_size=16, train_max_shift=5, seed=seed), epoch)
        return torch.cat([batch.image for batch in batches(data)])

    assert torch.equal(pictures(1, 7), pictures(1, 7))
    assert not torch.equal(pictures(1, 7), pictures(2, 7))
    assert not torch.equal(pictures(1, 7), pictures(1, 8))


def test_the_seed_is_the_run_s_unless_it_is_given(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "11")
    of_run, given = Dots(), Dots(seed=3)
    of_run.setup()
    given.setup()
    assert (of_run.seed, given.seed) == (11, 3)


def test_test_images_are_never_moved():
    data = training(Dots(canvas_size=16, train_max_shift=5))
    data.trainer.training = False
    [loader] = data.test_dataloader()
    batch = data.on_after_batch_transfer(next(iter(loader)), 0)
    assert torch.equal(batch.image[0, 0].nonzero(), torch.tensor([[5, 5]]))


def test_every_image_is_visited_once_an_epoch():
    data = training(Dots(batch_size=4))
    loader = data.train_dataloader()
    assert len(loader) == 6  # the last of them has 5 images, not 4 and then 1
    numbers = torch.cat([batch.index for batch in loader])
    assert sorted(numbers.tolist()) == list(range(25))
    assert numbers.tolist() != list(range(25))


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_ranks_share_the_images_without_repeats(ranks, monkeypatch):
    images = ImageSet(torch.zeros(25, 2, 2, 1, dtype=torch.uint8), torch.zeros(25, dtype=torch.long))
    for even in (True, False):
        seen, lengths = [], []
        for rank in range(ranks):
            monkeypatch.setattr("tinv.data.batching.rank_and_ranks", lambda rank=rank: (rank, ranks))
            loader = BatchLoader(
                lambda index: Batch(*images.take(index), index),
                DistributedBatchSampler(25, 4, lambda: torch.arange(25), even),
            )
            parts = list(loader)
            assert len(parts) == len(loader)
            lengths.append(len(parts))
            seen += [number for part in parts for number in part.index.tolist()]
        assert len(seen) == len(set(seen)) == (25 // ranks * ranks if even else 25)
        if even:
            assert len(set(lengths)) == 1


def test_balanced_order_is_nested_and_balanced():
    target = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    order = balanced_order(target, 0)
    assert sorted(order.tolist()) == list(range(100))
    for length in (3, 7, 30, 60):
        counts = torch.bincount(target[order[:length]], minlength=3)
        assert counts.max() - counts.min() <= 1
    assert not torch.equal(order, balanced_order(target, 1))


def test_splits_do_not_overlap_and_follow_the_seed():
    first, again, other = (Digits(data_seed=seed) for seed in (0, 0, 1))
    for data in (first, again, other):
        data.setup()
    sets = [first.splits.train, first.splits.val, *first.splits.test.values()]
    assert [len(s.target) for s in sets] == [1197, 200, 400]
    assert torch.equal(first.splits.train.image, again.splits.train.image)
    assert not torch.equal(first.splits.val.image, other.splits.val.image)
    numbered = ImageSet(torch.arange(100).view(100, 1, 1, 1), torch.arange(100) % 10)
    parts = split_balanced(numbered, {"a": 20, "b": 30, "c": None}, 0)
    together = torch.cat([part.image.flatten() for part in parts])
    assert sorted(together.tolist()) == list(range(100))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Dots(batch_size=0), "batch_size must be 1 or more"),
        (lambda: Dots(train_max_shift=-1), "train_max_shift must be 0 or more"),
        (lambda: Dots(canvas_size=4), "canvas of 4 pixels is smaller than the images of 6"),
        (
            lambda: Dots(canvas_size=10, train_max_shift=3),
            "leaves 2 pixels a side; use a smaller shift or canvas_size=12",
        ),
        (lambda: Digits(num_train=5000), "num_train=5000 images asked for; choose 1 to 1197"),
        (lambda: Digits(num_val=0), "num_val must be 1 or more"),
    ],
)
def test_bad_options_are_named(build, message):
    with pytest.raises(TinvError, match=message):
        build().setup()


def test_workers_are_said_to_have_no_effect():
    with pytest.warns(UserWarning, match="num_workers=2 has no effect"):
        Dots(num_workers=2)


@pytest.mark.parametrize(("count", "sizes"), [(8, [4, 4]), (9, [4, 5]), (10, [4, 4, 2]), (1, [1])])
def test_a_last_training_image_by_itself_joins_the_batch_before(count, sizes):
    def order(even: bool) -> DistributedBatchSampler:
        return DistributedBatchSampler(count, 4, lambda: torch.arange(count), even)

    assert [len(index) for index in order(even=True)] == sizes
    assert len(order(even=True)) == len(sizes)
    assert torch.equal(torch.cat(list(order(even=True))), torch.arange(count))
    # nothing is joined where nothing is trained
    assert max(len(index) for index in order(even=False)) <= 4


def test_overfitting_learns_the_same_batches_in_every_epoch():
    data = Digits(batch_size=10, num_train=50, shuffle=True)
    data.trainer = SimpleNamespace(overfit_batches=1, current_epoch=0, datamodule=data)
    data.setup("fit")
    first = next(iter(data.train_dataloader())).index
    data.trainer.current_epoch = 1
    assert torch.equal(next(iter(data.train_dataloader())).index, first)
    data.trainer.overfit_batches = 0
    assert not torch.equal(next(iter(data.train_dataloader())).index, first)
