"""Data sets whose files are read as they are needed: what their data modules have in common."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch

from tinv.data.base import InvarianceDataModule, Stage, skipped_files
from tinv.data.batching import epoch_of, rank_and_ranks
from tinv.data.file_batches import BatchDataset, FileLoader
from tinv.data.formats.cache_folder import default_folder
from tinv.data.formats.image_cache import ImageCache, Prepare
from tinv.data.formats.images import ImageFiles, OnError
from tinv.deprecation import renamed
from tinv.errors import TinvError
from tinv.utils.arguments import NonNegativeInt, PositiveInt, Seed


class FileData(InvarianceDataModule):
    """Base of data modules that read files as they are needed: images, videos and patches.

    A subclass finds its files in `setup`, and says in `dataset` how those of a set are read by worker processes. One
    that needs no workers returns its own loaders from `loader`.

    Args:
        size: Side of what the network sees, in pixels.
        batch_size: Items a step (and a process).
        num_workers: Number of processes that read; 0 reads in this one.
        seed: Seed of order and augmentation; None takes the run's seed (`seed_everything`).
        cache_dir: Folder of caches; None takes `~/.cache/tinv`.
        cache_resolution: Shorter side in pixels at which decoded images or frames are kept on disk, for all epochs and
            runs; None reads the files each time.
        on_error: What a damaged file does: `raise` an error, or `skip` it and count it in results.json.

    Raises:
        TinvError: For a value out of range.
    """

    @renamed(cache="cache_resolution")
    def __init__(
        self,
        size: PositiveInt,
        batch_size: PositiveInt,
        num_workers: NonNegativeInt = 0,
        seed: Seed | None = None,
        cache_dir: str | None = None,
        cache_resolution: PositiveInt | None = None,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(batch_size, seed)
        if cache_resolution is not None and cache_resolution < size:
            raise TinvError(
                f"cache_resolution={cache_resolution} must be at least {size} pixels, the size that the network sees"
            )
        self.on_error: OnError = on_error
        self.size, self.num_workers, self.cache_resolution = size, num_workers, cache_resolution
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir else default_folder()
        self.skipped: set[str] = set()
        self.loaders: dict[Stage, FileLoader] = {}

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Finds the files, once.

        Raises:
            TinvError: If files are missing.
        """

    def dataset(self, stage: Stage) -> BatchDataset:
        """Returns what reads the batches of the training, the validation or the test set."""
        # not abstract: a subclass that needs no workers overrides loader in its place, as PatchData does
        raise NotImplementedError(f"{type(self).__name__} says in neither dataset nor loader how its files are read")

    def cache(self, files: ImageFiles, prepare: Prepare) -> ImageCache | None:
        """Returns the cache of prepared files, which may have to be built; None without `cache_resolution`."""
        return None if self.cache_resolution is None else ImageCache(self.cache_dir, files, prepare)

    def loader(self, stage: Stage, test_set: str = "test") -> Any:
        """Returns the batches of a set, whose loader is kept, and with it its workers, from epoch to epoch."""
        if stage not in self.loaders:
            data = self.dataset(stage)
            epoch = epoch_of(self) if stage == "train" else lambda: 0
            batches = self.sampler(len(data), stage)
            self.loaders[stage] = FileLoader(data, batches, self.num_workers, self.on_error, self.skipped, epoch)
        return self.loaders[stage]

    def teardown(self, stage: str) -> None:
        """Ends the workers, and tells all processes which files were skipped by any."""
        self.loaders.clear()
        if rank_and_ranks()[1] > 1:
            everywhere: list[set[str]] = [set()] * rank_and_ranks()[1]
            torch.distributed.all_gather_object(everywhere, self.skipped)
            self.skipped.update(*everywhere)

    @property
    def provenance(self) -> dict[str, Any]:
        """Counts of files that were skipped, for `results.json`."""
        return skipped_files(self.skipped)
