"""In-memory batches with random translation against torchvision's data set, DataLoader(2 workers) and transforms.

Claim: at least 10 times the images a second, on CIFAR-10. Run: TINV_DATA=DIR python benchmarks/data_loading.py
"""

from __future__ import annotations

import random
import sys
from types import SimpleNamespace

import numpy as np
import torch
from timing import in_turn, verdict
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from tinv.data import CIFAR10

IMAGES, BATCH, SHIFT = 20_000, 128, 8


class PerSample(Dataset):
    """What torchvision.datasets.CIFAR10 does for an image: PIL from the array, then the transforms."""

    def __init__(self, image: torch.Tensor, target: torch.Tensor, transform: v2.Transform) -> None:
        self.image, self.target, self.transform = image.numpy(), target.tolist(), transform

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, number: int):
        from PIL import Image

        return self.transform(Image.fromarray(self.image[number])), self.target[number]


def random_translation(image: torch.Tensor) -> torch.Tensor:
    dx, dy = random.randint(-SHIFT, SHIFT), random.randint(-SHIFT, SHIFT)
    return v2.functional.affine(image, angle=0, translate=[dx, dy], scale=1, shear=[0, 0])


def main() -> int:
    data = CIFAR10(batch_size=BATCH, num_train=IMAGES, train_max_shift=SHIFT, seed=0)
    data.setup()
    data.trainer = SimpleNamespace(current_epoch=0, training=True, overfit_batches=0)
    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(data.mean, data.std),
            v2.Pad((data.canvas_size - 32) // 2),
            v2.Lambda(random_translation),
        ]
    )
    assert data.splits is not None
    images = data.splits.train
    loader = DataLoader(PerSample(*images, transform), BATCH, shuffle=True, num_workers=2, persistent_workers=True)

    def ours() -> None:
        for batch in data.train_dataloader():
            data.on_after_batch_transfer(batch, 0)

    def theirs() -> None:
        for _ in loader:
            pass

    example = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0).image
    assert example.shape[1:] == next(iter(loader))[0].shape[1:] == (3, 50, 50)
    assert np.isfinite(example.numpy()).all()
    seconds = in_turn({"tinv": ours, "torchvision": theirs}, rounds=3)
    for name, value in seconds.items():
        print(f"{name}: {IMAGES / value:,.0f} images/s")
    return 0 if verdict("images/s over torchvision's", seconds["torchvision"] / seconds["tinv"], 10, True) else 1


if __name__ == "__main__":
    sys.exit(main())
