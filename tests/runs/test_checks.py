"""Sets of which nothing is left, or too little for the processes of a run, are found before training."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_run import TINY

from tinv.cli import main
from tinv.data import RedGreen
from tinv.errors import TinvError
from tinv.runs.callbacks.checks import check_batch


@pytest.mark.parametrize(("name", "what"), [("train", "training"), ("test", "test")])
def test_an_empty_set_is_refused_before_training(name, what, capsys, monkeypatch):
    load = RedGreen.load

    def without(self):
        """Loads the sets, one of them empty, as a data set may whose files are all damaged."""
        splits = load(self)
        none = splits.train.take(torch.arange(0))
        return splits._replace(**{name: dict.fromkeys(splits.test, none) if name == "test" else none})

    monkeypatch.setattr(RedGreen, "load", without)
    assert main(["fit", *TINY, "--run_dir=run"]) == 2
    said = capsys.readouterr().err
    assert f"no {what} image is left; see data.init_args.num_{name}" in said
    assert "epoch 1" not in said
    assert not Path("run").exists()


def test_no_validation_is_allowed():
    assert main(["fit", *TINY, "--run_dir=run", "--data.init_args.num_val=0", "--trainer.callbacks=null"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "what"), [("val", "validation"), ("test", "test")])
def test_a_set_smaller_than_the_processes_is_refused_in_one_line(name, what):
    two = ["--trainer.accelerator=cpu", "--trainer.strategy=ddp", "--trainer.devices=2", "--run_dir=run"]
    words = [sys.executable, "-m", "tinv", "fit", *TINY, *two, f"--data.init_args.num_{name}=1"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=90)
    assert done.returncode == 2
    [line] = [line for line in done.stderr.splitlines() if "error" in line]
    assert f"the {what} set has 1 images, less than the 2 processes of this run" in line
    assert "Traceback" not in done.stderr


def test_an_empty_set_is_refused_by_the_command_that_uses_it(capsys):
    assert main(["validate", *TINY, "--untrained", "--data.init_args.num_val=0"]) == 2
    assert "no validation image is left" in capsys.readouterr().err


class Clips:
    input_shape, batch_size = (3, 1_000_000, 112, 112), 32


def test_a_batch_beyond_memory_is_refused():
    with pytest.raises(TinvError, match=r"a batch of 32 inputs of 3x1000000x112x112 takes 4817 GB, more than the mem"):
        check_batch(Clips())
