"""Sweeps of trials that take a tenth of a second: what is kept, resumed, retried, and what faults leave behind."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sweeps.stub_sweep import sweep, write_sweep

from tinv.sweeps.local import shares

SCRIPT = Path(__file__).with_name("stub_sweep.py")
SEEDS = "seed_everything: {values: [0, 1, 2]}"
FATES = "data.init_args.seed: {values: [0, 1, 2, 3]}"


def ledger() -> dict:
    return json.loads(Path("out/ledger.json").read_text())["cells"]


def statuses() -> list[str]:
    return [entry["status"] for entry in ledger().values()]


def attempts(entry: dict) -> list[str]:
    return [line.split()[0] for line in Path(f"out/cells/{entry['name']}/attempts.txt").read_text().splitlines()]


def start(*words: str) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), "sweep.yaml", "--out", "out", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def running() -> list[int]:
    """The processes of trials in this folder."""
    here = str(Path.cwd())
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if "stub_run.py" in (path / "cmdline").read_text() and os.readlink(path / "cwd") == here:
                found.append(int(path.name))
        except OSError:
            continue
    return found


def test_every_trial_runs_once_and_never_again(capsys):
    write_sweep(SEEDS)
    assert sweep("sweep.yaml", "--out", "out", "--jobs", "2") == 0
    assert statuses() == ["finished"] * 3
    assert "3 of 3 trials finished, 0 failed" in capsys.readouterr().err
    assert sweep("sweep.yaml", "--out", "out") == 0
    assert "3 trials, 3 kept as finished" in capsys.readouterr().err
    assert [attempts(entry) for entry in ledger().values()] == [["begin"]] * 3
    log = next(Path("out/cells").glob("0-*/log.txt")).read_text()
    assert log.startswith("$ ")
    assert "--seed_everything=0" in log


def test_failures_are_listed_with_their_error_line_and_stop_nothing(capsys):
    write_sweep(f"{FATES}\nseed_everything: {{values: [0]}}")
    assert sweep("sweep.yaml", "--out", "out", "--jobs", "2") == 1
    assert statuses() == ["finished", "failed", "stopped", "failed"]
    said = capsys.readouterr().err
    assert "tinv: error: the loss is nan at step 7" in said
    assert "killed by SIGKILL (out of memory?)" in said
    assert "1 of 4 trials finished, 2 failed" in said
    failed = next(entry for entry in ledger().values() if entry["status"] == "failed")
    results = json.loads(Path(f"out/cells/{failed['name']}/results.json").read_text())
    assert results["status"] == "failed"
    assert results["config"]["data"]["init_args"]["seed"] == 1

    # again: the stopped one resumes from its checkpoint, the failed ones wait to be asked for
    assert sweep("sweep.yaml", "--out", "out") == 1
    assert statuses() == ["finished", "failed", "finished", "failed"]
    assert attempts(list(ledger().values())[2]) == ["begin", "last"]
    assert attempts(list(ledger().values())[1]) == ["begin"]
    assert sweep("sweep.yaml", "--out", "out", "--retry-failed") == 1
    assert attempts(list(ledger().values())[1]) == ["begin", "last"]
    assert list(ledger().values())[1]["attempts"] == 2


def test_excluded_cells_do_not_run_and_say_why(capsys):
    write_sweep(f"{SEEDS}\nmodel.init_args.padding: {{values: [valid, full_zero]}}", more="""
exclude:
  - {reason: the map is too small, model.init_args.padding: valid, seed_everything: [0, 1]}
""")  # fmt: skip
    assert sweep("sweep.yaml", "--out", "out", "--jobs", "2") == 0
    assert sorted(statuses()) == ["excluded"] * 2 + ["finished"] * 4
    assert "4 trials, 2 excluded: the map is too small" in capsys.readouterr().err
    excluded = [json.loads(path.read_text()) for path in Path("out/cells").glob("*/results.json")]
    assert sorted(r["status"] for r in excluded) == ["excluded"] * 2 + ["finished"] * 4


def test_only_runs_a_part_and_the_rest_later():
    write_sweep(SEEDS)
    assert sweep("sweep.yaml", "--out", "out", "--only", "seed_everything=1") == 0
    assert len(list(Path("out/cells").iterdir())) == 1
    assert sweep("sweep.yaml", "--out", "out") == 0
    assert statuses() == ["finished"] * 3
    assert all(attempts(entry) == ["begin"] for entry in ledger().values())


def test_a_grid_can_grow_and_another_sweep_is_refused(capsys):
    write_sweep("seed_everything: {values: [0]}")
    assert sweep("sweep.yaml", "--out", "out") == 0
    write_sweep(SEEDS)
    assert sweep("sweep.yaml", "--out", "out") == 0
    assert statuses() == ["finished"] * 3
    write_sweep("trainer.max_epochs: {values: [1]}")
    assert sweep("sweep.yaml", "--out", "out") == 2
    assert (
        "out holds another sweep: its parameters is seed_everything, not trainer.max_epochs" in capsys.readouterr().err
    )
    write_sweep(SEEDS)
    assert sweep("sweep.yaml", "--out", "out", "--", "--trainer.max_epochs=1") == 2
    assert "its options is" in capsys.readouterr().err
    Path("full").mkdir()
    Path("full/thesis.tex").touch()
    assert sweep("sweep.yaml", "--out", "full") == 2
    assert "full holds other files" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"identity": {}, "cells": {"a": {"status": "done"}}}', "\0\0\0"])
def test_a_damaged_ledger_is_named_set_aside_and_read_off_the_folders(damage, capsys):
    write_sweep(SEEDS)
    assert sweep("sweep.yaml", "--out", "out") == 0
    Path("out/ledger.json").write_text(damage)
    assert sweep("sweep.yaml", "--out", "out") == 0
    assert "out/ledger.json is damaged" in capsys.readouterr().err
    assert statuses() == ["finished"] * 3
    assert all(attempts(entry) == ["begin"] for entry in ledger().values())
    assert len(list(Path("out").glob("ledger.damaged-*.json"))) == 1


def test_a_damaged_result_is_named_set_aside_and_only_that_trial_runs_again(capsys):
    write_sweep(SEEDS)
    assert sweep("sweep.yaml", "--out", "out") == 0
    broken = sorted(Path("out/cells").iterdir())[1] / "results.json"
    broken.write_text('{"status": "fin')
    assert sweep("sweep.yaml", "--out", "out") == 0
    assert f"{broken} is damaged" in capsys.readouterr().err
    assert [attempts(entry) for entry in ledger().values()] == [["begin"], ["begin", "last"], ["begin"]]
    assert list(broken.parent.glob("results.damaged-*.json"))


def test_two_sweeps_at_once_on_one_folder(monkeypatch):
    monkeypatch.setenv("STUB_SECONDS", "1")
    write_sweep(SEEDS)
    first = start()
    while not Path("out/ledger.json").exists():
        time.sleep(0.05)
    second = start()
    assert second.wait(20) == 2
    assert "another tinv sweep works in out" in second.stderr.read()
    assert first.wait(30) == 0
    assert all(attempts(entry) == ["begin"] for entry in ledger().values())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_cells_and_the_sweep_goes_on_later(number, monkeypatch):
    monkeypatch.setenv("STUB_SECONDS", "2")
    write_sweep(SEEDS)
    process = start("--jobs", "2")
    while len(running()) < 2:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    assert "the same command resumes where it was" in process.stderr.read()
    assert not running()
    assert sorted(statuses()) == ["pending", "stopped", "stopped"]
    monkeypatch.setenv("STUB_SECONDS", "0.01")
    assert sweep("sweep.yaml", "--out", "out") == 0


def test_cells_die_with_a_killed_sweep(monkeypatch):
    monkeypatch.setenv("STUB_SECONDS", "30")
    write_sweep(SEEDS)
    process = start("--jobs", "2")
    while len(running()) < 2:
        time.sleep(0.05)
    process.kill()
    process.wait()
    for _ in range(50):
        if not running():
            break
        time.sleep(0.1)
    assert not running()


@pytest.mark.slow
@pytest.mark.parametrize("kills", [30, pytest.param(100, marks=pytest.mark.exhaustive)])
def test_kills_lose_no_trial_and_run_none_twice(kills, monkeypatch):
    monkeypatch.setenv("STUB_SECONDS", "0.2")
    write_sweep("seed_everything: {min: 0, max: 199}")
    random.seed(0)
    finished: set[Path] = set()
    for number in range(kills):
        process = start("--jobs", "4")
        # at any moment, and every other time while trials run, however slow the machine is just now
        while number % 2 and not running():
            time.sleep(0.01)
        time.sleep(random.uniform(0.05, 0.5))
        process.kill()
        process.wait()
        if Path("out/ledger.json").exists():
            assert len(ledger()) == 200
        now = {path for path in Path("out").glob("cells/*/results.json") if "finished" in path.read_text()}
        assert finished <= now
        finished = now
    assert finished
    monkeypatch.setenv("STUB_SECONDS", "0")
    assert start("--jobs", "8").wait(200) == 0
    assert statuses() == ["finished"] * 200
    assert not list(Path("out").glob("cells/*/TWICE"))
    assert not list(Path("out").glob("*damaged*"))


def test_a_disk_that_cannot_be_written_is_one_line(capsys):
    write_sweep(SEEDS)
    Path("file").touch()
    assert sweep("sweep.yaml", "--out", "file/out") == 2
    assert "cannot write to the sweep's folder file/out" in capsys.readouterr().err


def test_a_ledger_that_cannot_be_written_stops_nothing(capsys, monkeypatch):
    import tinv.sweeps.ledger as module

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    write_sweep(SEEDS)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomically", full)
        assert sweep("sweep.yaml", "--out", "out") == 0
    assert capsys.readouterr().err.count("No space left on device") == 1
    assert sweep("sweep.yaml", "--out", "out") == 0
    assert "3 kept as finished" in capsys.readouterr().err


def test_a_full_disk_stops_the_sweep_with_one_line_and_costs_nothing(capsys, monkeypatch):
    write_sweep(SEEDS)
    assert sweep("sweep.yaml", "--out", "out", "--only", "seed_everything=0") == 0
    with monkeypatch.context() as patch:
        patch.setattr(
            subprocess, "Popen", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        assert sweep("sweep.yaml", "--out", "out") == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == (
        "tinv: error: cannot start seed_everything=1 (No space left on device); the same command resumes where it was"
    )
    assert sweep("sweep.yaml", "--out", "out") == 0
    assert all(attempts(entry) == ["begin"] for entry in ledger().values())


def test_cores_and_gpus_are_divided_among_jobs(monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert [share["OMP_NUM_THREADS"] for share in shares(2, 9, [])] == ["4", "4"]
    assert shares(3, 2, [])[0]["MKL_NUM_THREADS"] == "1"
    devices = [share["CUDA_VISIBLE_DEVICES"] for share in shares(2, 8, ["0", "1", "2", "3"])]
    assert devices == ["0,1", "2,3"]
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares(3, 8, ["4", "5"])] == ["4", "5", "4"]
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert "OMP_NUM_THREADS" not in shares(2, 8, [])[0]


def test_random_cells_are_the_same_every_time_and_within_their_ranges():
    write_sweep(
        "seed_everything: {min: 0, max: 9}\n"
        "model.init_args.optimizer.init_args.lr: {min: 0.001, max: 0.1, distribution: log_uniform_values}\n"
        "model.init_args.padding: {values: [valid, full_zero]}",
        method="random",
        more="run_cap: 5",
    )
    assert sweep("sweep.yaml", "--out", "out", "--jobs", "2") == 0
    found = [entry["settings"] for entry in ledger().values()]
    assert len(found) == 5
    assert all(0.001 <= s["model.init_args.optimizer.init_args.lr"] <= 0.1 for s in found)
    assert all(s["seed_everything"] in range(10) for s in found)
    assert sweep("sweep.yaml", "--out", "out") == 0
    assert [entry["settings"] for entry in ledger().values()] == found
    assert all(attempts(entry) == ["begin"] for entry in ledger().values())
    # more of them: the first ones stay
    assert sweep("sweep.yaml", "--out", "out", "--count", "7") == 0
    assert [entry["settings"] for entry in ledger().values()][:5] == found
    assert len(ledger()) == 7


def test_bayes_climbs_to_the_best_and_goes_on_where_it_was():
    write_sweep(
        "seed_everything: {min: 0, max: 1000}",
        method="bayes",
        more="run_cap: 12\nmetric: {name: test/acc, goal: maximize}",
    )
    assert sweep("sweep.yaml", "--out", "out", "--jobs", "2") == 0
    first = {key: attempts(entry) for key, entry in ledger().items()}
    assert len(first) == 12
    assert sweep("sweep.yaml", "--out", "out", "--jobs", "2", "--count", "30") == 0
    entries = ledger()
    assert len(entries) == 30
    assert all(attempts(entries[key]) == ["begin"] for key in first)
    tried = [entry["settings"]["seed_everything"] for entry in entries.values()]
    # test/acc of the stub is its seed
    assert sum(tried[20:]) / 10 > sum(tried[:10]) / 10
    assert max(tried) > 900


def test_a_metric_that_no_run_gives_is_said(capsys):
    more = "run_cap: 2\nmetric: {name: test/mcs}"
    write_sweep("seed_everything: {min: 0, max: 9}", method="bayes", more=more)
    assert sweep("sweep.yaml", "--out", "out") == 2
    assert "no run gives test/mcs; they give test/acc, lr" in capsys.readouterr().err
