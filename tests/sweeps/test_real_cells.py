"""`tinv sweep` with real runs, checked beforehand as they will be read."""

import json
from pathlib import Path

import pytest
from sweeps.stub_sweep import write_sweep

from tinv.cli import main

TINY = [
    "--data.init_args.num_train=40",
    "--data.init_args.num_val=20",
    "--data.init_args.num_test=20",
    "--data.init_args.batch_size=10",
]


@pytest.mark.slow
def test_a_sweep_of_real_runs_ends_in_a_report(capfd):
    write_sweep("model.init_args.padding: {values: [valid, full_zero]}\ntrainer.max_epochs: {value: 1}")
    assert main(["sweep", "sweep.yaml", "--out", "out", "--jobs", "2", "--", *TINY]) == 0
    results = [json.loads(path.read_text()) for path in Path("out/cells").glob("*/results.json")]
    assert sorted(r["config"]["model"]["init_args"]["padding"] for r in results) == ["full_zero", "valid"]
    assert all(r["config"]["trainer"]["max_epochs"] == 1 for r in results)
    capfd.readouterr()
    assert main(["report", "out"]) == 0
    assert "99.8±0.1" not in capfd.readouterr().out  # same_zero was not run
    assert Path("out/red_green.png").exists()


def test_a_value_that_the_run_would_refuse_is_found_before_the_first_cell(capsys):
    write_sweep("trainer.max_epochs: {values: [1, many]}")
    assert main(["sweep", "sweep.yaml", "--out", "out", "--", *TINY]) == 2
    said = capsys.readouterr().err
    assert "sweep.yaml: parameters.trainer.max_epochs: 'many' is not of type int" in said.splitlines()[-1]
    assert not Path("out/cells").exists()
    assert not Path("out/ledger.json").exists()
