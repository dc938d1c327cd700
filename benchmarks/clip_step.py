"""A training step of a 3D ResNet-18 on UCF101 under `tinv fit` against a bare PyTorch loop over the same clips.

The fit command cuts its clips from the cache of resized frames; the bare loop has decoded ones in memory, and mirrors
half of them. Both take the mean off and step in float32 and the same memory format, in one process with one thread.
Claim: at most 1.05 times the seconds. Run: TINV_DATA=DIR python benchmarks/clip_step.py
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch
from lightning.pytorch import Callback
from timing import in_turn, verdict
from torch.nn import functional as F

from tinv.data import UCF101
from tinv.data.action_clips import MEAN
from tinv.models import create_backbone
from tinv.runs.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from tinv.runs.callbacks.training import SeedEachEpoch, StopOnNaN
from tinv.runs.configuration import TinvCLI
from tinv.runs.folder import RunFolder

BATCH, STEPS, EPOCHS = 4, 7, 2


def tinv_step(caches: str) -> float:
    """Returns the seconds of a step of the fit command's trainer, in the second epoch from its second step on."""

    class Clock(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 0:  # what an epoch begins with, such as the checkpoint, is no part of a step
                self.started = time.perf_counter()
            else:
                self.seconds = (time.perf_counter() - self.started) / batch_idx

    data = {"absent": "skip", "cache_resolution": 128, "cache_dir": caches, "batch_size": BATCH, "num_workers": 0}
    words = [f"--data.init_args.{key}={value}" for key, value in data.items()]
    options = {"max_epochs": EPOCHS, "limit_train_batches": STEPS, "limit_val_batches": 1, "precision": "32-true"}
    words += [f"--trainer.{key}={value}" for key, value in options.items()]
    with tempfile.TemporaryDirectory() as place:
        folder, clock = RunFolder(Path(place)), Clock()
        configuration = TinvCLI(["--config=configs/action_recognition.yaml", *words])
        best = BestCheckpoint(folder, "val/acc", "max")
        callbacks = [clock, StopOnNaN(folder), SeedEachEpoch(0), LastCheckpoint(folder), best]
        trainer = configuration.make_trainer(callbacks, folder.path)
        trainer.fit(configuration.model, datamodule=configuration.datamodule)
    return clock.seconds


def bare_step(clips: torch.Tensor, classes: torch.Tensor) -> float:
    """Returns the seconds of a step of a plain training loop."""
    torch.manual_seed(0)
    network = create_backbone(
        "resnet3d", num_classes=101, in_channels=3, input_size=(16, 112, 112), padding="same_zero", depth=18
    ).to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, dampening=0.9, weight_decay=1e-3)
    mean = torch.tensor(MEAN)
    for _ in range(EPOCHS):
        for step, part in enumerate(torch.randperm(len(classes)).split(BATCH)):
            mirrored = torch.rand(len(part)) < 0.5
            images = clips[part]
            images[mirrored] = images[mirrored].flip(3)
            images = (images.float() - mean).permute(0, 4, 1, 2, 3)
            loss = F.cross_entropy(network(images), classes[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step == 0:
                started = time.perf_counter()
    return (time.perf_counter() - started) / (STEPS - 1)


def main() -> int:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as caches:
        data = UCF101(absent="skip", cache_resolution=128, cache_dir=caches, batch_size=BATCH * STEPS, seed=0)
        data.setup()
        batch = next(iter(data.train_dataloader()))
        clips, classes = batch.image.clone(), batch.target.clone()
        seconds = in_turn({"tinv": lambda: tinv_step(caches), "bare": lambda: bare_step(clips, classes)}, rounds=3)
    print({name: f"{1000 * value:.0f} ms a step" for name, value in seconds.items()})
    return 0 if verdict("seconds of a step over the bare loop's", seconds["tinv"] / seconds["bare"], 1.05, False) else 1


if __name__ == "__main__":
    sys.exit(main())
