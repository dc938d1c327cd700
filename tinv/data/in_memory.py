"""Data sets that fit in memory: one uint8 array, whole batches at a time, no Python for single images."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tinv.data.base import InvarianceDataModule, Stage
from tinv.data.batching import Batch, BatchLoader, normalize
from tinv.data.folders import data_root
from tinv.deprecation import moved, renamed
from tinv.errors import TinvError
from tinv.translation import crop_each, draw_shifts
from tinv.utils.arguments import NonNegativeInt, PositiveInt, Seed
from tinv.utils.download import fetch


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


class InMemoryData(InvarianceDataModule):
    """Base of the data modules that hold everything as uint8.

    A subclass sets `num_classes`, and where wanted `mean` and `std`, and says in `load` what the sets are. Whole
    batches are gathered, moved to the model's device, cast, normalized, put on the canvas and translated there.

    Args:
        batch_size: Images a step (and a process).
        num_workers: Unused, so that every data module has the same keys; batches in memory need no workers.
        canvas_size: Side in pixels of the square of zeros on which images are centered; None leaves them as they are.
        train_max_shift: Largest random shift of training images in pixels, drawn anew each epoch.
        shuffle: Whether training images are visited in a new random order each epoch.
        seed: Seed of the order and the training shifts; None takes the run's seed (`seed_everything`).
    """

    num_classes: int

    @renamed(canvas="canvas_size")
    def __init__(
        self,
        batch_size: PositiveInt = 128,
        num_workers: NonNegativeInt = 0,
        canvas_size: PositiveInt | None = None,
        train_max_shift: NonNegativeInt = 0,
        shuffle: bool = True,
        seed: Seed | None = None,
    ) -> None:
        super().__init__(batch_size, seed)
        if num_workers:
            warnings.warn(f"num_workers={num_workers} has no effect: {type(self).__name__} is in memory", stacklevel=2)
        self.canvas_size, self.train_max_shift, self.shuffle = canvas_size, train_max_shift, shuffle
        self.splits: Splits | None = None

    @abstractmethod
    def load(self) -> Splits:
        """Reads or generates the sets."""

    def setup(self, stage: str | None = None) -> None:
        """Loads the sets once.

        Raises:
            TinvError: If an image does not fit the canvas, or the training shift would push it off.
        """
        if self.splits is not None:
            return
        self.splits = self.load()
        side = max(self.splits.train.image.shape[1:3])
        if self.canvas_size is not None and self.canvas_size < side:
            raise TinvError(
                f"canvas of {self.canvas_size} pixels is smaller than the images of {side}; make canvas_size larger"
            )
        if self.train_max_shift > self.canvas_margin:
            raise TinvError(
                f"train_max_shift={self.train_max_shift} would push images off the canvas, which leaves "
                f"{self.canvas_margin} pixels a side; use a smaller shift or "
                f"canvas_size={side + 2 * self.train_max_shift}"
            )

    @property
    def _loaded(self) -> Splits:
        self.setup()
        assert self.splits is not None
        return self.splits

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of the images as the network sees them."""
        _, height, width, channels = self._loaded.train.image.shape
        return (channels, self.canvas_size or height, self.canvas_size or width)

    @property
    def canvas_margin(self) -> int:
        """Pixels of blank canvas on every side: the largest shift that loses nothing."""
        if self.canvas_size is None:
            return 0
        return int((self.canvas_size - max(self._loaded.train.image.shape[1:3])) // 2)

    @property
    def is_augmented(self) -> bool:
        """Whether training images change from epoch to epoch."""
        return self.train_max_shift > 0

    @property
    def test_sets(self) -> tuple[str, ...]:
        """Names of the test sets, in the order of `test_dataloader`."""
        return tuple(self._loaded.test)

    def loader(self, stage: Stage, test_set: str = "test") -> BatchLoader[Batch]:
        """Returns the batches of a set."""
        train, val, test = self._loaded
        images = test[test_set] if stage == "test" else train if stage == "train" else val
        batches = self.sampler(len(images.target), stage)
        return BatchLoader(lambda index: Batch(*images.take(index), index), batches)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Makes the network's input of a batch of bytes, on the device it is on."""
        shifts = None
        if self.train_max_shift and self.trainer is not None and self.trainer.training:
            shifts = draw_shifts(batch.index, self.train_max_shift, self.seed, self.epoch)
        return batch._replace(image=self.prepare(batch.image, shifts))

    def prepare(self, image: Tensor, shifts: Tensor | None = None) -> Tensor:
        """Casts, normalizes, puts on the canvas and moves a batch.

        Args:
            image: (N, H, W, C) uint8.
            shifts: (N, 2) pixels (dx, dy), at most `train_max_shift`, or None.

        Returns:
            (N, C, H', W') float32, channels last in memory.
        """
        count, height, width, channels = image.shape
        pixels = normalize(image, self.mean, self.std)
        if self.canvas_size is None:
            return pixels.permute(0, 3, 1, 2)
        border = self.train_max_shift if shifts is not None else 0
        top, left = (self.canvas_size - height) // 2 + border, (self.canvas_size - width) // 2 + border
        side = self.canvas_size + 2 * border
        canvas = pixels.new_zeros(count, side, side, channels)
        canvas[:, top : top + height, left : left + width] = pixels
        if shifts is None:
            return canvas.permute(0, 3, 1, 2)
        return crop_each(canvas, border - shifts[:, 1], border - shifts[:, 0], self.canvas_size, self.canvas_size)


class TrainTestData(InMemoryData):
    """Base of data sets in memory that come as a training and a test set, which torchvision can download.

    A subclass sets `name`, that of torchvision's class, and reads the two sets in `read`.

    Args:
        root: Folder of data sets; None takes `$TINV_DATA`, else `data`.
        download: Whether the files are fetched (with torchvision) if they are not there.
        num_val: Class-balanced number of training images kept for validation.
        num_train: Class-balanced number of images to train on; None for all the rest.
        num_test: Class-balanced number of test images; None for all.
        data_seed: Seed of these choices; part of the data, not of the run's seed.
        **kwargs: See InMemoryData.
    """

    name: str

    @renamed(val_size="num_val", train_size="num_train", test_size="num_test", split_seed="data_seed")
    def __init__(
        self,
        root: str | None = None,
        download: bool = False,
        num_val: PositiveInt = 5000,
        num_train: PositiveInt | None = None,
        num_test: PositiveInt | None = None,
        data_seed: Seed = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root, self.download = data_root(root), download
        self.num_val, self.num_train, self.num_test, self.data_seed = num_val, num_train, num_test, data_seed

    @abstractmethod
    def read(self) -> tuple[ImageSet, ImageSet]:
        """Returns all training and all test images.

        Raises:
            TinvError: If a file is missing or damaged.
        """

    @property
    def torchvision_class(self) -> Any:
        """The class of this name in torchvision, which knows addresses and checksums."""
        from torchvision import datasets

        return getattr(datasets, self.name)

    def prepare_data(self) -> None:
        """Downloads what is missing, if asked to."""
        if self.download:
            self.fetch()

    def fetch(self) -> None:
        """Downloads the files that are missing with torchvision's class of this name.

        Raises:
            TinvError: If they cannot be had.
        """
        by_hand = f"put its files in {self.root} by hand and leave out download"
        made = self.torchvision_class
        fetch(lambda: [made(self.root, train=train, download=True) for train in (True, False)], self.name, by_hand)

    def load(self) -> Splits:
        """Reads the files and draws the sets."""
        train, test = self.read()
        val, train = split_balanced(train, {"num_val": self.num_val, "num_train": self.num_train}, self.data_seed)
        [test] = split_balanced(test, {"num_test": self.num_test}, self.data_seed)
        return Splits(train, val, {"test": test})


def balanced_order(target: Tensor, seed: int) -> Tensor:
    """Orders images so that every beginning of the list holds each class equally often, to within one image.

    Beginnings of different length are nested, so a smaller subset is part of every larger one.

    Args:
        target: Class numbers (N,).
        seed: Seed of the random order within a class.

    Returns:
        Sample indices (N,). Classes with fewer images end earlier.
    """
    classes = target.numpy()
    shuffled = np.random.default_rng(seed).permutation(len(classes))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    counts = np.bincount(classes)
    rank = np.arange(len(classes)) - np.repeat(np.cumsum(counts) - counts, counts)
    return torch.from_numpy(by_class[np.argsort(rank, kind="stable")])


def split_balanced(images: ImageSet, sizes: dict[str, int | None], seed: int) -> list[ImageSet]:
    """Cuts class-balanced subsets, without overlap, from a set.

    Args:
        images: Set to cut from.
        sizes: Number of images of each subset, by the key that set it; None takes all that are left.
        seed: Seed of the choice.

    Raises:
        TinvError: If a size is negative or more than there are images left.
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


__getattr__ = moved(__name__, {"missing": "tinv.data.folders:data_not_found"})
