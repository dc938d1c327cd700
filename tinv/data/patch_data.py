"""Sets of patches of which pairs show the same point: what their data modules have in common."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tinv.data.base import Stage
from tinv.data.batching import BatchLoader
from tinv.data.formats.patches import PatchSet, read_pairs, read_patch_set
from tinv.data.from_files import FileData
from tinv.data.patch_pairs import UniquePointBatchSampler, all_pairs, draw_pairs
from tinv.deprecation import renamed
from tinv.errors import TinvError, unknown
from tinv.translation import uniform
from tinv.utils.arguments import NonNegativeInt, PositiveInt, Seed

PatchAugment = Literal["none", "fliprot"]


class PatchPairs(NamedTuple):
    """What a step of training or testing receives.

    Attributes:
        first: First patches, (N, 1, H, W) float, gray values in 0..1; before the move to the device (N, 64, 64) uint8.
        second: Second patches, of the shape of the first.
        target: Point that both show, (N,), -1 if they show different ones.
        index: Numbers of the pairs in their set, (N,).
    """

    first: Tensor
    second: Tensor
    target: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which no one needs here


class PatchData(FileData):
    """Base of the data modules of patches. A subclass says in `folders` where its sets are.

    Args:
        train: Name of the set to train on.
        test: Names of the sets to test on.
        num_pairs: Number of pairs of patches of one point to train on: different ones, drawn by the seed, those of a
            smaller number part of those of a larger one. They stay the same in all epochs.
        num_test_pairs: N of the list of test pairs `m50_N_N_0.txt`.
        val_share: Part of the training set's points, 0 to 1, that is kept for validation; 0 for none, as published.
        size: Side of the patches that the network sees, in pixels; 64 are averaged down.
        augment: Random changes to training pairs: `fliprot` mirrors and transposes each pair at random, or `none`.
        shuffle: Whether pairs are assigned to new batches each epoch. No point is twice in a batch.
        batch_size: Pairs a step (and a process).
        num_workers: Unused, so that every data module has the same keys; batches in memory need no workers.
        seed: Seed of the choice of pairs and of the batches; None takes the run's seed (`seed_everything`).
        cache_dir: Folder of the parsed patches; None takes `~/.cache/tinv`.
    """

    @renamed(n_pairs="num_pairs", test_pairs="num_test_pairs")
    def __init__(
        self,
        train: str,
        test: Sequence[str],
        num_pairs: PositiveInt,
        num_test_pairs: PositiveInt,
        val_share: float = 0.0,
        size: PositiveInt = 32,
        augment: PatchAugment = "none",
        shuffle: bool = True,
        batch_size: PositiveInt = 256,
        num_workers: NonNegativeInt = 0,
        seed: Seed | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(size, batch_size, seed=seed, cache_dir=cache_dir)
        if batch_size < 2:
            raise TinvError(f"batch_size must be 2 or more, not {batch_size}: negatives come from the batch")
        if not 0 <= val_share < 1:
            raise TinvError(f"val_share must be 0 or more and below 1, not {val_share}")
        if train in test:
            raise TinvError(f"train={train} is tested on too; choose other sets for data.init_args.test")
        if num_workers:
            raise TinvError("num_workers must be 0: patches are mapped into memory, and batches need no workers")
        self.train_set, self._test_sets = train, tuple(test)
        self.num_pairs, self.num_test_pairs, self.val_share = num_pairs, num_test_pairs, val_share
        self.augment, self.shuffle = augment, shuffle
        self.training: tuple[PatchSet, NDArray[np.int64]] | None = None
        self.validation: NDArray[np.int64] | None = None
        self.testing: dict[str, tuple[PatchSet, NDArray[np.int64]]] = {}

    @abstractmethod
    def folders(self) -> dict[str, Path]:
        """Returns the folder of each set, by name."""

    @property
    def test_sets(self) -> tuple[str, ...]:
        """Names of the sets to test on."""
        return self._test_sets

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a patch as the network sees it."""
        return (1, self.size, self.size)

    def prepare_data(self) -> None:
        """Makes and parses the sets, if that has not been done."""
        for name in (self.train_set, *self.test_sets):
            self._read(name)

    def setup(self, stage: str | None = None) -> None:
        """Reads the sets and draws the pairs, once.

        Raises:
            TinvError: If a set is missing or damaged, or has fewer pairs than asked for.
        """
        if self.training is None and stage in (None, "fit", "validate"):
            patches = self._read(self.train_set)
            points, kept = patches.points, np.zeros(len(patches), dtype=bool)
            if self.val_share:
                names = np.unique(points)
                chosen = np.random.default_rng((self.seed, 1)).permutation(names)[: round(self.val_share * len(names))]
                kept = np.isin(points, chosen)
                self.validation = self._validation_pairs(patches, np.flatnonzero(kept))
            rest = np.flatnonzero(~kept)
            try:
                pairs = rest[draw_pairs(points[rest], self.num_pairs, self.seed)]
            except TinvError as error:
                raise TinvError(f"{patches.folder}: {error}") from error
            self.training = patches, np.column_stack([pairs, points[pairs[:, 0]]])
        if not self.testing and stage in (None, "test", "predict"):
            for name in self.test_sets:
                patches = self._read(name)
                self.testing[name] = patches, read_pairs(patches, self.num_test_pairs)

    def _read(self, name: str) -> PatchSet:
        folders = self.folders()
        if name not in folders:
            raise unknown("set of patches", name, sorted(folders))
        return read_patch_set(folders[name], self.cache_dir)

    def _validation_pairs(self, patches: PatchSet, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns as many pairs of one point as of two, of the patches with the given numbers."""
        points = patches.points[numbers]
        random = np.random.default_rng((self.seed, 2))
        same = random.permutation(all_pairs(points))[: max(1, self.num_test_pairs // 2)]
        shuffled = random.permutation(len(numbers))
        other = np.column_stack([shuffled, np.roll(shuffled, 1)])
        other = other[points[other[:, 0]] != points[other[:, 1]]][: len(same)]
        if not len(same) or not len(other):
            raise TinvError(f"val_share={self.val_share} of the points of {patches.folder} make no pairs; take more")
        target = np.concatenate([points[same[:, 0]], np.full(len(other), -1)])
        return np.column_stack([numbers[np.concatenate([same, other])], target])

    @property
    def provenance(self) -> dict[str, Any]:
        """Counts for results.json, and which pairs were trained on."""
        sets = {name: patches for name, (patches, _) in self.testing.items()}
        found: dict[str, Any] = {}
        if self.training is not None:
            patches, pairs = self.training
            sets = {self.train_set: patches, **sets}
            found = {"train_pairs": len(pairs), "train_pairs_sha256": hashlib.sha256(pairs.tobytes()).hexdigest()}
        return {**found, **{f"{name}_patches": len(patches) for name, patches in sets.items()}}

    def val_dataloader(self) -> Any:
        """Returns the validation batches; none without `val_share`."""
        self.setup("fit")
        return [] if self.validation is None else [self.loader("val")]

    def loader(self, stage: Stage, test_set: str = "test") -> BatchLoader[PatchPairs]:
        """Returns the batches of a set; those of training hold no point twice."""
        self.setup("test" if stage == "test" else "fit")
        found = self.testing[test_set] if stage == "test" else self.training
        assert found is not None
        patches, pairs = found[0].patches, found[1]
        if stage == "val" and self.validation is not None:
            pairs = self.validation
        numbers = torch.from_numpy(pairs)

        def take(index: Tensor) -> PatchPairs:
            first, second, point = numbers[index].unbind(1)
            return PatchPairs(patches[first], patches[second], point, index)

        if stage == "train":
            return BatchLoader(take, UniquePointBatchSampler(pairs[:, 2], self.batch_size, self._epoch_numbers))
        return BatchLoader(take, self.sampler(len(pairs), stage))

    def _epoch_numbers(self) -> np.random.Generator:
        return np.random.default_rng((self.seed, 3, self.epoch if self.shuffle else 0))

    def on_after_batch_transfer(self, batch: PatchPairs, dataloader_idx: int) -> PatchPairs:
        """Makes the network's input of a batch of bytes, on the device it is on."""
        first, second = self.prepare(batch.first), self.prepare(batch.second)
        if self.augment == "fliprot" and self.trainer is not None and self.trainer.training:
            draws = torch.from_numpy(uniform(batch.index.cpu().numpy(), 2, self.seed, self.epoch))
            turned, mirrored = ((draws < 0.5).to(first.device)[:, None, None, None, :]).unbind(-1)
            first, second = (_flip_and_rotate(patches, turned, mirrored) for patches in (first, second))
        return batch._replace(first=first, second=second)

    def prepare(self, patches: Tensor) -> Tensor:
        """Casts and resizes a batch.

        Args:
            patches: Patches (N, 64, 64), uint8.

        Returns:
            (N, 1, size, size) float32, gray values in 0..1.
        """
        if patches.shape[2] == 2 * self.size:
            # means of four, in integers: three times as fast as through floats
            rows = patches[:, ::2].short() + patches[:, 1::2]
            return (rows[:, None, :, ::2] + rows[:, None, :, 1::2]).float().div_(4 * 255)
        return resize_patches(patches[:, None].float().div_(255), self.size)


def resize_patches(patches: Tensor, size: int) -> Tensor:
    """Returns patches (N, 1, H, W) as (N, 1, size, size): means of the pixels they cover, bilinear if they grow."""
    if size == patches.shape[2]:
        return patches
    if size < patches.shape[2]:
        return F.interpolate(patches, (size, size), mode="area")
    return F.interpolate(patches, (size, size), mode="bilinear", align_corners=False)


def _flip_and_rotate(patches: Tensor, turned: Tensor, mirrored: Tensor) -> Tensor:
    patches = torch.where(turned, patches.transpose(2, 3), patches)
    return torch.where(mirrored, patches.flip(3), patches)
