"""Runs of two processes on this machine (gloo): the same numbers as one process, one folder, one end."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

TWO = ["--trainer.accelerator=cpu", "--trainer.strategy=ddp", "--trainer.devices=2"]
TINY = [
    "--config=configs/red_green.yaml",
    "--data.init_args.train_size=240",
    "--data.init_args.val_size=41",
    "--data.init_args.test_size=43",
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
    assert said.count("tinv: stopped by SIGTERM; go on with: --run_dir run --ckpt_path last") == 1
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
