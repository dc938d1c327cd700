"""ImageNet, and any other data set of photographs in class folders: all of it, some classes, some images a class."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import nn

from tinv.data.base import Stage
from tinv.data.batching import Batch, normalize
from tinv.data.file_batches import ImageDataset
from tinv.data.folders import image_folder
from tinv.data.formats.image_cache import Prepare
from tinv.data.formats.image_preparation import Augmentation, RandomResizedCrop, Resize, ResizeCenterCrop, Transforms
from tinv.data.formats.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageFiles,
    OnError,
    class_folders,
    find_images,
    image_files,
)
from tinv.data.from_files import FileData
from tinv.deprecation import renamed
from tinv.errors import TinvError, check_choice, nearest
from tinv.utils.io import read_lines

ImageAugment = Literal["random_resized_crop", "none"]

CLASS_LISTS = {"imagenet_a_200": "imagenet_a_synsets.txt"}
"""Named subsets of ImageNet's classes, and the files of timm that list them (Hendrycks et al., CVPR 2021)."""


class ImageNet(FileData):
    """Images in class folders, ROOT/train/CLASS/* and ROOT/val/CLASS/*, as ImageNet's; all, or a part of them.

    The network sees `size` pixels a side. Validation images are resized and cut in the middle. Test images are the same
    ones with more around the middle if `test_resolution` says so: shift tests look at crops of them.

    Args:
        root: Folder that holds `train` and `val` (searched for in the folder of data sets too).
        train_folder: Name of the folder to train on.
        val_folder: Name of the folder to validate and test on.
        classes: Class folders to take: a file with one name a line, or `imagenet_a_200`; None takes all.
        images_per_class: Training images of each class, drawn by `data_seed`; a larger draw holds a smaller one.
        train_list: File that names the training images, one a line, relative to the folder of training images.
        data_seed: Seed of that draw; part of the data, not of the run's seed.
        size: Side of what the network sees, in pixels.
        resize: Shorter side of a validation image before its middle is cut out, in pixels; None is 8/7 of `size` (256
            for 224).
        test_resolution: Side of the test images in pixels, resized to it and cut in the middle; None tests on the
            validation images.
        augment: Random changes to training images: `random_resized_crop`, flipped half of the time, as in the published
            recipes; `none` trains on images cut as those of validation.
        train_transforms: torchvision v2 transforms in the place of `augment`, from any size to one, bytes to bytes.
        cache_resolution: Shorter side in pixels at which decoded training images are kept on disk for later epochs and
            runs (validation and test images are kept as they are used); None reads the files each time.
        cache_dir: Folder of caches; None is `~/.cache/tinv`.
        on_error: What a damaged file does: `raise` an error, or `skip` it and count it in results.json.
        batch_size: Images a step (and a process).
        num_workers: Number of processes that read images.
        seed: Seed of the order and the augmentation; None takes the run's seed (`seed_everything`).
    """

    mean = IMAGENET_MEAN
    std = IMAGENET_STD

    @renamed(test_size="test_resolution", cache="cache_resolution")
    def __init__(
        self,
        root: str = "imagenet",
        train_folder: str = "train",
        val_folder: str = "val",
        classes: str | None = None,
        images_per_class: int | None = None,
        train_list: str | None = None,
        data_seed: int = 0,
        size: int = 224,
        resize: int | None = None,
        test_resolution: int | None = None,
        augment: ImageAugment = "random_resized_crop",
        train_transforms: list[nn.Module] | None = None,
        cache_resolution: int | None = None,
        cache_dir: str | None = None,
        on_error: OnError = "raise",
        batch_size: int = 256,
        num_workers: int = 8,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size, num_workers, seed, cache_dir, cache_resolution, on_error)
        check_choice("augment", augment, ImageAugment)
        if images_per_class is not None and train_list is not None:
            raise TinvError("images_per_class and train_list both say which images to train on; give one of them")
        if size < 1:
            raise TinvError(f"size={size} must be at least 1")
        resize = round(size * 8 / 7) if resize is None else resize
        others = {"resize": resize, "test_resolution": test_resolution, "cache_resolution": cache_resolution}
        for key, value in others.items():
            if value is not None and value < size:
                raise TinvError(f"{key}={value} must be at least {size} pixels, the size that the network sees")
        if images_per_class is not None and images_per_class < 1:
            raise TinvError(f"images_per_class={images_per_class} must be at least 1")
        self.root, self.folders = root, {"train": train_folder, "val": val_folder}
        self.class_list, self.images_per_class, self.train_list = classes, images_per_class, train_list
        self.data_seed, self.size, self.resize, self.test_resolution = data_seed, size, resize, test_resolution
        self.augment, self.train_transforms = augment, train_transforms
        self.found: dict[str, ImageFiles] = {}

    def prepare_data(self) -> None:
        """Makes the caches, in one process."""
        stages: tuple[Stage, ...] = ("train", "val", "test")
        for stage in stages if self.cache_resolution is not None else ():
            cache = self.dataset(stage).cache
            assert cache is not None
            cache.build(self.num_workers)

    def setup(self, stage: str | None = None) -> None:
        """Finds the images, once.

        Raises:
            TinvError: For folders, classes and images that are not there, too few images of a class, and classes that
                training and validation do not share.
        """
        if self.found:
            return
        root = image_folder(self.root)
        selected = None
        if self.class_list is not None:
            selected = read_class_list(self.class_list, class_folders(root / self.folders["val"]))
        val = find_images(root / self.folders["val"], selected)
        if self.train_list is not None:
            train = read_image_list(Path(self.train_list), root / self.folders["train"], selected)
        else:
            train = find_images(root / self.folders["train"], selected)
        if not train.classes or not val.classes:
            flat = train if not train.classes else val
            raise TinvError(f"{flat.folder} holds images but no class folders; there is nothing to learn")
        if train.classes != val.classes:
            raise TinvError(_class_difference(train, val))
        if self.images_per_class is not None:
            train = draw_per_class(train, self.images_per_class, self.data_seed)
        self.found = {"train": train, "val": val}

    @property
    def num_classes(self) -> int:
        """Classes there are, or that were chosen."""
        return len(self._files("val").classes)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the network sees."""
        return (3, self.size, self.size)

    @property
    def canvas_margin(self) -> int:
        """0: images fill what the network sees."""
        return 0

    @property
    def crop_margin(self) -> int:
        """Pixels an axis that test images have beyond what the network sees."""
        return 0 if self.test_resolution is None else self.test_resolution - self.size

    @property
    def is_augmented(self) -> bool:
        """Whether training images change from epoch to epoch."""
        return self.train_transforms is not None or self.augment != "none"

    @property
    def provenance(self) -> dict[str, Any]:
        """Which images these are, for results.json: counts, checksums of their lists, files that were skipped."""
        found: dict[str, Any] = {"classes": self.num_classes}
        for name in ("train", "val"):
            files = self._files(name)
            found |= {f"{name}_images": len(files), f"{name}_sha256": files.sha256()}
        return {**found, **super().provenance}

    def save_artifacts(self, folder: Path) -> list[Path]:
        """Writes `train_list.txt`, which `train_list` takes, where a part of the images was drawn."""
        if self.images_per_class is None:
            return []
        path = folder / "train_list.txt"
        path.write_bytes(os.fsencode(self._files("train").listed()))
        return [path]

    def _files(self, name: str) -> ImageFiles:
        self.setup()
        return self.found["val" if name == "test" else name]

    def dataset(self, stage: Stage) -> ImageDataset:
        """Returns what reads the images of a set."""
        augmentation: Augmentation | None = None
        prepare: Prepare = ResizeCenterCrop(self.resize, self.size, self.size)
        if stage == "test" and (side := self.test_resolution) is not None:
            prepare = ResizeCenterCrop(side, side, side)
        if stage == "train" and self.is_augmented:
            prepare = Resize(self.cache_resolution)
            if self.train_transforms is None:
                augmentation = RandomResizedCrop(self.size, self.seed)
            else:
                augmentation = Transforms(self.train_transforms, self.seed)
        files = self._files(stage)
        return ImageDataset(files, prepare, augmentation, self.cache(files, prepare))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Makes the network's input of a batch of bytes, on the device it is on: (N, 3, H, W) float32."""
        return batch._replace(image=normalize(batch.image, self.mean, self.std).permute(0, 3, 1, 2))


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
    if absent := [name for name in names if not (folder / name).is_file()]:
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise TinvError(f"{path} names images that are not in {folder}: {', '.join(absent[:3])}{more}")
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
        own = np.flatnonzero(files.targets == number)
        if len(own) < count:
            raise TinvError(f"images_per_class={count}: {files.folder / name} holds {len(own)}; use that many or fewer")
        drawn = np.random.default_rng([seed, *os.fsencode(name)]).permutation(len(own))[:count]
        kept.append(np.sort(own[drawn]))
    return files.take(np.concatenate(kept))


def _class_difference(train: ImageFiles, val: ImageFiles) -> str:
    parts = []
    for one, other in ((train, val), (val, train)):
        if only := [name for name in one.classes if name not in set(other.classes)]:
            more = f" and {len(only) - 3} more" if len(only) > 3 else ""
            parts.append(f"only in {one.folder}: {', '.join(only[:3])}{more}")
    return f"training and validation images have different classes; {'; '.join(parts)}"
