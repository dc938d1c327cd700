"""Trials as jobs of a cluster: submitit's local executor here, a real Slurm where one runs (`-m slurm`)."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import submitit
from sweeps.stub_sweep import STUB, sweep, write_sweep
from sweeps.test_sweep import SCRIPT, attempts, ledger, statuses

from tinv.errors import TinvError
from tinv.sweeps.schema import read_sweep
from tinv.sweeps.slurm import RunTrial, SlurmLauncher, submitit_parameters
from tinv.sweeps.trials import TrialFactory, TrialFolder

SEEDS = "seed_everything: {values: [0, 1, 2]}"


def the_cell(parameters: str = "seed_everything: {values: [0]}"):
    plan = read_sweep(write_sweep(parameters))
    return TrialFactory(plan)(next(plan.grid()))


def test_a_job_runs_its_trial_in_the_folder_the_sweep_was_started_in(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("SLURM_NTASKS", "4")  # Lightning would start by it
    trial = the_cell()
    executor = submitit.LocalExecutor(folder="jobs")
    job = executor.submit(RunTrial(trial, Path("out"), STUB))
    assert job.result() == 0
    results = json.loads(TrialFolder(Path("out"), trial).results.read_text())
    assert results["status"] == "finished"


def test_a_preempted_job_stops_its_run_and_asks_to_go_on_with_it(monkeypatch):
    """submitit calls `checkpoint` when Slurm warns it, and puts what it returns in the queue."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("STUB_SECONDS", "3")
    trial = the_cell()
    executor = submitit.LocalExecutor(folder="jobs")
    job = executor.submit(RunTrial(trial, Path("out"), STUB))
    folder = TrialFolder(Path("out"), trial)
    while not folder.last.exists():
        time.sleep(0.05)
    # the job is a child of submitit's stand-in for the cluster
    controller = int(job.job_id)
    [child] = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    os.kill(int(child), signal.SIGUSR2)
    assert job.result() == 0
    assert (folder.path / "attempts.txt").read_text().split()[::2] == ["begin", "last"]
    assert not (folder.path / "TWICE").exists()


def test_the_environment_of_a_run_holds_nothing_of_slurm(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    seen = subprocess.check_output(
        [sys.executable, "-c", "from tinv.sweeps.slurm import _environment as e; print(sorted(e()))"], text=True
    )
    assert "SLURM_JOB_ID" not in seen
    assert "CUDA_VISIBLE_DEVICES" in seen


def test_options_of_sbatch_are_passed_on():
    found = submitit_parameters({"partition": "gpu", "time": "240", "gpus_per_node": "2", "hint": "nomultithread"}, 7)
    assert found == {
        "slurm_job_name": "tinv",
        "slurm_time": 240,
        "slurm_array_parallelism": 7,
        "slurm_partition": "gpu",
        "slurm_gpus_per_node": 2,
        "slurm_additional_parameters": {"hint": "nomultithread"},
    }


def test_without_slurm_the_launcher_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TinvError, match="there is no Slurm here"):
        SlurmLauncher(tmp_path, 1, {})


@pytest.fixture
def slurm(monkeypatch):
    # a cluster cannot be made by a test: it needs root, daemons and munge; the tests above run submitit without one
    if shutil.which("sinfo") is None or subprocess.run(["sinfo"], capture_output=True).returncode:
        pytest.skip("no Slurm answers: needs a running cluster, which pip cannot bring")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    subprocess.run(["scancel", "--name=tinv"])


def start(*words: str) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), "sweep.yaml", "--out", "out", "--launcher", "slurm", "--slurm-mem=500M"]
    return subprocess.Popen([*command, "--jobs", "2", *words], stderr=subprocess.PIPE, text=True)


@pytest.mark.slurm
def test_an_array_of_cells_runs_and_failures_are_listed(slurm, capsys):
    write_sweep(f"{SEEDS}\ndata.init_args.seed: {{values: [0, 1]}}")
    assert sweep("sweep.yaml", "--out", "out", "--launcher", "slurm", "--slurm-mem=500M", "--jobs", "2") == 1
    assert sorted(statuses()) == ["failed"] * 3 + ["finished"] * 3
    assert "the loss is nan at step 7" in capsys.readouterr().err
    assert len({line.split("_")[0] for line in os.listdir("out/slurm") if line.endswith("_submitted.pkl")}) == 1


@pytest.mark.slurm
def test_a_killed_sweep_finds_its_jobs_again(slurm, monkeypatch):
    monkeypatch.setenv("STUB_SECONDS", "8")
    write_sweep(SEEDS)
    process = start()
    while not list(Path("out").glob("cells/*/attempts.txt")):
        time.sleep(0.2)
    process.kill()
    again = start()
    said = again.communicate(timeout=200)[1]
    assert again.returncode == 0, said
    assert "still in Slurm's hands" in said
    assert all(attempts(entry) == ["begin"] for entry in ledger().values())


@pytest.mark.slurm
@pytest.mark.parametrize("warning", ["USR2", "TERM"])
def test_a_step_that_is_signalled_as_a_whole_goes_on_later(slurm, monkeypatch, warning):
    """USR2 is submitit's warning before preemption; TERM is Slurm's own, before it requeues the job."""
    monkeypatch.setenv("STUB_SECONDS", "6")
    write_sweep("seed_everything: {values: [0]}")
    process = start()
    while not list(Path("out").glob("cells/*/checkpoints/last.ckpt")):
        time.sleep(0.2)
    [entry] = ledger().values()
    subprocess.check_call(["scancel", f"--signal={warning}", entry["job"]])
    if warning == "TERM":
        time.sleep(2)
        subprocess.check_call(["scontrol", "requeue", entry["job"]])
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    [entry] = ledger().values()
    assert attempts(entry) == ["begin", "last"]


@pytest.mark.slurm
def test_stopping_the_sweep_takes_its_jobs_out_of_the_queue(slurm, monkeypatch):
    monkeypatch.setenv("STUB_SECONDS", "60")
    write_sweep(SEEDS)
    process = start()
    while not list(Path("out").glob("cells/*/attempts.txt")):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(200) == 130
    assert not subprocess.check_output(["squeue", "--noheader", "--name=tinv"], text=True).strip()
    assert set(statuses()) == {"stopped"}


@pytest.mark.slurm
def test_a_job_cancelled_by_someone_is_a_failure_that_says_so(slurm, monkeypatch):
    monkeypatch.setenv("STUB_SECONDS", "60")
    write_sweep("seed_everything: {values: [0]}")
    process = start()
    while not list(Path("out").glob("cells/*/attempts.txt")):
        time.sleep(0.2)
    [entry] = ledger().values()
    subprocess.check_call(["scancel", entry["job"]])
    said = process.communicate(timeout=200)[1]
    assert process.returncode == 1
    assert "CANCELLED" in said
