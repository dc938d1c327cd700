"""CIFAR-10 and CIFAR-100 from either official layout: the Python pickles or the binary records."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinv.data.batching import check_normalization
from tinv.data.folders import data_not_found, fetch_archive, find_folder
from tinv.data.in_memory import ImageSet, TrainTestData, check_targets
from tinv.deprecation import renamed
from tinv.errors import TinvError
from tinv.utils.arguments import PositiveInt
from tinv.utils.io import read_bytes

PIXELS = 3 * 32 * 32


class CIFAR10(TrainTestData):
    """50,000 training and 10,000 test images, 32x32 color, 10 classes, normalized by channel mean and std.

    Reads `ROOT/cifar-10-batches-bin/*.bin` or `ROOT/cifar-10-batches-py/*` (each checksummed before it is unpickled).

    Args:
        root: Folder of data sets; None takes `$TINV_DATA`, else `data`.
        canvas_size: Side in pixels of the square of zeros around the image, 50 in Mouton et al. (2020).
        mean: Mean of the three channels, 0 to 1; None takes that of the data set. Published weights need their own.
        std: Standard deviation of the three channels; None takes that of the data set.
        **kwargs: See TrainTestData.
    """

    num_classes = 10
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    name = "CIFAR10"
    folders: tuple[str, str] = ("cifar-10-batches-bin", "cifar-10-batches-py")
    train_files: tuple[str, ...] = tuple(f"data_batch_{number}" for number in range(1, 6))
    test_files: tuple[str, ...] = ("test_batch",)
    label_key = "labels"
    label_bytes = 1

    @renamed(canvas="canvas_size")
    def __init__(
        self,
        root: str | None = None,
        *,
        canvas_size: PositiveInt | None = 50,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, canvas_size=canvas_size, **kwargs)
        self.mean, self.std = mean or self.mean, std or self.std
        check_normalization(self.mean, self.std)

    def fetch(self) -> None:
        """Downloads and unpacks the archive of pickles if neither layout is there."""
        if not any(Path(self.root, folder).is_dir() for folder in self.folders):
            fetch_archive([self.torchvision_class.url], Path(self.root), self.torchvision_class.tgz_md5)

    def read(self) -> tuple[ImageSet, ImageSet]:
        """Reads the batches of the binary layout, else of the pickled one."""
        folder = find_folder(self.name, [Path(self.root, name) for name in self.folders], self.root, download=True)
        return self._read(folder, self.train_files), self._read(folder, self.test_files)

    def _read(self, folder: Path, files: tuple[str, ...]) -> ImageSet:
        is_binary = folder.name == self.folders[0]
        image, target, end = torch.empty(0), torch.empty(0), 0
        for file in files:
            path = folder / (f"{file}.bin" if is_binary else file)
            if not path.exists():
                raise data_not_found(self.name, [path], self.root)
            pixels, labels = self._read_binary(path) if is_binary else self._read_pickle(path)
            classes = check_targets(path, labels, self.num_classes)
            if end == 0:
                # memory for all files, which are of one size: so the set is never in memory twice
                image = torch.empty(len(classes) * len(files), 32, 32, 3, dtype=torch.uint8)
                target = torch.empty(len(image), dtype=torch.int64)
            begin, end = end, end + len(classes)
            if end > len(image):
                raise TinvError(f"{path} holds more images than {files[0]}; get the files again")
            image[begin:end] = torch.from_numpy(pixels).view(-1, 3, 32, 32).permute(0, 2, 3, 1)
            target[begin:end] = classes
        return ImageSet(image[:end], target[:end])

    def _read_binary(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        record = self.label_bytes + PIXELS
        raw = np.frombuffer(read_bytes(path), dtype=np.uint8)
        if len(raw) == 0 or len(raw) % record:
            raise TinvError(
                f"{path}: {len(raw):,} bytes is not a whole number of {record:,}-byte images; get the file again"
            )
        records = raw.reshape(-1, record)
        # the last label byte is the one asked for: CIFAR-100 has the coarse class before the fine one
        return np.ascontiguousarray(records[:, self.label_bytes :]), records[:, self.label_bytes - 1]

    def _read_pickle(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        raw = read_bytes(path)
        if hashlib.md5(raw).hexdigest() != self.checksums().get(path.name):
            raise TinvError(f"{path}: its checksum is not the official one, so it is not unpickled; get the file again")
        batch = pickle.loads(raw, encoding="latin1")
        return np.asarray(batch["data"], dtype=np.uint8), np.asarray(batch[self.label_key], dtype=np.int64)

    def checksums(self) -> dict[str, str]:
        """Returns the official MD5 of each pickled file, as torchvision lists them."""
        return dict([*self.torchvision_class.train_list, *self.torchvision_class.test_list])


class CIFAR100(CIFAR10):
    """CIFAR-100's 100 fine classes, from `cifar-100-binary` or `cifar-100-python`. See CIFAR10 for the options."""

    num_classes = 100
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    name = "CIFAR100"
    folders = ("cifar-100-binary", "cifar-100-python")
    train_files = ("train",)
    test_files = ("test",)
    label_key = "fine_labels"
    label_bytes = 2
