"""Which patches are shown together: pairs of patches of one point, and batches of pairs of different points."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler

from tinv.data.batching import rank_and_ranks
from tinv.errors import TinvError


def all_pairs(points: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns every pair of patches that show the same point: (P, 2) numbers of patches, the smaller first.

    Args:
        points: Point that each patch shows, (N,); points of one patch make no pair.
    """
    order = np.argsort(points, kind="stable")
    begins = np.flatnonzero(np.diff(points[order], prepend=-1 if len(points) == 0 else points[order[0]] - 1))
    sizes = np.diff(begins, append=len(points))
    found = [np.empty((0, 2), dtype=np.int64)]
    for size in np.unique(sizes[sizes > 1]):
        group = order[begins[sizes == size][:, None] + np.arange(size)]
        first, second = np.triu_indices(size, 1)
        found.append(np.stack([group[:, first], group[:, second]], axis=-1).reshape(-1, 2))
    return np.concatenate(found)


def draw_pairs(points: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Draws different pairs of patches of one point, each point as likely as the other, however many patches it has.

    Draws of the same seed are nested: the first pairs of a larger one are the smaller one.

    Args:
        points: Point that each patch shows, (N,).
        count: Number of pairs.
        seed: Seed of the draw.

    Returns:
        (count, 2) numbers of patches, in random order.

    Raises:
        TinvError: If there are not as many pairs.
    """
    pairs = all_pairs(points)
    if not 1 <= count <= len(pairs):
        raise TinvError(f"num_pairs={count} asked for; choose 1 to {len(pairs)}, which is what there is")
    # Weighted drawing without replacement (Efraimidis and Spirakis, 2006): the smallest of exponential numbers over the
    # weights. All pairs of a point together weigh 1.
    _, of_point, multiplicity = np.unique(points[pairs[:, 0]], return_inverse=True, return_counts=True)
    random = np.random.default_rng(seed)
    numbers = random.exponential(size=len(pairs)) * multiplicity[of_point]
    drawn = pairs[np.argsort(numbers, kind="stable")[:count]]
    # which of the two is the anchor; drawn for all, so that nested draws agree
    swap = random.random(len(pairs))[:count] < 0.5
    drawn[swap] = drawn[swap, ::-1]
    return drawn


def assign_to_batches(
    points: NDArray[np.int64], batch_size: int, random: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Assigns pairs to batches, at random, no point twice in one.

    All pairs are used. Batches differ in size by one at most; they are smaller than asked for where a point has more
    pairs than there would be batches.

    Args:
        points: Point that each pair shows, (P,).
        batch_size: Largest number of pairs in a batch.
        random: Generator of the random numbers.

    Returns:
        The numbers of the pairs in each batch.
    """
    _, of_point, multiplicity = np.unique(points, return_inverse=True, return_counts=True)
    count = batch_count(points, batch_size)
    # Points in random order, the pairs of one point beside each other: every n-th pair goes to the same of n batches,
    # so that those of one point go to different ones.
    order = np.lexsort((random.random(len(points)), random.permutation(len(multiplicity))[of_point]))
    batches = [order[first::count] for first in range(count)]
    return [batches[number] for number in random.permutation(count)]


def batch_count(points: NDArray[np.int64], batch_size: int) -> int:
    """Returns how many batches `assign_to_batches` makes."""
    return max(-(-len(points) // batch_size), int(np.unique(points, return_counts=True)[1].max()))


class UniquePointBatchSampler(Sampler[Tensor]):
    """Yields the pairs of each training batch, no point twice in one.

    Under DDP the ranks share each batch of `batch_size` times ranks pairs.

    Args:
        points: Point that each pair shows, (P,).
        batch_size: Pairs a batch and rank.
        draw: Function that returns the random generator of the current epoch.
    """

    def __init__(self, points: NDArray[np.int64], batch_size: int, draw: Callable[[], np.random.Generator]) -> None:
        self.points, self.batch_size, self.draw = points, batch_size, draw

    def __len__(self) -> int:
        return batch_count(self.points, self.batch_size * rank_and_ranks()[1])

    def __iter__(self) -> Iterator[Tensor]:
        rank, ranks = rank_and_ranks()
        for batch in assign_to_batches(self.points, self.batch_size * ranks, self.draw()):
            yield torch.from_numpy(batch[rank::ranks])
