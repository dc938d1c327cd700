"""Image files with classes, read as they are needed: what the data modules of such data sets have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal, get_args

from torch import nn

from tinv.data.base import Stage
from tinv.data.batching import Batch, normalize
from tinv.data.file_batches import ImageDataset
from tinv.data.formats.image_cache import Prepare
from tinv.data.formats.image_preparation import Augmentation, RandomResizedCrop, Resize, ResizeCenterCrop, Transforms
from tinv.data.formats.images import IMAGENET_MEAN, IMAGENET_STD, ImageFiles, first_few
from tinv.data.from_files import FileData
from tinv.deprecation import renamed
from tinv.errors import TinvError
from tinv.utils.arguments import NonNegativeInt, PositiveInt

ImageAugment = Literal["random_resized_crop", "none"]


class ImageFileData(FileData):
    """Base of the data modules of image files with classes. A subclass says in `find_files` which images there are.

    The network sees `size` pixels a side. Validation images are resized and cut in the middle. Test images are the same
    ones with more around the middle if `test_resolution` says so: shift tests look at crops of them.

    Args:
        size: Side of what the network sees, in pixels.
        resize: Shorter side of a validation image before its middle is cut out, in pixels; None is 8/7 of `size` (256
            for 224).
        test_resolution: Side of the test images in pixels, resized to it and cut in the middle; None tests on the
            validation images.
        augment: Random changes to training images: `random_resized_crop`, flipped half of the time, as in the published
            recipes; `none` trains on images cut as those of validation.
        train_transforms: Torchvision v2 transforms in the place of `augment`, from any size to one, bytes to bytes.
        batch_size: Images a step (and a process).
        num_workers: Number of processes that read images.
        **kwargs: See FileData. The cache keeps validation and test images as they are used.
    """

    mean = IMAGENET_MEAN
    std = IMAGENET_STD
    canvas_margin = 0  # images fill what the network sees

    @renamed(test_size="test_resolution")
    def __init__(
        self,
        size: PositiveInt = 224,
        resize: PositiveInt | None = None,
        test_resolution: PositiveInt | None = None,
        augment: ImageAugment = "random_resized_crop",
        train_transforms: list[nn.Module] | None = None,
        batch_size: PositiveInt = 256,
        num_workers: NonNegativeInt = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(size, batch_size, num_workers, **kwargs)
        self.resize, self.test_resolution = round(size * 8 / 7) if resize is None else resize, test_resolution
        for key, value in {"resize": resize, "test_resolution": test_resolution}.items():
            if value is not None and value < size:
                raise TinvError(f"{key}={value} must be at least {size} pixels, the size that the network sees")
        self.augment, self.train_transforms = augment, train_transforms
        self.found: dict[str, ImageFiles] = {}

    @abstractmethod
    def find_files(self) -> dict[str, ImageFiles]:
        """Returns the images of `train` and of `val`, with the same classes; those of `val` are tested on too.

        Raises:
            TinvError: If images are missing.
        """

    def prepare_data(self) -> None:
        """Makes the caches, in one process."""
        for stage in get_args(Stage):
            if (cache := self.dataset(stage).cache) is not None:
                cache.build(self.num_workers)

    def setup(self, stage: str | None = None) -> None:
        """Finds the images, once.

        Raises:
            TinvError: If images are missing, or training and validation have no classes or different ones.
        """
        if self.found:
            return
        found = self.find_files()
        for files in found.values():
            if not files.classes:
                raise TinvError(
                    f"{files.folder} holds images but no class folders; put those of each class in a folder of its own"
                )
        if found["train"].classes != found["val"].classes:
            raise TinvError(_class_difference(found["train"], found["val"]))
        self.found = found

    @property
    def num_classes(self) -> int:
        """Number of classes that there are, or that were chosen."""
        return len(self._files("val").classes)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the network sees."""
        return (3, self.size, self.size)

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
            prepare, own = Resize(self.cache_resolution), self.train_transforms
            augmentation = RandomResizedCrop(self.size, self.seed) if own is None else Transforms(own, self.seed)
        files = self._files(stage)
        return ImageDataset(files, prepare, augmentation, self.cache(files, prepare))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Makes the network's input of a batch of bytes, on the device it is on: (N, 3, H, W) float32."""
        return batch._replace(image=normalize(batch.image, self.mean, self.std).permute(0, 3, 1, 2))


def _class_difference(train: ImageFiles, val: ImageFiles) -> str:
    parts = []
    for one, other in ((train, val), (val, train)):
        if only := [name for name in one.classes if name not in set(other.classes)]:
            parts.append(f"only in {one.folder}: {first_few(only)}")
    return f"training and validation images have different classes; {'; '.join(parts)}"
