"""Batches of image files: read, cropped and flipped by worker processes, as bytes."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from tinv.data.batching import Batch, BatchLoader, DistributedBatchSampler, rank_and_ranks
from tinv.data.formats.image_cache import ImageCache
from tinv.data.formats.image_preparation import Augmentation
from tinv.data.formats.images import ImageFiles, OnError
from tinv.deprecation import moved
from tinv.errors import TinvError
from tinv.translation import uniform

AHEAD = 2
"""Batches that each worker reads ahead."""
SLOTS = AHEAD + 2
"""Batches of a worker that may exist at once: those read ahead, the one being copied, and one to spare."""

MOST_WORKERS = 256
"""Beyond these a worker's current file is not told apart from another's."""


class FileBatch(NamedTuple):
    """A batch on its way from a worker.

    Attributes:
        image: Images (N, H, W, 3), uint8.
        target: Class numbers (N,).
        index: Sample indices (N,).
        skipped: Numbers of the files that could not be read.
        problem: Reason why the first of them could not.
    """

    image: Tensor
    target: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which no one needs here
    skipped: list[int]
    problem: str


class BatchDataset(Dataset[FileBatch]):
    """Base of what is read as whole batches, by this process or by workers.

    A subclass reads one sample in `read`, and says in `draws` what random numbers it takes.

    Args:
        files: Files to read.
    """

    def __init__(self, files: ImageFiles) -> None:
        self.files = files
        self._slots: dict[int, Tensor] = {}
        self._turn = 0
        # which file each worker reads, for when one dies
        self.current_file = torch.full((MOST_WORKERS,), -1).share_memory_()  # type: ignore[no-untyped-call]

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of samples."""

    def file(self, number: int) -> int:
        """Returns the number of the file that a sample is read from."""
        return number

    @abstractmethod
    def draws(self, index: Tensor, epoch: int) -> Sequence[Any] | NDArray[np.float64]:
        """Returns the random numbers of each sample."""

    @abstractmethod
    def read(self, number: int, draws: Any) -> Tensor:
        """Returns the bytes (..., 3) of a sample."""

    def __getitem__(self, asked: tuple[int, Tensor]) -> FileBatch:
        """Returns a batch, given the epoch and the numbers."""
        epoch, index = asked
        draws = self.draws(index, epoch)
        worker = get_worker_info()
        batch: Tensor | None = None
        kept: list[int] = []
        skipped: list[int] = []
        problem = ""
        for position, number in enumerate(index.tolist()):
            if worker is not None:
                self.current_file[worker.id % MOST_WORKERS] = self.file(number)
            try:
                image = self.read(number, draws[position])
            except TinvError as error:
                skipped.append(self.file(number))
                problem = problem or str(error)
                continue
            if batch is None:
                batch = self._buffer_for(len(index), image.shape)
            if image.shape != batch.shape[1:]:
                raise TinvError(
                    f"{self.files.path(self.file(number))} came out as {image.shape[0]}x{image.shape[1]} pixels, "
                    f"others of its batch as {batch.shape[1]}x{batch.shape[2]}; let train_transforms end in one size"
                )
            # at once, while it is in the processor's cache
            batch[len(kept)].copy_(image)
            kept.append(number)
        if worker is not None:
            self.current_file[worker.id % MOST_WORKERS] = -1
        images = torch.empty(0, dtype=torch.uint8) if batch is None else batch[: len(kept)]
        targets = torch.from_numpy(self.files.targets[[self.file(number) for number in kept]])
        return FileBatch(images, targets, torch.tensor(kept, dtype=torch.long), skipped, problem)

    def _buffer_for(self, count: int, shape: Sequence[int]) -> Tensor:
        """Returns an empty batch, in a worker in memory that the main process sees too."""
        if get_worker_info() is None:
            return torch.empty(count, *shape, dtype=torch.uint8)
        # Memory that is used again, since fresh shared memory would take as long as the rest. A slot is free when its
        # batch was taken: only so many are under way at once, see FileLoader.
        self._turn = (self._turn + 1) % SLOTS
        slot = self._slots.get(self._turn)
        if slot is None or slot.shape[1:] != shape or len(slot) < count:
            slot = torch.empty(count, *shape, dtype=torch.uint8)
            slot.share_memory_()  # type: ignore[no-untyped-call]
            self._slots[self._turn] = slot
        return slot[:count]


class ImageDataset(BatchDataset):
    """Whole batches of image files.

    Args:
        files: Image files to read.
        prepare: Function that reads a file.
        augmentation: Random change to the image that was read; None leaves it.
        cache: Cache of the prepared images; None reads the files.
    """

    def __init__(
        self,
        files: ImageFiles,
        prepare: Callable[[Path], Tensor],
        augmentation: Augmentation | None = None,
        cache: ImageCache | None = None,
    ) -> None:
        super().__init__(files)
        self.prepare, self.augmentation, self.cache = prepare, augmentation, cache

    def __len__(self) -> int:
        return len(self.files)

    def draws(self, index: Tensor, epoch: int) -> Sequence[Any]:
        """Returns what the augmentation takes for each image."""
        augment = self.augmentation
        if augment is None:
            return [None] * len(index)
        drawn: list[Any] = uniform(index.numpy(), augment.draws, augment.seed, epoch).tolist()
        return drawn

    def read(self, number: int, draws: Any) -> Tensor:
        """Returns an image (H, W, 3)."""
        pixels = self.prepare(self.files.path(number)) if self.cache is None else self.cache.read(number)
        return (pixels if self.augmentation is None else self.augmentation(pixels, draws)).permute(1, 2, 0)


class FileLoader:
    """Yields batches of image files, read by workers ahead of time.

    Args:
        images: Data set that reads the batches.
        batches: The sample indices of each batch.
        workers: Number of processes that read; 0 reads in this one.
        on_error: What a damaged file does: `raise` an error, or `skip` it.
        skipped: Set to which the paths of damaged files are added.
        epoch: Function that returns the epoch, the same throughout a pass.
    """

    def __init__(
        self,
        images: BatchDataset,
        batches: DistributedBatchSampler,
        workers: int = 0,
        on_error: OnError = "raise",
        skipped: set[str] | None = None,
        epoch: Callable[[], int] = lambda: 0,
    ) -> None:
        self.images, self.batches, self.on_error, self.epoch = images, batches, on_error, epoch
        self.skipped = set() if skipped is None else skipped
        # keeps the memory of the workers' slots mapped
        self._mapped: deque[Tensor] = deque(maxlen=SLOTS * max(1, workers))
        self.loader: DataLoader[FileBatch] = DataLoader(
            images,
            batch_size=None,
            sampler=BatchLoader(lambda index: (epoch(), index), batches),
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=AHEAD if workers else None,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # else it would draw from everyone's random numbers at every pass
        )

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        """Yields batches; one whose images are all damaged is left out.

        In training with several processes, which must take equally many steps, another batch is given twice instead.

        Raises:
            TinvError: For a damaged file, unless it is to be skipped; if no image at all can be read.
        """
        has_yielded, owed, problem = False, 0, ""
        repeats = self.batches.even and rank_and_ranks()[1] > 1
        for batch in self._read():
            if batch.skipped:
                if self.on_error == "raise":
                    raise TinvError(f"{batch.problem}; remove it, or leave such files out with on_error: skip")
                self.skipped.update(str(self.images.files.path(number)) for number in batch.skipped)
                problem = problem or batch.problem
            if not len(batch.index):
                owed += 1
                continue
            image = batch.image
            if image.is_shared():  # type: ignore[no-untyped-call]
                self._mapped.append(image)
                image = image.clone()
            last = Batch(image, batch.target, batch.index)
            yield last
            yield from [last] * (owed if repeats else 0)
            has_yielded, owed = True, 0
        if owed and not has_yielded:
            raise TinvError(f"none of {len(self.images)} files could be read, although on_error: skip; {problem}")
        if owed and repeats:
            yield from [last] * owed

    def _read(self) -> Iterator[FileBatch]:
        try:
            yield from self.loader
        except (RuntimeError, ConnectionError, EOFError) as error:
            # the queue may break before torch sees that the worker is gone
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            held = sorted({str(self.images.files.path(n)) for n in self.images.current_file.tolist() if n >= 0})
            raise TinvError(
                f"a process that reads files died; it was reading {', '.join(held) or 'none'}. Remove what it cannot "
                "read, or use fewer workers if memory ran out"
            ) from error


__getattr__ = moved(
    __name__,
    {
        **dict.fromkeys(("Augmentation", "RandomResizedCrop", "Transforms"), "tinv.data.formats.image_preparation"),
        "WholeImage": "tinv.data.formats.image_preparation:Resize",
        "Middle": "tinv.data.formats.image_preparation:ResizeCenterCrop",
    },
)
