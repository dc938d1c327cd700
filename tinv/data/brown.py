"""Patches of the Photo Tourism reconstructions: which two show the same point of the world?"""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tinv.data.base import InvarianceDataModule
from tinv.data.cache_folder import default_folder
from tinv.data.in_memory import BatchOrder, data_root
from tinv.data.patch_pairs import DealtBatches, all_pairs, draw_pairs
from tinv.data.patch_set import PatchSet, read_pairs, read_patch_set
from tinv.errors import TinvError, unknown
from tinv.translation import uniform

BROWN = ("liberty", "notredame", "yosemite")

Augment = Literal["none", "fliprot"]


class PatchPairs(NamedTuple):
    """What a step of training or testing receives.

    Attributes:
        first: (N, 1, H, W) float, grey values in 0..1; before the move to the device (N, 64, 64) uint8.
        second: likewise.
        target: (N,) the point that both show, -1 if they show different ones.
        index: (N,) the pairs' numbers in their set.
    """

    first: Tensor
    second: Tensor
    target: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which no one needs here


class PairLoader:
    """Yields whole batches of pairs.

    Args:
        patches: (N, 64, 64) uint8.
        pairs: (P, 3) numbers of two patches, and of the point that both show or -1.
        order: yields the numbers of the pairs of each batch.
    """

    def __init__(self, patches: Tensor, pairs: NDArray[np.int64], order: Iterable[Tensor]) -> None:
        self.patches, self.pairs, self.order = patches, torch.from_numpy(pairs), order

    def __len__(self) -> int:
        return len(self.order)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[PatchPairs]:
        for index in self.order:
            first, second, point = self.pairs[index].unbind(1)
            yield PatchPairs(self.patches[first], self.patches[second], point, index)


class PatchData(InvarianceDataModule):
    """Base of the data modules of patches. A subclass says in `folders` where its sets are.

    Args:
        train: name of the set to train on.
        test: names of the sets to test on.
        n_pairs: pairs of patches of one point to train on: different ones, drawn by the seed, those of a smaller number
            part of those of a larger one. They stay the same in all epochs.
        test_pairs: N of the list of test pairs `m50_N_N_0.txt`.
        val_share: part of the training set's points, 0 to 1, that is kept for validation; 0 for none, as published.
        size: side of the patches that the network sees, in pixels; 64 are averaged down.
        augment: `fliprot` mirrors and transposes each pair at random.
        shuffle: whether pairs are dealt into new batches each epoch. No point is twice in a batch.
        batch_size: pairs a step (and a process).
        num_workers: kept so that every data module has the same keys; batches in memory need no workers.
        seed: of the choice of pairs and of the batches; None takes the run's seed (`seed_everything`).
        cache_dir: folder of the parsed patches; None takes `~/.cache/tinv`.
    """

    def __init__(
        self,
        train: str,
        test: Sequence[str],
        n_pairs: int,
        test_pairs: int,
        val_share: float = 0.0,
        size: int = 32,
        augment: Augment = "none",
        shuffle: bool = True,
        batch_size: int = 256,
        num_workers: int = 0,
        seed: int | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(batch_size, seed)
        if batch_size < 2:
            raise TinvError(f"batch_size must be 2 or more, not {batch_size}: negatives come from the batch")
        if augment not in get_args(Augment):
            raise unknown("augment", augment, get_args(Augment))
        if not 0 <= val_share < 1:
            raise TinvError(f"val_share must be 0 or more and below 1, not {val_share}")
        for key, value in (("size", size), ("n_pairs", n_pairs), ("test_pairs", test_pairs)):
            if value < 1:
                raise TinvError(f"{key} must be 1 or more, not {value}")
        if train in test:
            raise TinvError(f"train={train} is tested on too; choose other sets for data.init_args.test")
        if num_workers:
            raise TinvError("num_workers must be 0: patches are mapped into memory, and batches need no workers")
        self.train_set, self._test_sets = train, tuple(test)
        self.n_pairs, self.test_pairs, self.val_share = n_pairs, test_pairs, val_share
        self.size, self.augment, self.shuffle = size, augment, shuffle
        self.cache_dir = Path(cache_dir) if cache_dir else default_folder()
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

    def setup(self, stage: str | None = None) -> None:
        """Reads the sets and draws the pairs, once.

        Raises:
            TinvError: if a set is missing or damaged, or has fewer pairs than asked for.
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
                pairs = rest[draw_pairs(points[rest], self.n_pairs, self.seed)]
            except TinvError as error:
                raise TinvError(f"{patches.folder}: {error}") from error
            self.training = patches, np.column_stack([pairs, points[pairs[:, 0]]])
        if not self.testing and stage in (None, "test", "predict"):
            for name in self.test_sets:
                patches = self._read(name)
                self.testing[name] = patches, read_pairs(patches, self.test_pairs)

    def _read(self, name: str) -> PatchSet:
        folders = self.folders()
        if name not in folders:
            raise unknown("set of patches", name, sorted(folders))
        return read_patch_set(folders[name], self.cache_dir)

    def _validation_pairs(self, patches: PatchSet, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns as many pairs of one point as of two, of the patches with the given numbers."""
        points = patches.points[numbers]
        random = np.random.default_rng((self.seed, 2))
        same = random.permutation(all_pairs(points))[: max(1, self.test_pairs // 2)]
        shuffled = random.permutation(len(numbers))
        other = np.column_stack([shuffled, np.roll(shuffled, 1)])
        other = other[points[other[:, 0]] != points[other[:, 1]]][: len(same)]
        if not len(same) or not len(other):
            raise TinvError(f"val_share={self.val_share} of the points of {patches.folder} make no pairs; take more")
        target = np.concatenate([points[same[:, 0]], np.full(len(other), -1)])
        return np.column_stack([numbers[np.concatenate([same, other])], target])

    @property
    def facts(self) -> dict[str, Any]:
        """Counts for results.json, and which pairs were trained on."""
        sets = {name: patches for name, (patches, _) in self.testing.items()}
        found: dict[str, Any] = {}
        if self.training is not None:
            patches, pairs = self.training
            sets = {self.train_set: patches, **sets}
            found = {"train_pairs": len(pairs), "train_pairs_sha256": hashlib.sha256(pairs.tobytes()).hexdigest()}
        return {**found, **{f"{name}_patches": len(patches) for name, patches in sets.items()}}

    def train_dataloader(self) -> PairLoader:
        """Returns the training batches."""
        self.setup("fit")
        assert self.training is not None
        patches, pairs = self.training
        return PairLoader(patches.patches, pairs, DealtBatches(pairs[:, 2], self.batch_size, self._epoch_numbers))

    def val_dataloader(self) -> list[PairLoader]:
        """Returns the validation batches; none without `val_share`."""
        self.setup("fit")
        assert self.training is not None
        return [] if self.validation is None else [self._in_order(self.training[0], self.validation)]

    def test_dataloader(self) -> list[PairLoader]:
        """Returns the batches of every test set, in order."""
        self.setup("test")
        return [self._in_order(patches, pairs) for patches, pairs in self.testing.values()]

    def predict_dataloader(self) -> list[PairLoader]:
        """Returns what `test_dataloader` returns."""
        return self.test_dataloader()

    def _in_order(self, patches: PatchSet, pairs: NDArray[np.int64]) -> PairLoader:
        order = BatchOrder(len(pairs), self.batch_size, lambda: torch.arange(len(pairs)), even=False)
        return PairLoader(patches.patches, pairs, order)

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
            patches: (N, 64, 64) uint8.

        Returns:
            (N, 1, size, size) float32, grey values in 0..1.
        """
        if patches.shape[2] == 2 * self.size:
            # means of four, by whole numbers: three times as fast as through floats
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


class Brown(PatchData):
    """Patches around points of three places (Winder, Hua & Brown, CVPR 2009; Brown, Hua & Winder, PAMI 2011).

    Reads `ROOT/liberty`, `ROOT/notredame` and `ROOT/yosemite` in the official format: 450,092, 468,159 and 633,587
    grey patches of 64x64 pixels. They are parsed once into a cache of as many bytes.

    Args:
        root: folder of data sets; None takes `$TINV_DATA`, else `data`.
        download: fetches the sets (with torchvision) if they are not there.
        train: set to train on.
        test: sets to test on; None takes the other two.
        n_pairs: 25,000 to 500,000 in Kayhan & van Gemert (2020).
        test_pairs: N of the list of test pairs.
        **kwargs: see PatchData.
    """

    def __init__(
        self,
        root: str | None = None,
        download: bool = False,
        train: Literal["liberty", "notredame", "yosemite"] = "yosemite",
        test: Sequence[str] | None = None,
        n_pairs: int = 500_000,
        test_pairs: int = 100_000,
        **kwargs: Any,
    ) -> None:
        for name in (train, *(test or ())):
            if name not in BROWN:
                raise unknown("set of patches", name, BROWN)
        test = [name for name in BROWN if name != train] if test is None else test
        super().__init__(train=train, test=test, n_pairs=n_pairs, test_pairs=test_pairs, **kwargs)
        self.root, self.download = data_root(root), download

    def prepare_data(self) -> None:
        """Downloads what is missing, if asked to, and parses the sets."""
        if self.download:
            for name in (self.train_set, *self.test_sets):
                if not (Path(self.root) / name).is_dir():
                    _fetch(name, Path(self.root))
        for name in (self.train_set, *self.test_sets):
            self._read(name)

    def folders(self) -> dict[str, Path]:
        """Returns the folder of each set, there or not."""
        return {name: Path(self.root) / name for name in BROWN}

    def _read(self, name: str) -> PatchSet:
        if not (Path(self.root) / name).is_dir():
            raise TinvError(
                f"no patches {Path(self.root) / name}; pass --data.init_args.download=true to fetch them, or name "
                f"the folder that holds {name} with --data.init_args.root=DIR or TINV_DATA=DIR (now {self.root!r})"
            )
        return super()._read(name)


def _fetch(name: str, root: Path) -> None:
    """Downloads and unpacks a set by the address and checksum that torchvision knows."""
    from torchvision.datasets import PhotoTour
    from torchvision.datasets.utils import download_and_extract_archive

    address, file, checksum = PhotoTour.urls[name]
    unpacked = root / f".{name}"
    try:
        download_and_extract_archive(address, str(root), str(unpacked), file, checksum, remove_finished=True)
        os.replace(unpacked, root / name)
    except (OSError, RuntimeError) as error:
        raise TinvError(
            f"{name} could not be downloaded to {root} ({error}); unpack {address} to {root / name} by hand and leave "
            "out download"
        ) from error
