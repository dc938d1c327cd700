"""The recipes of docs/how-to for a task and a network work as they are written; nothing else has to be edited."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import TINY, results

import tinv
from tinv.cli import main

HOW_TO = Path(__file__).parent.parent / "docs/how-to"


def block(page: str, name: str) -> str:
    [code] = re.findall(rf"<!-- {name} -->\n```python\n(.*?)```", (HOW_TO / page).read_text(), re.DOTALL)
    return code


def test_a_task_of_ones_own_is_trained_tested_and_listed_nowhere(monkeypatch):
    Path("own_task.py").write_text(block("add-a-task.md", "own_task.py"))
    monkeypatch.syspath_prepend(str(Path().resolve()))
    words = ["fit", *TINY, "--model=own_task.Regression", "--model.init_args.backbone=red_green_net", "--run_dir=run"]
    assert main([*words, "--model.init_args.padding=full_zero"]) == 0
    found = results(Path("run"))
    assert {"test/mse/similar", "test/mse/dissimilar"} == found["metrics"].keys() - {"val/loss"}
    assert found["config"]["model"]["init_args"]["padding"] == "full_zero"
    sys.modules.pop("own_task", None)


@pytest.mark.slow
def test_a_network_is_one_file(tmp_path):
    """A copy of tinv with one more file lists the network, takes its own option and trains it under a policy."""
    shutil.copytree(Path(tinv.__file__).parent, tmp_path / "tinv", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(Path(tinv.__file__).parent.parent / "configs", tmp_path / "configs")
    network = "tinv/models/backbones/two_layer_net.py"
    (tmp_path / network).write_text(block("add-a-backbone.md", network))

    def run(*words: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        command = [sys.executable, "-m", "tinv", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "two_layer_net" in run("list", "backbones")
    words = ["--model.init_args.backbone=two_layer_net", "--model.init_args.backbone_args.channels=4", "--run_dir=run"]
    run("fit", *TINY, *words, "--model.init_args.padding=full_zero")
    assert "test/acc/similar" in results(tmp_path / "run")["metrics"]
