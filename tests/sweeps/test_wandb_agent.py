"""The real `wandb` client, its sweeps and agents, against a stand-in for its server on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from wandb_server import WandbServer

from tinv.config.files import shipped_files, shipped_folder

TINY = [
    "--data.init_args.num_train=40",
    "--data.init_args.num_val=20",
    "--data.init_args.num_test=20",
    "--data.init_args.batch_size=10",
    "--trainer.max_epochs=2",
]


@pytest.fixture
def server(monkeypatch):
    stand_in = WandbServer()
    for name, value in stand_in.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    yield stand_in
    stand_in.close()


def wandb(*words: str) -> str:
    done = subprocess.run(["wandb", *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("file", shipped_files("sweeps"), ids=lambda path: path.stem)
def test_wandb_takes_the_sweeps_that_ship(file, server):
    assert "wandb agent somebody/tinv/sweep0" in wandb("sweep", str(file))
    assert server.sweeps["sweep0"] == yaml.safe_load(file.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_an_agent_runs_the_cells_unchanged(devices, server):
    """Each trial is one W&B run, under two processes too: its config the full one, its summary the test metrics."""
    content = yaml.safe_load((shipped_folder("sweeps") / "red_green.yaml").read_text())
    two = ["--trainer.accelerator=cpu", "--trainer.strategy=ddp", "--trainer.devices=2"] if devices == 2 else []
    content["command"] = [*content["command"][:-1], *TINY, *two, content["command"][-1]]
    content["parameters"]["seed_everything"]["values"] = [4]
    content["parameters"]["model.init_args.padding"]["values"] = ["full_zero"]
    Path("sweep.yaml").write_text(yaml.safe_dump(content))
    wandb("sweep", "sweep.yaml")
    wandb("agent", "--count", "1", "sweep0")
    assert len(server.runs) == 1
    folders = {path.parent for path in Path("runs").rglob("results.json")}
    assert len(folders) == 1
    for run, folder in zip(sorted(server.runs.values(), key=str), sorted(folders, key=str), strict=True):
        config = {key: value["value"] for key, value in run["config"].items() if key != "_wandb"}
        assert config["trainer"]["max_epochs"] == 2
        assert config["data"]["init_args"]["shuffle"] is False
        assert config["seed_everything"] == 4
        assert run["exit"] == 0
        assert json.loads((folder / "results.json").read_text())["status"] == "finished"
        assert {"test/acc/similar", "test/acc/dissimilar"} <= run["summary"].keys()
    found = [json.loads((folder / "results.json").read_text())["metrics"]["test/acc/similar"] for folder in folders]
    assert sorted(run["summary"]["test/acc/similar"] for run in server.runs.values()) == pytest.approx(sorted(found))


@pytest.mark.slow
def test_a_run_gone_on_with_stays_one_wandb_run_and_offline_runs_can_be_synced(server, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    fit = [sys.executable, "-m", "tinv", "fit", "--config", "configs/red_green.yaml", *TINY, "--run_dir=run"]
    subprocess.run([*fit, "--wandb=offline"], check=True, capture_output=True)
    [folder] = Path("run/wandb").glob("offline-run-*")
    assert not server.runs
    wandb("sync", str(folder))
    [identity] = server.runs
    assert folder.name.endswith(identity)
    # as if it had been stopped at its end
    Path("run/results.json").unlink()
    subprocess.run([*fit, "--wandb=online", "--ckpt_path=last"], check=True, capture_output=True)
    assert list(server.runs) == [identity]
    assert "test/acc/similar" in server.runs[identity]["summary"]
