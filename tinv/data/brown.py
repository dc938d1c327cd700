"""Patches of the Photo Tourism reconstructions: which two show the same point of the world?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from tinv.data.folders import data_root, fetch_archive, find_folder
from tinv.data.formats.patches import PatchSet
from tinv.data.patch_data import PatchData
from tinv.deprecation import renamed
from tinv.errors import unknown
from tinv.utils.arguments import PositiveInt

BROWN = ("liberty", "notredame", "yosemite")


class Brown(PatchData):
    """Patches around points of three places (Winder, Hua & Brown, CVPR 2009; Brown, Hua & Winder, PAMI 2011).

    Reads `ROOT/liberty`, `ROOT/notredame` and `ROOT/yosemite` in the official format: 450,092, 468,159 and 633,587
    gray patches of 64x64 pixels. They are parsed once into a cache of as many bytes.

    Args:
        root: Folder of data sets; None takes `$TINV_DATA`, else `data`.
        download: Whether the sets are fetched (with torchvision) if they are not there.
        train: Set to train on.
        test: Sets to test on; None takes the other two.
        num_pairs: Number of pairs to train on, 25,000 to 500,000 in Kayhan & van Gemert (2020).
        num_test_pairs: N of the list of test pairs.
        **kwargs: See PatchData.
    """

    @renamed(n_pairs="num_pairs", test_pairs="num_test_pairs")
    def __init__(
        self,
        root: str | None = None,
        download: bool = False,
        train: Literal["liberty", "notredame", "yosemite"] = "yosemite",
        test: Sequence[str] | None = None,
        num_pairs: PositiveInt = 500_000,
        num_test_pairs: PositiveInt = 100_000,
        **kwargs: Any,
    ) -> None:
        for name in (train, *(test or ())):
            if name not in BROWN:
                raise unknown("set of patches", name, BROWN)
        test = [name for name in BROWN if name != train] if test is None else test
        super().__init__(train=train, test=test, num_pairs=num_pairs, num_test_pairs=num_test_pairs, **kwargs)
        self.root, self.download = data_root(root), download

    def prepare_data(self) -> None:
        """Downloads what is missing, if asked to, and parses the sets."""
        for name in (self.train_set, *self.test_sets):
            if self.download and not self.folders()[name].is_dir():
                _fetch(name, Path(self.root))
        super().prepare_data()

    def folders(self) -> dict[str, Path]:
        """Returns the folder of each set, there or not."""
        return {name: Path(self.root) / name for name in BROWN}

    def _read(self, name: str) -> PatchSet:
        find_folder(name, [self.folders()[name]], self.root, download=True)
        return super()._read(name)


def _fetch(name: str, root: Path) -> None:
    """Downloads and unpacks a set by the address and checksum that torchvision knows."""
    from torchvision.datasets import PhotoTour

    address, _, checksum = PhotoTour.urls[name]
    unpacked = root / f".{name}"
    fetch_archive([address], root, checksum, unpacked)
    os.replace(unpacked, root / name)
