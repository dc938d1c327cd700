"""An epoch and the peak memory of `tinv fit` on the CIFAR-10 grid against a bare PyTorch loop over the same tensors.

Claims: at most 1.05 times the seconds, at most 400 MB more memory. Both train and validate on the same images with
the same network, precision and memory format. Run: TINV_DATA=DIR python benchmarks/fit_epoch.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from timing import in_turn, verdict
from torch.nn import functional as F

CONFIG = ["--config=configs/cifar_grid.yaml", "--data.init_args.num_train=5000", "--data.init_args.num_val=1000"]
EPOCHS = 3


def tinv_epochs() -> float:
    """Runs the fit command's trainer and returns the seconds of an epoch: the shortest after the first."""
    from lightning.pytorch import Callback

    from tinv.runs.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
    from tinv.runs.callbacks.training import SeedEachEpoch, StopOnNaN
    from tinv.runs.configuration import TinvCLI
    from tinv.runs.folder import RunFolder

    class Clock(Callback):
        def __init__(self) -> None:
            self.starts: list[float] = []

        def on_train_epoch_start(self, trainer, pl_module):
            self.starts.append(time.perf_counter())

        def on_train_end(self, trainer, pl_module):
            self.starts.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place))
        configuration = TinvCLI([*CONFIG, f"--trainer.max_epochs={EPOCHS}"])
        clock = Clock()
        best = BestCheckpoint(folder, "val/acc", "max")
        callbacks = [clock, StopOnNaN(folder), SeedEachEpoch(0), LastCheckpoint(folder), best]
        trainer = configuration.make_trainer(callbacks, folder.path)
        trainer.fit(configuration.model, datamodule=configuration.datamodule)
        return min(b - a for a, b in zip(clock.starts[1:], clock.starts[2:], strict=False))


def save_tensors(path: Path) -> None:
    """Writes the images that tinv trains and validates on, for the bare loop."""
    from tinv.data import CIFAR10

    data = CIFAR10(num_train=5000, num_val=1000)
    data.setup()
    assert data.splits is not None
    torch.save({"train": [*data.splits.train], "val": [*data.splits.val], "mean": data.mean, "std": data.std}, path)


def bare_epochs() -> float:
    """Trains the same network in a plain loop and returns the seconds of an epoch: the shortest after the first."""
    from tinv.models import create_backbone  # imports neither Lightning nor data sets

    torch.manual_seed(0)
    data = torch.load(os.environ["TENSORS"], weights_only=True)
    network = create_backbone("pooling_cnn", num_classes=10, input_size=(50, 50), padding="same_zero")
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    mean, std = torch.tensor(data["mean"]), torch.tensor(data["std"])

    def batch(images: torch.Tensor) -> torch.Tensor:
        canvas = torch.zeros(len(images), 50, 50, 3)
        canvas[:, 9:41, 9:41] = (images.float() / 255 - mean) / std
        return canvas.permute(0, 3, 1, 2)

    seconds = []
    for _ in range(EPOCHS):
        started = time.perf_counter()
        network.train()
        image, target = data["train"]
        for part in torch.randperm(len(target)).split(128):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = F.cross_entropy(network(batch(image[part])), target[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        image, target = data["val"]
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            for part in torch.arange(len(target)).split(128):
                F.cross_entropy(network(batch(image[part])), target[part])
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def peak_memory(which: str) -> float:
    """Returns the peak resident memory, in MB, of a process that runs one of the two."""
    done = subprocess.run([sys.executable, __file__, which], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> int:
    peers = {"tinv": tinv_epochs, "bare": bare_epochs}
    if len(sys.argv) > 1:
        peers[sys.argv[1]]()
        # not getrusage, whose maximum a process inherits from the one that started it
        print(float(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024)
        return 0
    with tempfile.TemporaryDirectory() as place:
        os.environ["TENSORS"] = f"{place}/tensors.pt"
        save_tensors(Path(os.environ["TENSORS"]))
        seconds = in_turn(peers, rounds=5)
        memory = {name: peak_memory(name) for name in peers}
    print({name: f"{value:.2f} s an epoch" for name, value in seconds.items()})
    fast = verdict("seconds of an epoch over the bare loop's", seconds["tinv"] / seconds["bare"], 1.05, False)
    print({name: f"{value:.0f} MB" for name, value in memory.items()})
    small = verdict("MB more than the bare loop", memory["tinv"] - memory["bare"], 400, False)
    return 0 if fast and small else 1


if __name__ == "__main__":
    sys.exit(main())
