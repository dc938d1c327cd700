"""ImageNet, and any other data set of images in class folders: all of it, some classes, some images a class."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import numpy as np

from tinv.data.folders import image_folder
from tinv.data.formats.images import ImageFiles, class_folders, find_images, first_few, image_files, shuffled_class
from tinv.data.image_file_data import ImageFileData
from tinv.errors import TinvError, nearest
from tinv.utils.arguments import PositiveInt, Seed
from tinv.utils.io import read_lines, write_bytes_atomically

CLASS_LISTS = {"imagenet_a_200": "imagenet_a_synsets.txt"}
"""Named subsets of ImageNet's classes, and the files of timm that list them (Hendrycks et al., CVPR 2021)."""


class ImageNet(ImageFileData):
    """Images in class folders, ROOT/train/CLASS/* and ROOT/val/CLASS/*, as ImageNet's; all, or a part of them.

    Args:
        root: Folder that holds `train` and `val` (searched for in the folder of data sets too).
        train_folder: Name of the folder to train on.
        val_folder: Name of the folder to validate and test on.
        classes: Class folders to take: a file with one name a line, or `imagenet_a_200`; None takes all.
        images_per_class: Training images of each class, drawn by `data_seed`; a larger draw holds a smaller one.
        train_list: File that names the training images, one a line, relative to the folder of training images.
        data_seed: Seed of that draw; part of the data, not of the run's seed.
        **kwargs: See ImageFileData.
    """

    def __init__(
        self,
        root: str = "imagenet",
        train_folder: str = "train",
        val_folder: str = "val",
        classes: str | None = None,
        images_per_class: PositiveInt | None = None,
        train_list: str | None = None,
        data_seed: Seed = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if images_per_class is not None and train_list is not None:
            raise TinvError("images_per_class and train_list both say which images to train on; give one of them")
        self.root, self.train_folder, self.val_folder, self.data_seed = root, train_folder, val_folder, data_seed
        self.class_list, self.images_per_class, self.train_list = classes, images_per_class, train_list

    def find_files(self) -> dict[str, ImageFiles]:
        """Finds the images of all classes or of those chosen, and draws those to train on."""
        root = image_folder(self.root)
        train_folder, val_folder = root / self.train_folder, root / self.val_folder
        selected = None
        if self.class_list is not None:
            there = class_folders(val_folder)
            selected = read_class_list(self.class_list, there)
            if absent := sorted(set(selected) - set(there)):
                raise TinvError(
                    f"{self.class_list} names classes that {val_folder} has no folder of: {first_few(absent)}"
                )
        val = find_images(val_folder, selected)
        if self.train_list is not None:
            return {"train": read_image_list(Path(self.train_list), train_folder, selected), "val": val}
        train = find_images(train_folder, selected)
        if self.images_per_class is not None and train.classes:
            train = draw_per_class(train, self.images_per_class, self.data_seed)
        return {"train": train, "val": val}

    def save_artifacts(self, folder: Path) -> list[Path]:
        """Writes `train_list.txt`, which `train_list` takes, where a part of the images was drawn."""
        if self.images_per_class is None:
            return []
        path = folder / "train_list.txt"
        write_bytes_atomically(path, os.fsencode(self._files("train").listed()))
        return [path]


def read_class_list(name: str, folders: Sequence[str] = ()) -> list[str]:
    """Returns class names, sorted, each once: of a named list, or of a file with one a line.

    What follows a space is a comment, unless a class folder has a longer part of the line as its name.

    Args:
        name: Name of a list, or path of a file.
        folders: Names of the class folders there are.

    Raises:
        TinvError: If there is neither.
    """
    if name in CLASS_LISTS:
        lines = package_files("timm.data._info").joinpath(CLASS_LISTS[name]).read_text(encoding="utf-8").split("\n")
    elif Path(name).expanduser().exists():
        lines = [line for _, line in read_lines(Path(name).expanduser(), "surrogateescape")]
    else:
        raise TinvError(
            f"classes={name} is neither a file of class names nor a known list ({', '.join(CLASS_LISTS)})"
            f"{nearest(name, list(CLASS_LISTS))}"
        )
    known = set(folders)
    names = sorted({_class_of(line.strip(), known) for line in lines if line.strip() and not line.startswith("#")})
    if not names:
        raise TinvError(f"{name} names no classes")
    return names


def _class_of(line: str, known: set[str]) -> str:
    """Returns the longest beginning of a line, cut at spaces, that is a class folder; else its first word."""
    beginnings = [line, *(line[: space.start()] for space in reversed(list(re.finditer(r"\s+", line))))]
    return next((beginning for beginning in beginnings if beginning in known), beginnings[-1])


def read_image_list(path: Path, folder: Path, classes: list[str] | None) -> ImageFiles:
    """Returns the images that a file names, one a line, as CLASS/FILE relative to `folder`.

    Args:
        path: Path of the list.
        folder: Folder of the class folders.
        classes: Classes that may be named, in order of class numbers; None for those that are.

    Raises:
        TinvError: If the list is not there, is empty, or names images or classes that are not. An image that is named
            twice counts once.
    """
    if not path.exists():
        raise TinvError(f"no list of images {path}")
    names = sorted({line.strip() for _, line in read_lines(path, "surrogateescape")})
    if not names:
        raise TinvError(f"the list {path} names no images")
    if absent := [name for name in names if name.startswith("/") or not (folder / name).is_file()]:
        raise TinvError(f"{path} names images that are not in {folder}: {first_few(absent)}")
    of = [name.partition("/")[0] for name in names]
    classes = sorted(set(of)) if classes is None else classes
    number = {name: target for target, name in enumerate(classes)}
    if strange := sorted(set(of) - set(number)):
        raise TinvError(f"{path} names images of {', '.join(strange[:3])}, which is not among the classes chosen")
    if empty := [name for name in classes if name not in set(of)]:
        raise TinvError(f"{path} names no image of {', '.join(empty[:3])}")
    chosen = sorted(zip((number[name] for name in of), names, strict=True))
    return image_files(folder, [name for _, name in chosen], [target for target, _ in chosen], classes)


def draw_per_class(files: ImageFiles, count: int, seed: int) -> ImageFiles:
    """Draws `count` images of each class; what is drawn for a smaller count is part of it.

    A class's images are the same whichever other classes there are.

    Raises:
        TinvError: If a class has fewer.
    """
    kept = []
    for number, name in enumerate(files.classes):
        own = shuffled_class(files, number, seed)
        if len(own) < count:
            raise TinvError(f"images_per_class={count}: {files.folder / name} holds {len(own)}; use that many or fewer")
        kept.append(np.sort(own[:count]))
    return files.take(np.concatenate(kept))
