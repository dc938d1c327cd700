"""configs/cifar_grid.yaml as shipped (bf16, channels last) against the same run in contiguous 32-bit.

Claims: at least 1.8 times the training images a second, and the same test accuracy within the noise of three seeds.
Run: TINV_DATA=DIR python benchmarks/precision_and_memory_format.py
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from lightning.pytorch import Callback
from timing import in_turn, verdict

from tinv.cli import main as tinv
from tinv.runs.configuration import TinvCLI

CONFIG = ["--config=configs/cifar_grid.yaml", "--data.init_args.num_val=1000", "--data.init_args.num_train=5000"]
PLAIN = ["--trainer.precision=32-true", "--model.init_args.memory_format=contiguous"]
PEERS = {"shipped": [], "plain": PLAIN}


class Clock(Callback):
    """Seconds from the first training step of an epoch to its last, of the fastest epoch after the first."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer, pl_module):
        self.started = time.perf_counter()

    def on_validation_start(self, trainer, pl_module):
        self.seconds.append(time.perf_counter() - self.started)


def epoch(options: list[str]) -> float:
    with tempfile.TemporaryDirectory() as place:
        clock = Clock()
        once = ["--trainer.max_epochs=3", "--trainer.enable_checkpointing=false", *options]
        configuration = TinvCLI([*CONFIG, *once])
        trainer = configuration.make_trainer([clock], Path(place))
        trainer.fit(configuration.model, datamodule=configuration.datamodule)
    return min(clock.seconds[1:])


def accuracy(options: list[str], seed: int) -> float:
    with tempfile.TemporaryDirectory() as place:
        run = [f"--run_dir={place}/run", f"--seed_everything={seed}", "--trainer.max_epochs=6"]
        assert tinv(["fit", *CONFIG, "--data.init_args.num_test=5000", *run, *options]) == 0
        return float(json.loads(Path(place, "run/results.json").read_text())["metrics"]["test/acc"])


def main() -> int:
    seconds = in_turn({name: lambda options=options: epoch(options) for name, options in PEERS.items()}, rounds=3)
    print({name: f"{5000 / value:,.0f} images/s" for name, value in seconds.items()})
    fast = verdict("images/s over contiguous 32-bit", seconds["plain"] / seconds["shipped"], 1.8, True)
    found = {name: [accuracy(options, seed) for seed in range(3)] for name, options in PEERS.items()}
    print(found)
    spread = max(statistics.stdev(values) for values in found.values())
    apart = abs(statistics.fmean(found["shipped"]) - statistics.fmean(found["plain"]))
    same = verdict("difference of mean test accuracy, in standard deviations over seeds", apart / spread, 2, False)
    return 0 if fast and same else 1


if __name__ == "__main__":
    sys.exit(main())
