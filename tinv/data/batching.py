"""Which items of a set make up each batch, in every process, and what a batch is."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import Sampler

from tinv.errors import TinvError

T = TypeVar("T")


class Batch(NamedTuple):
    """What a step of training or testing receives.

    Attributes:
        image: Images (N, C, H, W), float as the network sees it; before the move to the device (N, H, W, C) uint8.
        target: Class numbers (N,).
        index: Sample indices in the set, (N,), from which per-image shifts are drawn.
    """

    image: Tensor
    target: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which no one needs here


class DistributedBatchSampler(Sampler[Tensor]):
    """Yields the sample indices of each batch; under DDP each rank gets its own share, without repeated samples.

    Args:
        count: Number of samples in the set.
        batch_size: Samples a batch and rank.
        order: Function that is called at the start of each pass and returns all sample indices in the order to visit.
        even: Whether the batches are for training: ranks must have equally many samples, so that up to one sample a
            rank is left out, and a sample that would be a last batch by itself, of which batch norms on maps of one
            pixel have no variance, joins the batch before.
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
        # rank r takes every ranks-th sample, so the ranks' batches together are one batch of a single process
        yield from torch.split(self.order()[rank::ranks][: self._share()], self._sizes())


class BatchLoader(Generic[T]):
    """Yields the batches of a set in memory.

    Args:
        take: Function that returns the samples with the given indices.
        batches: The sample indices of each batch.
    """

    def __init__(self, take: Callable[[Tensor], T], batches: Sampler[Tensor]) -> None:
        self.take, self.batches = take, batches

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]  # samplers of batches have a length

    def __iter__(self) -> Iterator[T]:
        return map(self.take, self.batches)


def rank_and_ranks() -> tuple[int, int]:
    """Returns the number of this process and how many there are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def shuffled(count: int, seed: int, epoch: int) -> Tensor:
    """Returns the numbers 0 .. count-1 in a random order; a resumed run sees that of an uninterrupted one."""
    return torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(count))


def epoch_of(data: LightningDataModule, of_order: bool = False) -> Callable[[], int]:
    """Returns a function that returns the epoch that a data module's trainer is in, 0 without a trainer.

    The function does not keep the module alive: its workers then end as soon as no one uses it, not when Python looks
    for cycles, which takes seconds since their queues are gone by then.

    Args:
        data: The data module.
        of_order: Whether the epoch decides the order of training samples. With `trainer.overfit_batches` it is always
            the first: Lightning turns shuffling off then, so that the same batches are learned in every epoch.
    """
    known = weakref.ref(data)

    def epoch() -> int:
        trainer = getattr(known(), "trainer", None)
        return 0 if trainer is None or (of_order and trainer.overfit_batches) else int(trainer.current_epoch)

    return epoch


def normalize(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Returns bytes (..., C) as float32 in 0..1, less the mean and over the standard deviation of each channel."""
    pixels = image.float().div_(255)
    if any(mean) or any(s != 1 for s in std):
        pixels.sub_(pixels.new_tensor(mean)).div_(pixels.new_tensor(std))
    return pixels


def check_normalization(mean: Sequence[float], std: Sequence[float]) -> None:
    """Raises TinvError for a mean or standard deviation of channels that is not finite, or a deviation of 0 or less."""
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, 3) or not all(map(math.isfinite, values)) or (name == "std" and min(values) <= 0):
            above = " above 0" if name == "std" else ""
            raise TinvError(f"{name} {','.join(map(str, values))} is not three finite numbers{above}, one a channel")
    if len(mean) != len(std):
        raise TinvError(f"mean has {len(mean)} numbers and std {len(std)}; give one a channel of the images")
