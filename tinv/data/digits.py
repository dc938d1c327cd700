"""Real handwritten digits that need no download: they ship with scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tinv.data.in_memory import ImageSet, InMemoryData, Splits, split_balanced


class Digits(InMemoryData):
    """The 1,797 handwritten digits of scikit-learn (8x8 grey images, 10 classes), scaled to [0, 1] on black.

    Splits are class-balanced and disjoint.

    Args:
        val_size: images kept for validation.
        test_size: images kept for the test.
        train_size: images to train on; None for all the rest.
        split_seed: of the choice of the three sets; part of the data, not of the run's seed.
        canvas: side in pixels of the square of zeros around the image.
        **kwargs: see InMemoryData.
    """

    num_classes = 10

    def __init__(
        self,
        val_size: int = 200,
        test_size: int = 400,
        train_size: int | None = None,
        split_seed: int = 0,
        canvas: int | None = 24,
        **kwargs: Any,
    ) -> None:
        super().__init__(canvas=canvas, **kwargs)
        self.val_size, self.test_size, self.train_size, self.split_seed = val_size, test_size, train_size, split_seed

    def load(self) -> Splits:
        """Cuts the three sets; grey values 0..16 become 0..255."""
        from sklearn.datasets import load_digits

        raw = load_digits()
        image = torch.from_numpy(np.rint(raw.images * (255 / 16)).astype(np.uint8)).unsqueeze(-1)
        images = ImageSet(image, torch.from_numpy(raw.target.astype(np.int64)))
        sizes = {"test_size": self.test_size, "val_size": self.val_size, "train_size": self.train_size}
        test, val, train = split_balanced(images, sizes, self.split_seed)
        return Splits(train, val, {"test": test})
