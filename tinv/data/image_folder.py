"""Images of one's own in class folders: a training and a validation folder, or one folder that is split."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from tinv.data.batching import check_normalization
from tinv.data.folders import image_folder
from tinv.data.formats.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageFiles,
    class_folders,
    find_images,
    first_few,
    shuffled_class,
)
from tinv.data.image_file_data import ImageFileData
from tinv.errors import TinvError, TinvWarning
from tinv.utils.arguments import OpenUnitInterval, Seed
from tinv.utils.io import write_bytes_atomically


class ImageFolder(ImageFileData):
    """Images of your own in class folders: ROOT/train/CLASS/* and ROOT/val/CLASS/*, or ROOT/CLASS/* split by a seed.

    The number of classes is that of the folders. Where ROOT holds neither a training nor a validation folder, its
    folders are the classes, and `val_share` of the images of each class, at least one, are validated on: the same ones
    whichever other classes there are, and a larger share holds those of a smaller one. What the images of validation
    are, is in results.json (checksum) and in `val_list.txt` of the run folder. Validation images are tested on.

    Args:
        root: Folder of images (searched for in the folder of data sets too).
        train_folder: Name of the folder to train on.
        val_folder: Name of the folder to validate and test on.
        val_share: Part of the images of each class that is validated on, more than 0 and less than 1, where one folder
            is split.
        data_seed: Seed of the split; part of the data, not of the run's seed.
        mean: Mean of red, green and blue, subtracted from values in 0..1: what the weights were trained with.
        std: Standard deviation of red, green and blue, that values are divided by.
        **kwargs: See ImageFileData.

    Raises:
        TinvError: For a value out of range; in `setup` if there are no class folders, only one class, one of the two
            folders without the other, or a class of a single image to split.
    """

    def __init__(
        self,
        root: str = "images",
        train_folder: str = "train",
        val_folder: str = "val",
        val_share: OpenUnitInterval = 0.2,
        data_seed: Seed = 0,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root, self.train_folder, self.val_folder = root, train_folder, val_folder
        self.val_share, self.data_seed = val_share, data_seed
        self.mean, self.std = mean, std
        check_normalization(self.mean, self.std)
        self.is_split = False

    def find_files(self) -> dict[str, ImageFiles]:
        """Finds the images of the two folders, or splits those of one."""
        root = image_folder(self.root)
        train_folder, val_folder = root / self.train_folder, root / self.val_folder
        if train_folder.is_dir() and val_folder.is_dir():
            return {"train": _of_classes(train_folder), "val": _of_classes(val_folder)}
        for there, absent, key in (
            (train_folder, val_folder, "val_folder"),
            (val_folder, train_folder, "train_folder"),
        ):
            if there.is_dir() and class_folders(there):  # one that holds images alone is a class of that name
                others = [name for name in class_folders(root) if name != there.name]
                has = f" ({root} has {first_few(others)})" if others else ""
                raise TinvError(
                    f"no folder {absent} beside {there}; name it with data.init_args.{key}{has}, or split the images "
                    f"of one folder with data.init_args.root={there}"
                )
        files = _of_classes(root)
        return self._split(files) if files.classes else {"train": files, "val": files}

    def _split(self, files: ImageFiles) -> dict[str, ImageFiles]:
        """Draws the images to validate on, of each class."""
        is_val = np.zeros(len(files), dtype=bool)
        for number, name in enumerate(files.classes):
            own = shuffled_class(files, number, self.data_seed)
            if len(own) < 2:
                raise TinvError(
                    f"the class folder {files.folder / name} holds 1 image, too few to split in training and "
                    "validation; add images, or take the folder away"
                )
            count = round(self.val_share * len(own))
            is_val[own[: min(max(count, 1), len(own) - 1)]] = True
        self.is_split = True
        rank_zero_warn(
            f"{files.folder} has no {self.train_folder} and {self.val_folder}: {is_val.sum()} of {len(files)} images, "
            f"drawn by data_seed={self.data_seed} (val_share={self.val_share}), are validated and tested on",
            category=TinvWarning,
        )
        return {"train": files.take(np.flatnonzero(~is_val)), "val": files.take(np.flatnonzero(is_val))}

    @property
    def provenance(self) -> dict[str, Any]:
        """Which images these are, for results.json; of a split also how it was drawn."""
        found = super().provenance
        split = {"val_share": self.val_share, "data_seed": self.data_seed} if self.is_split else None
        return {**found, "split": split}

    def save_artifacts(self, folder: Path) -> list[Path]:
        """Writes `train_list.txt` and `val_list.txt`, the images of each set, where one folder was split."""
        if not self.is_split:
            return []
        paths = {name: folder / f"{name}_list.txt" for name in ("train", "val")}
        for name, path in paths.items():
            write_bytes_atomically(path, os.fsencode(self._files(name).listed()))
        return list(paths.values())


def _of_classes(folder: Path) -> ImageFiles:
    """Returns the images of a folder; one with a single class is refused."""
    files = find_images(folder)
    if len(files.classes) == 1:
        [name] = files.classes
        inside = folder / name
        below = f", or name {inside} if its folders are the classes" if class_folders(inside) else ""
        raise TinvError(
            f"{folder} has one class folder ({name}), and there is nothing to tell apart; add another{below}"
        )
    return files
