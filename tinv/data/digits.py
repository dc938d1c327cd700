"""Real handwritten digits that need no download: they ship with scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tinv.data.in_memory import ImageSet, InMemoryData, Splits, split_balanced
from tinv.deprecation import renamed
from tinv.utils.arguments import PositiveInt, Seed


class Digits(InMemoryData):
    """The 1,797 handwritten digits of scikit-learn (8x8 gray images, 10 classes), scaled to [0, 1] on black.

    Splits are class-balanced and disjoint.

    Args:
        num_val: Number of images kept for validation.
        num_test: Number of images kept for the test.
        num_train: Number of images to train on; None for all the rest.
        data_seed: Seed of the choice of the three sets; part of the data, not of the run's seed.
        canvas_size: Side in pixels of the square of zeros around the image.
        **kwargs: See InMemoryData.
    """

    num_classes = 10

    @renamed(
        val_size="num_val", test_size="num_test", train_size="num_train", split_seed="data_seed", canvas="canvas_size"
    )
    def __init__(
        self,
        num_val: PositiveInt = 200,
        num_test: PositiveInt = 400,
        num_train: PositiveInt | None = None,
        data_seed: Seed = 0,
        canvas_size: PositiveInt | None = 24,
        **kwargs: Any,
    ) -> None:
        super().__init__(canvas_size=canvas_size, **kwargs)
        self.sizes, self.data_seed = {"num_test": num_test, "num_val": num_val, "num_train": num_train}, data_seed

    def load(self) -> Splits:
        """Cuts the three sets; gray values 0..16 become 0..255."""
        from sklearn.datasets import load_digits

        raw = load_digits()
        image = torch.from_numpy(np.rint(raw.images * (255 / 16)).astype(np.uint8)).unsqueeze(-1)
        images = ImageSet(image, torch.from_numpy(raw.target.astype(np.int64)))
        test, val, train = split_balanced(images, self.sizes, self.data_seed)
        return Splits(train, val, {"test": test})
