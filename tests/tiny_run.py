"""A run that takes a second: Red-Green with few images and epochs."""

import json
from pathlib import Path

from tinv.cli import main

TINY = [
    "--config=configs/red_green.yaml",
    "--data.init_args.num_train=40",
    "--data.init_args.num_val=20",
    "--data.init_args.num_test=20",
    "--data.init_args.batch_size=10",
    "--trainer.max_epochs=3",
]


def fit(*options: str) -> Path:
    """Runs a tiny fit and returns its folder."""
    before = set(Path().glob("runs/*/*"))
    assert main(["fit", *TINY, *options]) == 0
    [folder] = set(Path().glob("runs/*/*")) - before
    return folder


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())
