"""What a data module tells tasks and runs of itself: one declared contract, with a default for everything optional."""

from __future__ import annotations

import os
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Set
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from tinv.data.batching import DistributedBatchSampler, epoch_of, shuffled
from tinv.utils.arguments import Checked, PositiveInt, Seed

Stage = Literal["train", "val", "test"]

OLD_NAMES = {
    "facts": "provenance",
    "augments": "is_augmented",
    "video_of": "clip_to_video",
    "room": "crop_margin",
    "margin": "canvas_margin",
}
"""Names of the contract in version 0.1, which count until the next minor version, and today's."""


class InvarianceDataModule(Checked, LightningDataModule):
    """Base of data modules. Batches have `image`, `target` and `index`, the number of each image in its set.

    A subclass yields the batches of each set in `loader`, and says of itself what it knows; what it leaves out has the
    default given here.

    Args:
        batch_size: Images a step (and a process).
        seed: Seed of order, choice and random shifts; None takes the run's seed (`seed_everything`).

    Raises:
        TinvError: For a batch size below 1.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    shuffle = True

    def __init__(self, batch_size: PositiveInt, seed: Seed | None = None) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.given_seed = seed

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Takes what a subclass declares by the names of version 0.1."""
        super().__init_subclass__(**kwargs)
        for old in OLD_NAMES.keys() & vars(cls).keys():
            _warn(cls, old)
            setattr(cls, OLD_NAMES[old], vars(cls)[old])

    def __str__(self) -> str:
        # Lightning's own text asks each batch how many samples are available, as if it were a loader
        return type(self).__name__

    @abstractmethod
    def loader(self, stage: Stage, test_set: str = "test") -> Iterable[Any]:
        """Returns what yields the batches of the training, the validation or a test set."""

    def train_dataloader(self) -> Any:
        """Returns the training batches."""
        return self.loader("train")

    def val_dataloader(self) -> Any:
        """Returns the validation batches, in order."""
        return self.loader("val")

    def test_dataloader(self) -> list[Any]:
        """Returns the batches of every test set, in order."""
        return [self.loader("test", name) for name in self.test_sets]

    def predict_dataloader(self) -> list[Any]:
        """Returns what `test_dataloader` returns."""
        return self.test_dataloader()

    def sampler(self, count: int, stage: Stage) -> DistributedBatchSampler:
        """Returns which samples of a set make up each batch: in order, those of training shuffled anew each epoch.

        Args:
            count: Number of samples in the set.
            stage: Which set it is.
        """
        is_train, seed, epoch = stage == "train", self.seed, epoch_of(self, of_order=True)
        is_shuffled = is_train and self.shuffle

        def order() -> Tensor:
            return shuffled(count, seed, epoch()) if is_shuffled else torch.arange(count)

        return DistributedBatchSampler(count, self.batch_size, order, even=is_train)

    @property
    def seed(self) -> int:
        """Seed of order, choice and random shifts."""
        return int(os.environ.get("PL_GLOBAL_SEED", 0)) if self.given_seed is None else self.given_seed

    @property
    def epoch(self) -> int:
        """Epoch that the trainer is in; 0 without one."""
        return self.trainer.current_epoch if self.trainer is not None else 0

    @property
    def num_classes(self) -> int | None:
        """Number of classes of the labels; None where there are none."""
        return None

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """(C, H, W) of an image or (C, T, H, W) of a clip as the network sees it; None where that is not known."""
        return None

    @property
    def test_sets(self) -> tuple[str, ...]:
        """Names of the test sets, in the order of `test_dataloader`."""
        return ("test",)

    @property
    def canvas_margin(self) -> int | None:
        """Blank pixels around test images: the largest shift that loses nothing; None where that is not known."""
        return None

    @property
    def crop_margin(self) -> int:
        """Pixels by which test images are larger than what the network sees, for shifts that crop."""
        return 0

    @property
    def is_augmented(self) -> bool:
        """Whether training images change from epoch to epoch, so that features of a frozen network cannot be kept."""
        return True

    @property
    def clip_to_video(self) -> Tensor | None:
        """(N,) the video that each test clip is of; None for images."""
        return None

    @property
    def provenance(self) -> dict[str, Any]:
        """Counts and checksums of the data, for `results.json`."""
        return {}


def _warn(owner: object, old: str) -> None:
    name = owner.__name__ if isinstance(owner, type) else type(owner).__name__
    warnings.warn(f"{name}: {old} is now {OLD_NAMES[old]}", DeprecationWarning, stacklevel=3)


def _alias(old: str) -> property:
    def get(data: InvarianceDataModule) -> Any:
        _warn(data, old)
        return getattr(data, OLD_NAMES[old])

    return property(get)


for _old in OLD_NAMES:
    setattr(InvarianceDataModule, _old, _alias(_old))


class _ForeignData:
    """View of a data module that is not built on the contract: its attributes of the contract's names count."""

    def __init__(self, data: LightningDataModule | None) -> None:
        self._data = data
        self._defaults = InvarianceDataModule(batch_size=1)  # type: ignore[abstract]  # loads nothing

    def __getattr__(self, name: str) -> Any:
        if hasattr(self._data, name):
            return getattr(self._data, name)
        for old in (old for old, new in OLD_NAMES.items() if new == name and hasattr(self._data, old)):
            _warn(self._data, old)
            return getattr(self._data, old)
        return getattr(self._defaults, name)


def described(data: LightningDataModule | None) -> InvarianceDataModule:
    """Returns a data module under the contract: itself, or a view of one that is not built on it.

    Args:
        data: Data module of the trainer; None without one, of which nothing is known.
    """
    return data if isinstance(data, InvarianceDataModule) else cast(InvarianceDataModule, _ForeignData(data))


def skipped_files(skipped: Set[str]) -> dict[str, Any]:
    """Returns how many files were skipped, and the names of the first 100, for `results.json`."""
    return {"skipped": len(skipped), "skipped_files": sorted(skipped)[:100]}
