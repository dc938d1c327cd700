"""Training images/s of `tinv fit` on the corners of the CIFAR-10 grid against a plain PyTorch loop in a new process.

Claims: on a processor with bf16 instructions at least 3.5 times the images/s at a subsampling factor of 8 and 6 times
at 1; without them 1.5 and 3 times. The plain loop is what one writes first: contiguous float32, torch's max_pool2d.

Run: TINV_DATA=DIR python benchmarks/small_cnn_training.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from timing import in_turn, verdict
from torch import Tensor, nn
from torch.nn import functional as F

CORNERS = [(8, 2), (8, 5), (1, 2), (1, 5)]
"""Subsampling factor and kernel size of the pools."""
IMAGES = {8: 4096, 1: 768}
BATCH, EPOCHS, CANVAS = 128, 3, 50


class MaxPool(nn.Module):
    """torch's max pool of k x k pixels, with as many positions as pixels where the stride is 1."""

    def __init__(self, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, maps: Tensor) -> Tensor:
        before = (self.kernel_size - 1) // 2
        after = self.kernel_size - 1 - before
        # inputs are rectified: zeros are no larger than what a window holds
        return F.max_pool2d(F.pad(maps, (before, after) * 2), self.kernel_size, self.stride)


def plain_network(factor: int, kernel_size: int) -> nn.Module:
    strides = [2] * (factor.bit_length() - 1) + [1] * (4 - factor.bit_length())
    layers: list[nn.Module] = []
    for before, after, stride in zip((3, 16, 32), (16, 32, 64), strides, strict=True):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), MaxPool(kernel_size, stride)]
    trunk = nn.Sequential(*layers)
    features = trunk(torch.zeros(1, 3, CANVAS, CANVAS)).numel()
    return nn.Sequential(trunk, nn.Flatten(), nn.Linear(features, 10))


def plain(factor: int, kernel_size: int) -> float:
    """Returns the images/s of the fastest epoch after the first of a plain loop."""
    from tinv.data import CIFAR10

    data = CIFAR10(num_train=IMAGES[factor], num_val=10, canvas_size=CANVAS)
    data.setup()
    assert data.splits is not None
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (data.mean, data.std))
    pixels, targets = (torch.as_tensor(part) for part in tuple(data.splits.train)[:2])
    images = F.pad((pixels.permute(0, 3, 1, 2) / 255 - mean) / std, [(CANVAS - 32) // 2] * 4).contiguous()
    network = plain_network(factor, kernel_size)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    seconds = []
    for _ in range(EPOCHS):
        began = time.perf_counter()
        for part in torch.randperm(len(images)).split(BATCH):
            loss = F.cross_entropy(network(images[part]), targets[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds.append(time.perf_counter() - began)
    return len(images) / min(seconds[1:])


def tinv(factor: int, kernel_size: int) -> float:
    """Returns the images/s of the fastest epoch after the first of `tinv fit` as shipped."""
    from lightning.pytorch import Callback

    from tinv.runs.configuration import TinvCLI
    from tinv.utils.memory import keep_freed_memory

    class Clock(Callback):
        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_train_epoch_start(self, trainer, pl_module):
            self.began = time.perf_counter()

        def on_train_epoch_end(self, trainer, pl_module):
            self.seconds.append(time.perf_counter() - self.began)

    keep_freed_memory()  # as the command does
    network = "--model.init_args.backbone_args"
    options = [
        *("--config=configs/cifar_grid.yaml", f"--data.init_args.num_train={IMAGES[factor]}"),
        *("--data.init_args.num_val=10", f"--trainer.max_epochs={EPOCHS}", "--trainer.enable_checkpointing=false"),
        *(f"{network}.kernel_size={kernel_size}", f"{network}.subsampling_factor={factor}"),
        *("--trainer.limit_val_batches=0", "--trainer.callbacks=null"),
    ]
    with tempfile.TemporaryDirectory() as place:
        clock = Clock()
        configuration = TinvCLI(options)
        trainer = configuration.make_trainer([clock], Path(place))
        trainer.fit(configuration.model, datamodule=configuration.datamodule)
    return IMAGES[factor] / min(clock.seconds[1:])


def in_new_process(which: str, factor: int, kernel_size: int) -> float:
    """Returns the seconds an image of one of the two, run in a process of its own."""
    words = [sys.executable, __file__, which, str(factor), str(kernel_size)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return 1 / float(json.loads(done.stdout.splitlines()[-1]))


def has_bf16() -> bool:
    """Returns whether the processor has instructions for bf16."""
    path = Path("/proc/cpuinfo")
    return path.is_file() and any(flag in path.read_text() for flag in ("avx512_bf16", "amx_bf16"))


def main() -> int:
    """Prints the comparison; returns 1 if a claim does not hold."""
    if len(sys.argv) > 1:
        print(json.dumps({"plain": plain, "tinv": tinv}[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))))
        return 0
    wanted = {8: 3.5, 1: 6.0} if has_bf16() else {8: 1.5, 1: 3.0}
    held = []
    for factor, kernel_size in CORNERS:
        peers = {
            which: lambda which=which: in_new_process(which, factor, kernel_size)  # noqa: B023, called at once
            for which in ("plain", "tinv")
        }
        seconds = in_turn(peers, rounds=3)
        print({which: f"{1 / value:,.0f} images/s" for which, value in seconds.items()})
        name = f"images/s over the plain loop's, factor {factor}, kernel {kernel_size}"
        held.append(verdict(name, seconds["plain"] / seconds["tinv"], wanted[factor], at_least=True))
    return int(not all(held))


if __name__ == "__main__":
    sys.exit(main())
