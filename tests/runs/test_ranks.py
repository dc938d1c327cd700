"""Processes started by torchrun or srun: one folder, named by the first of them, and one line of errors."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tinv.errors import TinvError
from tinv.runs import ranks

FIT = [
    "fit",
    "--config=configs/red_green.yaml",
    "--data.init_args.num_train=40",
    "--data.init_args.num_val=20",
    "--data.init_args.num_test=20",
    "--data.init_args.batch_size=10",
    "--trainer.max_epochs=2",
    "--trainer.accelerator=cpu",
]
OWN = ["--trainer.devices=2", "--trainer.strategy=ddp", "--run_dir=own"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def srun(monkeypatch: pytest.MonkeyPatch, number: int = 0, **more: str) -> None:
    variables = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_ID": "0",
        "SLURM_NTASKS": "4",
        "SLURM_NNODES": "2",
        "SLURM_PROCID": str(number),
        "SLURM_JOB_NAME": "train",
    }
    for name, value in {**variables, **more}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_SUBMIT_DIR", raising=False)


def torchrun(monkeypatch: pytest.MonkeyPatch, number: int = 0) -> None:
    variables = {"TORCHELASTIC_RUN_ID": "none", "RANK": number, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2}
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


def test_the_launcher_and_the_number_of_this_process_are_known(monkeypatch):
    assert (ranks.launcher(), ranks.rank(), ranks.ranks()) == ("own", 0, 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert (ranks.launcher(), ranks.rank(), ranks.ranks()) == ("own", 1, 1)
    srun(monkeypatch, number=2)
    assert (ranks.launcher(), ranks.rank(), ranks.ranks()) == ("srun", 2, 4)
    torchrun(monkeypatch, number=3)
    assert (ranks.launcher(), ranks.rank(), ranks.ranks()) == ("torchrun", 3, 4)


def test_a_shell_within_an_allocation_is_no_srun(monkeypatch):
    srun(monkeypatch, SLURM_JOB_NAME="interactive")
    assert (ranks.launcher(), ranks.ranks()) == ("own", 1)
    srun(monkeypatch)
    # a script of sbatch has no step of its own
    monkeypatch.delenv("SLURM_STEP_ID")
    assert (ranks.launcher(), ranks.ranks()) == ("own", 1)


@pytest.mark.parametrize("start", [srun, torchrun])
def test_devices_and_nodes_are_those_that_were_started(start, monkeypatch):
    assert ranks.trainer_options({"devices": 3}) == {"devices": 3}
    start(monkeypatch)
    wanted = {"devices": 2, "num_nodes": 2, "strategy": "ddp"}
    assert ranks.trainer_options({"devices": "auto", "num_nodes": 1, "strategy": "auto"}) == wanted
    assert ranks.trainer_options({"devices": 2, "num_nodes": 2, "strategy": "fsdp"}) == {**wanted, "strategy": "fsdp"}
    with pytest.raises(TinvError, match=r"trainer.devices=3, but .* has started 2; leave the key out"):
        ranks.trainer_options({"devices": 3})


def test_tasks_of_srun_hear_what_the_first_decides_and_nothing_is_left(monkeypatch):
    srun(monkeypatch, number=1)
    heard: list[str] = []
    waiting = threading.Thread(target=lambda: heard.append(ranks._FolderStore().get("run_dir")))
    waiting.start()
    assert ranks._FolderStore().set("run_dir", "runs/a") is None
    waiting.join(timeout=10)
    assert heard == ["runs/a"]
    assert ranks.agreed("run_dir", lambda: pytest.fail("decided by a process that is not the first")) == "runs/a"
    srun(monkeypatch, number=0)
    ranks.forget("run_dir")
    assert list(Path().iterdir()) == []


def test_an_error_of_the_first_task_ends_all(monkeypatch):
    def refuse() -> str:
        raise TinvError("this folder is taken")

    for number in (0, 1):
        srun(monkeypatch, number=number)
        with pytest.raises(TinvError, match="this folder is taken"):
            ranks.agreed("run_dir", refuse)


def test_a_first_task_that_says_nothing_is_not_waited_for_without_end(monkeypatch):
    monkeypatch.setattr(ranks, "WAIT_S", 0.3)
    srun(monkeypatch, number=1)
    with pytest.raises(TinvError, match="has said nothing for 0 s; see its output"):
        ranks.agreed("run_dir", lambda: "")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def together(commands: list[list[str]], environments: list[dict[str, str]] | None = None) -> list[tuple[int, str]]:
    """Runs commands at once; returns exit codes and what they said on stderr."""
    started = [
        subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        for words, environment in zip(commands, environments or [{}] * len(commands), strict=True)
    ]
    said: dict[int, str] = {}

    def listen(number: int) -> None:
        # all at once: a process whose pipe is full would wait for its reader, and the others for it
        said[number] = started[number].communicate()[1]

    readers = [threading.Thread(target=listen, args=(number,), daemon=True) for number in range(len(started))]
    for reader in readers:
        reader.start()
    end = time.monotonic() + 240
    for reader in readers:
        reader.join(timeout=max(0, end - time.monotonic()))
    late = [number for number, process in enumerate(started) if process.poll() is None]
    for number in late:
        started[number].kill()
    for reader in readers:
        reader.join(timeout=10)
    assert not late, f"processes {late} did not end in time; they said: {said}"
    return [(process.returncode, said[number]) for number, process in enumerate(started)]


@pytest.fixture
def own() -> bytes:
    """What a run of two processes writes that Lightning's own launcher has started."""
    [(code, said)] = together([[sys.executable, "-m", "tinv", *FIT, *OWN]])
    assert code == 0, said
    return Path("own/metrics.csv").read_bytes()


def check_one_folder(own: bytes) -> None:
    [results] = Path("runs").rglob("results.json")
    assert json.loads(results.read_text())["status"] == "finished"
    assert [path.name for path in Path("runs/red_green").iterdir()] == [results.parent.name]
    assert (results.parent / "metrics.csv").read_bytes() == own
    assert not list(Path().glob(".tinv-*"))


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_torchrun_gives_the_numbers_of_lightnings_own_launcher_in_one_folder(nodes, own):
    if nodes == 1:
        commands = [[*TORCHRUN, "--nproc-per-node=2", "-m", "tinv", *FIT]]
    else:
        port = free_port()
        where = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}"]
        commands = [[*TORCHRUN, *where, f"--node-rank={number}", "-m", "tinv", *FIT] for number in (0, 1)]
    for code, said in together(commands):
        assert code == 0, said
    check_one_folder(own)


@pytest.mark.slow
def test_tasks_of_srun_give_the_numbers_of_lightnings_own_launcher_in_one_folder(own):
    shared = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_ID": "0",
        "SLURM_NTASKS": "2",
        "SLURM_NNODES": "1",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NODEID": "0",
        "SLURM_JOB_NAME": "train",
        "SLURM_NODELIST": "localhost",
        "SLURM_STEP_NODELIST": "localhost",
        "MASTER_PORT": str(free_port()),
    }
    environments = [{**shared, "SLURM_PROCID": number, "SLURM_LOCALID": number} for number in ("0", "1")]
    for code, said in together([[sys.executable, "-m", "tinv", *FIT]] * 2, environments):
        assert code == 0, said
    check_one_folder(own)


@pytest.mark.slow
def test_two_processes_say_what_is_wrong_once():
    wrong = "--model.init_args.padding=nothing"
    [(code, said)] = together([[*TORCHRUN, "--nproc-per-node=2", "-m", "tinv", *FIT, wrong]])
    assert code != 0
    assert said.count("tinv: error:") == 1
    assert not Path("runs").exists()


FAILING = """
from lightning.pytorch.callbacks import Callback
from tinv.errors import TinvError

class Fails(Callback):
    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_rank == self.rank and trainer.current_epoch == 1:
            raise TinvError("as if a picture were damaged")
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_process_that_fails_ends_the_others(number, monkeypatch):
    Path("failing.py").write_text(FAILING)
    monkeypatch.setenv("PYTHONPATH", str(Path().resolve()))
    callback = ["--trainer.callbacks+=failing.Fails", f"--trainer.callbacks.init_args.rank={number}"]
    done = subprocess.run(
        [sys.executable, "-m", "tinv", *FIT, *OWN, *callback], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 1
    assert done.stderr.count("as if a picture were damaged") == 1
    assert "Traceback" not in done.stderr
    assert Path("own/checkpoints/last.ckpt").is_file()


@pytest.mark.parametrize("name", ["LOCAL_RANK", "SLURM_NTASKS", "WORLD_SIZE"])
def test_a_variable_of_a_launcher_that_is_no_number_is_named(name):
    surroundings = {**os.environ, name: "x"}
    done = subprocess.run(
        [sys.executable, "-m", "tinv", *FIT], env=surroundings, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr == f"tinv: error: environment variable {name}='x' is no number; unset it\n"


def test_a_run_within_an_allocation_but_without_srun_is_its_own_launcher(monkeypatch):
    assert "plugins" not in ranks.trainer_options({})
    monkeypatch.setenv("SLURM_NTASKS", "2")
    plugins = ranks.trainer_options({"plugins": ["given"]})["plugins"]
    assert [plugins[0], type(plugins[1]).__name__] == ["given", "LightningEnvironment"]
    srun(monkeypatch)
    assert "plugins" not in ranks.trainer_options({})
