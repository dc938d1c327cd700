"""A training step of HardNet under `tinv fit` against a bare PyTorch loop over the same patches.

Both take batches of 256 pairs from memory, average them down, normalize each patch, describe both sides, and step.
Claim: at most 1.05 times the seconds. Run: python benchmarks/descriptor_step.py
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback
from timing import in_turn, verdict
from torch.nn import functional as F

from tinv.data import Brown
from tinv.data.formats.patches import write_patch_set
from tinv.models import create_backbone
from tinv.runs.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from tinv.runs.callbacks.training import SeedEachEpoch, StopOnNaN
from tinv.runs.configuration import TinvCLI
from tinv.runs.folder import RunFolder
from tinv.tasks.hardest_in_batch import hardest_in_batch

BATCH, STEPS, EPOCHS = 256, 4, 2


def options(root: Path) -> dict[str, object]:
    return {"root": str(root), "num_pairs": BATCH * STEPS, "batch_size": BATCH, "cache_dir": str(root / "caches")}


def tinv_step(root: Path) -> float:
    """Returns the seconds of a step of the fit command's trainer, in the epoch after the first."""

    class Clock(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            self.started = time.perf_counter()

        def on_train_epoch_end(self, trainer, pl_module):
            self.seconds = (time.perf_counter() - self.started) / STEPS

    with tempfile.TemporaryDirectory() as place:
        folder, clock = RunFolder(Path(place)), Clock()
        words = [f"--data.init_args.{key}={value}" for key, value in options(root).items()]
        configuration = TinvCLI(["--config=configs/brown.yaml", *words, f"--trainer.max_epochs={EPOCHS}"])
        best = BestCheckpoint(folder, "val/fpr95", "min")
        callbacks = [clock, StopOnNaN(folder), SeedEachEpoch(0), LastCheckpoint(folder), best]
        trainer = configuration.make_trainer(callbacks, folder.path)
        trainer.fit(configuration.model, datamodule=configuration.datamodule)
        return clock.seconds


def bare_step(root: Path) -> float:
    """Returns the seconds of a step of a plain loop, in the epoch after the first."""
    torch.manual_seed(0)
    data = Brown(**options(root), seed=0)  # type: ignore[arg-type]
    data.setup("fit")
    assert data.training is not None
    patches, pairs = data.training[0].patches, torch.from_numpy(data.training[1])
    network = create_backbone("hardnet", num_classes=128, in_channels=1, padding="same_zero")
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=10.0, momentum=0.9, dampening=0.9, weight_decay=1e-4)

    def describe(numbers: torch.Tensor) -> torch.Tensor:
        small = F.avg_pool2d(patches[numbers][:, None].float() / 255, 2)
        deviation, mean = torch.std_mean(small, dim=(1, 2, 3), keepdim=True)
        normal = ((small - mean) / (deviation + 1e-7)).contiguous(memory_format=torch.channels_last)
        return F.normalize(network(normal))

    for _ in range(EPOCHS):
        started = time.perf_counter()
        for part in torch.randperm(len(pairs)).split(BATCH):
            loss = hardest_in_batch(describe(pairs[part, 0]), describe(pairs[part, 1]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return (time.perf_counter() - started) / STEPS


def main() -> int:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        points = np.arange(4 * BATCH * STEPS) // 4
        patches = np.random.default_rng(0).integers(0, 256, (len(points), 64, 64), dtype=np.uint8)
        for name in ("yosemite", "liberty", "notredame"):
            write_patch_set(root / name, patches, points.tolist(), np.array([[0, 1], [0, 9]]), [0] * len(points))
        seconds = in_turn({"tinv": lambda: tinv_step(root), "bare": lambda: bare_step(root)}, rounds=3)
    print({name: f"{1000 * value:.0f} ms a step" for name, value in seconds.items()})
    return 0 if verdict("seconds of a step over the bare loop's", seconds["tinv"] / seconds["bare"], 1.05, False) else 1


if __name__ == "__main__":
    sys.exit(main())
