"""Photographs through tinv's loader against torchvision's ImageFolder with v1 transforms on PIL images.

Both: random resized crop to 224 pixels, flip, batches of 64, one worker process. The peer's worker also turns bytes
into normalized floats; tinv does that for whole batches on the model's device, which is timed and printed apart.
Claims: images/s of a worker at least 1.5 times the peer's, and at least 10 times from the cache (second epoch).
Run: python benchmarks/image_loading.py DIR   (DIR holds class folders of photographs)
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch
from timing import in_turn, verdict
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from tinv.data.batching import DistributedBatchSampler, normalize, shuffled
from tinv.data.file_batches import FileLoader, ImageDataset
from tinv.data.formats.image_cache import ImageCache
from tinv.data.formats.image_preparation import RandomResizedCrop, Resize
from tinv.data.formats.images import IMAGENET_MEAN, IMAGENET_STD, find_images

SIZE, BATCH, CACHE_SIDE, ROUNDS = 224, 64, 256, 5


def seconds_of(loader: object) -> float:
    """Returns the seconds from the first batch on, when the worker has started and works ahead."""
    batches = iter(loader)  # type: ignore[call-overload]
    next(batches)
    started = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - started


def main() -> int:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    files = find_images(folder)
    recipe = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    peer = DataLoader(
        datasets.ImageFolder(str(folder), recipe), BATCH, shuffle=True, num_workers=1, persistent_workers=True
    )
    with tempfile.TemporaryDirectory() as place:
        kept = Resize(CACHE_SIDE)
        cache = ImageCache(Path(place), files, kept)
        started = time.perf_counter()
        cache.build(1)
        print(f"first epoch's caching: {len(files) / (time.perf_counter() - started):,.0f} images/s")
        epoch = iter(range(1000)).__next__
        order = DistributedBatchSampler(len(files), BATCH, lambda: shuffled(len(files), 0, 0), even=False)
        augmentation = RandomResizedCrop(SIZE, 0)
        ours = FileLoader(ImageDataset(files, Resize(), augmentation), order, 1, epoch=epoch)
        cached = FileLoader(ImageDataset(files, kept, augmentation, cache), order, 1, epoch=epoch)
        seconds = in_turn(
            {
                "torchvision": lambda: seconds_of(peer),
                "tinv": lambda: seconds_of(ours),
                "tinv, cached": lambda: seconds_of(cached),
            },
            ROUNDS,
        )
        batch = next(iter(cached)).image
        started = time.perf_counter()
        for _ in range(20):
            normalize(batch, IMAGENET_MEAN, IMAGENET_STD)
        print(f"bytes to floats, one CPU thread: {20 * len(batch) / (time.perf_counter() - started):,.0f} images/s")
    count = len(files) - BATCH
    print({name: f"{count / value:,.0f} images/s" for name, value in seconds.items()})
    held = [
        verdict("images/s of a worker over torchvision's", seconds["torchvision"] / seconds["tinv"], 1.5, True),
        verdict("the same from the cache", seconds["torchvision"] / seconds["tinv, cached"], 10, True),
    ]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
