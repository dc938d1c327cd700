"""Data sets that fit in memory: one uint8 array, whole batches at a time, no Python for single images."""

from __future__ import annotations

import os
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from tinv.data.base import InvarianceDataModule
from tinv.errors import TinvError
from tinv.translation import crop_each, draw_shifts


class Batch(NamedTuple):
    """What a step of training or testing receives.

    Attributes:
        image: (N, C, H, W) float as the network sees it; before the move to the device (N, H, W, C) uint8.
        target: (N,) class numbers.
        index: (N,) the images' numbers in their set, from which per-image shifts are drawn.
    """

    image: Tensor
    target: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which no one needs here


class ImageSet(NamedTuple):
    """Images and their classes: image (N, H, W, C) uint8, target (N,) int64."""

    image: Tensor
    target: Tensor

    def take(self, index: Tensor) -> ImageSet:
        """Returns the images with the given numbers."""
        return ImageSet(self.image[index], self.target[index])


class Splits(NamedTuple):
    """The sets of an experiment; `test` holds one or more, by name."""

    train: ImageSet
    val: ImageSet
    test: dict[str, ImageSet]


class BatchOrder:
    """Which images make up each batch; under DDP each rank gets its own share, without repeated images.

    Args:
        count: of the images in the set.
        batch_size: images a batch and rank.
        order: called at the start of each pass, returns the numbers of the images in the order to visit.
        even: whether it is for training: ranks must have equally many images, so that up to one image a rank is left
            out, and an image that would be a last batch by itself, of which batch norms on maps of one pixel have no
            variance, joins the batch before.
    """

    def __init__(self, count: int, batch_size: int, order: Callable[[], Tensor], even: bool) -> None:
        self.count, self.batch_size, self.order, self.even = count, batch_size, order, even

    def _share(self) -> int:
        rank, ranks = rank_and_ranks()
        return self.count // ranks if self.even else len(range(rank, self.count, ranks))

    def _sizes(self) -> list[int]:
        whole, rest = divmod(self._share(), self.batch_size)
        sizes = [self.batch_size] * whole
        if rest == 1 and whole and self.even:
            sizes[-1] += 1
        elif rest:
            sizes.append(rest)
        return sizes

    def __len__(self) -> int:
        return len(self._sizes())

    def __iter__(self) -> Iterator[Tensor]:
        rank, ranks = rank_and_ranks()
        # rank r takes every ranks-th image, so the ranks' batches together are one batch of a single process
        yield from torch.split(self.order()[rank::ranks][: self._share()], self._sizes())


class BatchLoader:
    """Yields whole batches of an image set; see BatchOrder for the arguments."""

    def __init__(self, images: ImageSet, batch_size: int, order: Callable[[], Tensor], even: bool) -> None:
        self.images, self.batches = images, BatchOrder(len(images.target), batch_size, order, even)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for index in self.batches:
            image, target = self.images.take(index)
            yield Batch(image, target, index)


def rank_and_ranks() -> tuple[int, int]:
    """Returns the number of this process and how many there are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def shuffled(count: int, seed: int, epoch: int) -> Tensor:
    """Returns the numbers 0 .. count-1 in a random order; a resumed run sees that of an uninterrupted one."""
    return torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(count))


def order_epoch(data: LightningDataModule | None) -> int:
    """Returns the epoch whose order of training images is due; with `trainer.overfit_batches` it is always the first.

    Lightning turns shuffling off then, so that the same batches are learned in every epoch.
    """
    trainer = getattr(data, "trainer", None)
    return 0 if trainer is None or trainer.overfit_batches else int(trainer.current_epoch)


class InMemoryData(InvarianceDataModule):
    """Base of the data modules that hold everything as uint8.

    A subclass sets `num_classes`, and where wanted `mean` and `std`, and says in `load` what the sets are. Whole
    batches are gathered, moved to the model's device, cast, normalised, laid on the canvas and translated there.

    Args:
        batch_size: images a step (and a process).
        num_workers: kept so that every data module has the same keys; batches in memory need no workers.
        canvas: side in pixels of the square of zeros on which images are centred; None leaves them as they are.
        train_max_shift: training images are moved by random whole pixels up to this, anew each epoch.
        shuffle: whether training images are visited in a new random order each epoch.
        seed: of the order and the training shifts; None takes the run's seed (`seed_everything`).
    """

    num_classes: int

    def __init__(
        self,
        batch_size: int = 128,
        num_workers: int = 0,
        canvas: int | None = None,
        train_max_shift: int = 0,
        shuffle: bool = True,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size, seed)
        if train_max_shift < 0:
            raise TinvError(f"train_max_shift must be 0 pixels or more, not {train_max_shift}")
        if num_workers:
            warnings.warn(f"num_workers={num_workers} has no effect: {type(self).__name__} is in memory", stacklevel=2)
        self.canvas = canvas
        self.train_max_shift = train_max_shift
        self.shuffle = shuffle
        self.splits: Splits | None = None

    @abstractmethod
    def load(self) -> Splits:
        """Reads or generates the sets."""

    def setup(self, stage: str | None = None) -> None:
        """Loads the sets once.

        Raises:
            TinvError: if an image does not fit the canvas, or the training shift would push it off.
        """
        if self.splits is not None:
            return
        self.splits = self.load()
        side = max(self.splits.train.image.shape[1:3])
        if self.canvas is not None and self.canvas < side:
            raise TinvError(f"canvas of {self.canvas} pixels is smaller than the images of {side}; make canvas larger")
        if self.train_max_shift > self.margin:
            raise TinvError(
                f"train_max_shift={self.train_max_shift} would push images off the canvas, which leaves {self.margin} "
                f"pixels a side; use a smaller shift or canvas={side + 2 * self.train_max_shift}"
            )

    @property
    def _loaded(self) -> Splits:
        self.setup()
        assert self.splits is not None
        return self.splits

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images as the network sees them."""
        _, height, width, channels = self._loaded.train.image.shape
        return (channels, self.canvas or height, self.canvas or width)

    @property
    def margin(self) -> int:
        """Pixels of blank canvas on every side: the largest shift that loses nothing."""
        if self.canvas is None:
            return 0
        return int((self.canvas - max(self._loaded.train.image.shape[1:3])) // 2)

    @property
    def augments(self) -> bool:
        """Whether training images change from epoch to epoch."""
        return self.train_max_shift > 0

    @property
    def test_sets(self) -> tuple[str, ...]:
        """Names of the test sets, in the order of `test_dataloader`."""
        return tuple(self._loaded.test)

    def train_dataloader(self) -> BatchLoader:
        """Returns the training batches."""
        return BatchLoader(self._loaded.train, self.batch_size, self._train_order, even=True)

    def val_dataloader(self) -> BatchLoader:
        """Returns the validation batches, in order."""
        return self._in_order(self._loaded.val)

    def test_dataloader(self) -> list[BatchLoader]:
        """Returns the batches of every test set, in order."""
        return [self._in_order(images) for images in self._loaded.test.values()]

    def predict_dataloader(self) -> list[BatchLoader]:
        """Returns what `test_dataloader` returns."""
        return self.test_dataloader()

    def _in_order(self, images: ImageSet) -> BatchLoader:
        return BatchLoader(images, self.batch_size, lambda: torch.arange(len(images.target)), even=False)

    def _train_order(self) -> Tensor:
        count = len(self._loaded.train.target)
        if not self.shuffle:
            return torch.arange(count)
        return shuffled(count, self.seed, order_epoch(self))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Makes the network's input of a batch of bytes, on the device it is on."""
        shifts = None
        if self.train_max_shift and self.trainer is not None and self.trainer.training:
            shifts = draw_shifts(batch.index, self.train_max_shift, self.seed, self.epoch)
        return batch._replace(image=self.prepare(batch.image, shifts))

    def normalise(self, image: Tensor) -> Tensor:
        """Returns bytes (N, H, W, C) as normalised float32 of the same shape."""
        return normalise(image, self.mean, self.std)

    def prepare(self, image: Tensor, shifts: Tensor | None = None) -> Tensor:
        """Casts, normalises, lays on the canvas and moves a batch.

        Args:
            image: (N, H, W, C) uint8.
            shifts: (N, 2) pixels (dx, dy), at most `train_max_shift`, or None.

        Returns:
            (N, C, H', W') float32, channels last in memory.
        """
        count, height, width, channels = image.shape
        pixels = self.normalise(image)
        if self.canvas is None:
            return pixels.permute(0, 3, 1, 2)
        reach = self.train_max_shift if shifts is not None else 0
        top, left = (self.canvas - height) // 2 + reach, (self.canvas - width) // 2 + reach
        side = self.canvas + 2 * reach
        laid = pixels.new_zeros(count, side, side, channels)
        laid[:, top : top + height, left : left + width] = pixels
        if shifts is None:
            return laid.permute(0, 3, 1, 2)
        return crop_each(laid, reach - shifts[:, 1], reach - shifts[:, 0], self.canvas, self.canvas)


def normalise(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Returns bytes (..., C) as float32 in 0..1, less the mean and over the standard deviation of each channel."""
    pixels = image.float().div_(255)
    if any(mean) or any(s != 1 for s in std):
        pixels.sub_(pixels.new_tensor(mean)).div_(pixels.new_tensor(std))
    return pixels


def balanced_order(target: Tensor, seed: int) -> Tensor:
    """Orders images so that every beginning of the list holds each class equally often, to within one image.

    Beginnings of different length are nested, so a smaller subset is part of every larger one.

    Args:
        target: (N,) class numbers.
        seed: of the random order within a class.

    Returns:
        (N,) image numbers. Classes with fewer images end earlier.
    """
    classes = target.numpy()
    shuffled = np.random.default_rng(seed).permutation(len(classes))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    counts = np.bincount(classes)
    place = np.arange(len(classes)) - np.repeat(np.cumsum(counts) - counts, counts)
    return torch.from_numpy(by_class[np.argsort(place, kind="stable")])


def split_balanced(images: ImageSet, sizes: dict[str, int | None], seed: int) -> list[ImageSet]:
    """Cuts class-balanced subsets, without overlap, from a set.

    Args:
        images: what to cut.
        sizes: number of images of each subset, by the key that set it; None takes all that is left.
        seed: of the choice.

    Raises:
        TinvError: if a size is negative or more than there are images left.
    """
    order = balanced_order(images.target, seed)
    subsets = []
    for key, size in sizes.items():
        if size is not None and not 1 <= size <= len(order):
            raise TinvError(f"{key}={size} images asked for; choose 1 to {len(order)}, which is what there is")
        size = len(order) if size is None else size
        subsets.append(images.take(order[:size].sort().values))
        order = order[size:]
    return subsets


def check_targets(where: object, target: np.ndarray, num_classes: int) -> Tensor:
    """Returns class numbers as a tensor, or raises TinvError if one is not in 0..num_classes-1."""
    if len(target) and (target.min() < 0 or target.max() >= num_classes):
        worst = int(np.flatnonzero((target < 0) | (target >= num_classes))[0])
        raise TinvError(
            f"{where}: label {target[worst]} of image {worst} is not in 0..{num_classes - 1}; get the file again"
        )
    return torch.from_numpy(target.astype(np.int64))


def data_root(root: str | None) -> str:
    """Returns the folder of data sets: `root`, else `$TINV_DATA`, else `data`."""
    return root or os.environ.get("TINV_DATA") or "data"


def missing(name: str, looked_at: Sequence[object], root: str) -> TinvError:
    """Returns the error for a data set that is not there: where it was looked for, and how to get it."""
    places = " or ".join(str(place) for place in looked_at)
    return TinvError(
        f"no {name} data: looked for {places}; pass --data.init_args.download=true to fetch it, or name the folder "
        f"that holds it with --data.init_args.root=DIR or TINV_DATA=DIR (now {root!r})"
    )
