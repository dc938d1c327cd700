"""Brown's patches: parsing the sheets, starting again, and batches of pairs against a pipeline of single PIL images.

A set of 1,000 sheets (256,000 patches, 1 GB) is made of random patches. Claims: the first parsing reaches 0.8 times the
sheets/s of opening and decoding each with PIL; later starts take less than 2 s; batches of pairs, averaged down to
32x32 floats, come at 10 times the pairs/s of the public HardNet's per-sample pipeline (a PIL image, resized, to a
tensor) in a DataLoader. All in one process. Run: python benchmarks/patch_loading.py [SHEETS]
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timing import in_turn, verdict
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from tinv.data import Brown
from tinv.data.formats.patches import PatchSet, read_patch_set

PAIRS, BATCH, ROUNDS = 50_000, 256, 5
PEER_PAIRS = 5_000


class SinglePairs(Dataset[tuple[Tensor, Tensor]]):
    """Pairs as the public HardNet draws them: patch by patch through PIL."""

    def __init__(self, patches: Tensor, pairs: np.ndarray) -> None:
        self.patches, self.pairs = patches, pairs
        self.recipe = transforms.Compose([transforms.ToPILImage(), transforms.Resize(32), transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        first, second = self.pairs[number, :2]
        return self.recipe(self.patches[first].numpy()), self.recipe(self.patches[second].numpy())


def write_set(folder: Path, sheets: int) -> None:
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (1024, 1024), dtype=np.uint8)
    for number in range(sheets):
        pixels[0, :2] = divmod(number, 256)
        Image.fromarray(pixels).save(folder / f"patches{number:04d}.bmp")
    points = np.arange(256 * sheets) // 4
    (folder / "info.txt").write_text("".join(f"{point} 0\n" for point in points))


def main() -> int:
    torch.set_num_threads(1)
    sheets = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as place:
        root, caches = Path(place), Path(place) / "caches"
        folder = root / "yosemite"
        write_set(folder, sheets)

        def decode() -> float:
            # what the kernel writes back of the last parsing is not decoding's to wait for
            os.sync()
            started = time.perf_counter()
            for number in range(sheets):
                with Image.open(folder / f"patches{number:04d}.bmp") as image:
                    np.asarray(image)
            return time.perf_counter() - started

        def parse() -> float:
            shutil.rmtree(caches, ignore_errors=True)
            os.sync()
            started = time.perf_counter()
            read_patch_set(folder, caches)
            return time.perf_counter() - started

        seconds = in_turn({"PIL": decode, "tinv": parse}, ROUNDS)
        print({name: f"{sheets / value:,.0f} sheets/s" for name, value in seconds.items()})
        started = time.perf_counter()
        patches: PatchSet = read_patch_set(folder, caches)
        again = time.perf_counter() - started

        data = Brown(root=str(root), num_pairs=PAIRS, batch_size=BATCH, seed=0, cache_dir=str(caches))
        data.setup("fit")
        assert data.training is not None
        single = DataLoader(SinglePairs(patches.patches, data.training[1][:PEER_PAIRS]), BATCH)

        def batches() -> float:
            started = time.perf_counter()
            for batch in data.train_dataloader():
                data.on_after_batch_transfer(batch, 0)
            return (time.perf_counter() - started) / PAIRS

        def samples() -> float:
            started = time.perf_counter()
            for _ in single:
                pass
            return (time.perf_counter() - started) / PEER_PAIRS

        pair = in_turn({"PIL": samples, "tinv": batches}, ROUNDS)
        print({name: f"{1 / value:,.0f} pairs/s" for name, value in pair.items()})
    held = [
        verdict("sheets/s of the first parsing over PIL's decoding", seconds["PIL"] / seconds["tinv"], 0.8, True),
        verdict(f"seconds of a later start with {sheets} sheets", again, 2, False),
        verdict("pairs/s over the per-sample pipeline's", pair["PIL"] / pair["tinv"], 10, True),
    ]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
