"""What data modules over files have in common: loaders with workers, a cache folder, files that cannot be read."""

from __future__ import annotations

import weakref
from abc import abstractmethod
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from tinv.data.base import InvarianceDataModule
from tinv.data.cache_folder import default_folder
from tinv.data.file_batches import BatchDataset, FileLoader, epoch_of
from tinv.data.image_files import OnError
from tinv.data.in_memory import BatchOrder, order_epoch, rank_and_ranks, shuffled
from tinv.errors import TinvError, unknown


class FileData(InvarianceDataModule):
    """Base of data modules that read files as they are needed: ImageNet, UCF101, HMDB51.

    A subclass finds its files in `setup`, and says in `dataset` how those of `train`, `val` and `test` are read.

    Args:
        on_error: what a damaged file does.
        batch_size: items a step (and a process).
        num_workers: processes that read; 0 reads in this one.
        seed: of order and augmentation; None takes the run's seed (`seed_everything`).
        cache_dir: folder of caches; None takes `~/.cache/tinv`.

    Raises:
        TinvError: for a value out of range.
    """

    def __init__(
        self, on_error: OnError, batch_size: int, num_workers: int, seed: int | None, cache_dir: str | None
    ) -> None:
        super().__init__(batch_size, seed)
        if on_error not in get_args(OnError):
            raise unknown("on_error", on_error, get_args(OnError))
        if num_workers < 0:
            raise TinvError(f"num_workers={num_workers} must be at least 0")
        self.on_error: OnError = on_error
        self.num_workers = num_workers
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir else default_folder()
        self.skipped: set[str] = set()
        self.loaders: dict[str, FileLoader] = {}

    @abstractmethod
    def dataset(self, name: str) -> BatchDataset:
        """Returns what reads the batches of `train`, `val` or `test`."""

    def _loader(self, name: str) -> FileLoader:
        # kept, and with it its workers, from epoch to epoch
        if name not in self.loaders:
            data = self.dataset(name)
            count, seed = len(data), self.seed
            epoch = epoch_of(self) if name == "train" else (lambda: 0)
            known = weakref.ref(self)  # as in epoch_of

            def order() -> Tensor:
                return shuffled(count, seed, order_epoch(known())) if name == "train" else torch.arange(count)

            batches = BatchOrder(count, self.batch_size, order, even=name == "train")
            self.loaders[name] = FileLoader(data, batches, self.num_workers, self.on_error, self.skipped, epoch)
        return self.loaders[name]

    def train_dataloader(self) -> FileLoader:
        """Returns the training batches, in another order each epoch."""
        return self._loader("train")

    def val_dataloader(self) -> FileLoader:
        """Returns the validation batches, in order."""
        return self._loader("val")

    def test_dataloader(self) -> list[FileLoader]:
        """Returns the test batches, in order."""
        return [self._loader("test")]

    def predict_dataloader(self) -> list[FileLoader]:
        """Returns what `test_dataloader` returns."""
        return self.test_dataloader()

    def teardown(self, stage: str) -> None:
        """Ends the workers, and tells all processes which files were skipped by any."""
        self.loaders.clear()
        if rank_and_ranks()[1] > 1:
            everywhere: list[set[str]] = [set()] * rank_and_ranks()[1]
            torch.distributed.all_gather_object(everywhere, self.skipped)
            self.skipped.update(*everywhere)
