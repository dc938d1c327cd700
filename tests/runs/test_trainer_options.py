"""What the trainer cannot take is one line that names the key, before anything is trained."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_run import TINY

from tinv.cli import main

REFUSED = [
    *("accelerator=quantum", "devices=0", "devices=[99]", "strategy=nonsense", "precision=transformer-engine"),
    *("num_nodes=0", "num_nodes=-1", "limit_train_batches=-1", "limit_val_batches=1.5", "overfit_batches=-1"),
    *("val_check_interval=0", "val_check_interval=100000", "check_val_every_n_epoch=0", "check_val_every_n_epoch=-1"),
    *("accumulate_grad_batches=0", "accumulate_grad_batches=-2", "max_epochs=-2", "max_epochs=0", "max_epochs=null"),
    *("max_time=abc", "max_steps=0", "limit_train_batches=0", "profiler=foo", "fast_dev_run=-1"),
    *("gradient_clip_algorithm=x", "gradient_clip_val=-1", "log_every_n_steps=-1", "enable_checkpointing=false"),
    *("barebones=true", "min_epochs=-1", "min_steps=0"),
]


@pytest.mark.parametrize("option", REFUSED)
def test_a_bad_option_of_the_trainer_is_one_line_with_its_key(option, capsys):
    assert main(["fit", *TINY, f"--trainer.{option}", "--run_dir=run"]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note:")]
    assert line.startswith(f"tinv: error: trainer.{option.partition('=')[0]}")
    assert not list(Path("run").glob("checkpoints/*"))


@pytest.mark.parametrize("option", ["max_steps=2", "limit_val_batches=0", "gradient_clip_val=0", "fast_dev_run=2"])
def test_a_sound_option_is_taken(option):
    assert main(["fit", *TINY, f"--trainer.{option}", "--trainer.callbacks=null", "--trainer.max_epochs=1"]) == 0


def test_one_batch_is_not_all_of_them():
    # a process of its own: which of two equal types Python has kept depends on what was imported first
    words = ["fit", *TINY, "--run_dir=run", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1.0"]
    assert subprocess.run([sys.executable, "-m", "tinv", *words], capture_output=True, timeout=90).returncode == 0
    trainer = yaml.safe_load(Path("run/config.yaml").read_text())["trainer"]
    assert (str(trainer["limit_train_batches"]), str(trainer["limit_val_batches"])) == ("1", "1.0")
