"""What a data module tells tasks and runs of itself: one declared contract, with a default for everything optional."""

from __future__ import annotations

import os
from typing import Any

from lightning.pytorch import LightningDataModule
from torch import Tensor

from tinv.errors import TinvError


class InvarianceDataModule(LightningDataModule):
    """Base of data modules. Batches have `image`, `target` and `index`, the number of each image in its set.

    A subclass says what it knows; what it leaves out has the default given here.

    Args:
        batch_size: images a step (and a process).
        seed: of order, choice and random shifts; None takes the run's seed (`seed_everything`).

    Raises:
        TinvError: for a batch size below 1.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __init__(self, batch_size: int, seed: int | None = None) -> None:
        super().__init__()
        if batch_size < 1:
            raise TinvError(f"batch_size must be at least 1, not {batch_size}")
        self.batch_size = batch_size
        self.given_seed = seed

    @property
    def seed(self) -> int:
        """Of order, choice and random shifts."""
        return int(os.environ.get("PL_GLOBAL_SEED", 0)) if self.given_seed is None else self.given_seed

    @property
    def epoch(self) -> int:
        """That the trainer is in; 0 without one."""
        return self.trainer.current_epoch if self.trainer is not None else 0

    @property
    def num_classes(self) -> int | None:
        """Classes of the labels; None where there are none."""
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
    def margin(self) -> int | None:
        """Blank pixels around test images: the largest shift that loses nothing; None where that is not known."""
        return None

    @property
    def room(self) -> int:
        """Pixels by which test images are larger than what the network sees, for shifts that crop."""
        return 0

    @property
    def augments(self) -> bool:
        """Whether training images change from epoch to epoch, so that features of a frozen network cannot be kept."""
        return True

    @property
    def video_of(self) -> Tensor | None:
        """(N,) the video that each test clip is of; None for images."""
        return None

    @property
    def facts(self) -> dict[str, Any]:
        """Counts and checksums of the data, for `results.json`."""
        return {}


class _Foreign(InvarianceDataModule):
    """Any other data module, whose attributes of the contract's names count."""

    def __init__(self, data: Any) -> None:
        super().__init__(1)
        self.data = data

    def __getattribute__(self, name: str) -> Any:
        declared = name in _DECLARED
        data = super().__getattribute__("__dict__").get("data") if declared else None
        return getattr(data, name) if hasattr(data, name) else super().__getattribute__(name)


_DECLARED = {"batch_size", "mean", "std"} | {
    name for name, value in vars(InvarianceDataModule).items() if isinstance(value, property)
}


def described(data: LightningDataModule | None) -> InvarianceDataModule:
    """Returns a data module under the contract: itself, or a view of one that is not built on it.

    Args:
        data: of the trainer; None without one, of which nothing is known.
    """
    return data if isinstance(data, InvarianceDataModule) else _Foreign(data)
