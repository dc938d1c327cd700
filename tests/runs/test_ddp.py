"""Runs of two processes on this machine (gloo): the same numbers as one process, one folder, one end."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from official_formats import write_image_folders

from tinv.cli import main

pytestmark = pytest.mark.slow

TWO = ["--trainer.accelerator=cpu", "--trainer.strategy=ddp", "--trainer.devices=2"]
TINY = [
    "--config=configs/red_green.yaml",
    "--data.init_args.num_train=240",
    "--data.init_args.num_val=41",
    "--data.init_args.num_test=43",
    "--data.init_args.splits=independent",
    "--data.init_args.shuffle=true",
    "--model.init_args.padding=valid",
    "--trainer.max_epochs=4",
]


def command(folder: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "tinv", "fit", *TINY, f"--run_dir={folder}", *options]


def run(folder: str, *options: str) -> dict:
    done = subprocess.run(command(folder, *options), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(Path(folder, "results.json").read_text())


def losses(folder: str) -> list[float]:
    with Path(folder, "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file)]


def group_is_there(number: int) -> bool:
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True


def test_two_processes_equal_one_with_the_same_global_batch(monkeypatch):
    one = run("one", "--data.init_args.batch_size=40")
    run("two", "--data.init_args.batch_size=20", "--wandb=offline", *TWO)
    assert losses("two") == pytest.approx(losses("one"), abs=1e-4)
    assert len(losses("two")) == 4
    assert losses("two")[-1] < losses("two")[0]
    # one folder, one results.json, one W&B run
    assert [path.name for path in Path().rglob("results.json")] == ["results.json"] * 2
    assert len(list(Path("two/wandb").glob("offline-run-*"))) == 1
    # 41 and 43 images: two processes cannot share them evenly, and no image may count twice
    weights = Path("one/checkpoints/best.ckpt")
    tested = {}
    for name, options in (("t1", []), ("t2", TWO)):
        words = [*command(name, f"--ckpt_path={weights}", *options)]
        words[words.index("fit")] = "test"
        done = subprocess.run(words, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        tested[name] = json.loads(Path(name, "results.json").read_text())["metrics"]
    assert tested["t2"] == pytest.approx(tested["t1"], abs=1e-6)
    assert tested["t1"] == pytest.approx({k: v for k, v in one["metrics"].items() if k in tested["t1"]}, abs=1e-6)


METRICS = """
model:
  init_args:
    metrics:
      - {class_path: tinv.metrics.MeanCosineSimilarity, init_args: {max_shift: 4, mode: circular}}
      - {class_path: tinv.metrics.TranslationSensitivityMap, init_args: {max_shift: 4, step: 4, mode: circular}}
      - {class_path: tinv.metrics.ShiftConsistency, init_args: {offset_range: 8}}
      - {class_path: tinv.metrics.DiagonalAccuracy, init_args: {offset_range: 8, step: 4}}
      - {class_path: tinv.metrics.WorstCaseAccuracy, init_args: {offset_range: 8, step: 8}}
      - {class_path: tinv.metrics.LayerEquivariance, init_args: {max_stride: 8, max_images: 1}}
"""


def test_two_processes_measure_the_invariance_of_all_images_of_files():
    write_image_folders(Path("imagenet"), classes=3, train=4, val=4)
    damaged = Path("imagenet/val/n00000001/val_0004.JPEG")
    damaged.write_bytes(damaged.read_bytes()[:99])
    Path("metrics.yaml").write_text(METRICS)
    words = ["--config=configs/imagenet_shift.yaml", "--config=metrics.yaml", "--data.init_args.classes=null"]
    words += ["--data.init_args.size=64", "--data.init_args.test_resolution=72", "--data.init_args.num_workers=1"]
    words += ["--data.init_args.batch_size=4", "--data.init_args.on_error=skip", "--trainer.max_epochs=1"]
    words += ["--trainer.precision=32-true", "--trainer.accelerator=cpu"]
    assert main(["fit", *words, "--run_dir=fit"]) == 0
    found = {}
    for name, options in (("t1", []), ("t2", TWO)):
        test = ["test", *words, *options, "--ckpt_path=fit/checkpoints/best.ckpt", f"--run_dir={name}"]
        done = subprocess.run([sys.executable, "-m", "tinv", *test], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found[name] = json.loads(Path(name, "results.json").read_text())
    assert found["t2"]["metrics"] == pytest.approx(found["t1"]["metrics"], abs=1e-4)
    assert found["t2"]["data"] == found["t1"]["data"]
    assert found["t2"]["data"]["skipped_files"] == [str(damaged)]
    maps = [np.load(f"{name}/map.npz") for name in ("t1", "t2")]
    assert maps[0]["count"] == maps[1]["count"] == 11
    for key in maps[0]:
        np.testing.assert_allclose(maps[0][key], maps[1][key], atol=1e-4)


@pytest.mark.parametrize("whole_group", [True, False])
def test_sigterm_ends_all_processes_and_the_run_goes_on_to_its_end(whole_group):
    """Slurm signals every process of a step; a person, or `tinv sweep`, only the first."""
    words = [*TWO, "--data.init_args.batch_size=20", "--trainer.max_epochs=20", "--trainer.callbacks=null"]
    process = subprocess.Popen(
        command("run", *words), start_new_session=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    while not Path("run/metrics.csv").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 143
    assert said.count("tinv: stopped by SIGTERM; resume with: --run_dir run --ckpt_path last") == 1
    for _ in range(100):
        if not group_is_there(process.pid):
            break
        time.sleep(0.1)
    assert not group_is_there(process.pid)
    done = len(losses("run"))
    assert 1 <= done < 20
    torch.load("run/checkpoints/last.ckpt", weights_only=True)
    if whole_group:
        run("run", "--ckpt_path=last", *words)
        assert len(losses("run")) == 20
