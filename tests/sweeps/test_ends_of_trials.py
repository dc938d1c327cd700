"""What becomes of trials that are stopped, ruled out after they have finished, or without the metric of the search."""

import json
from pathlib import Path

import pytest
from sweeps.stub_sweep import sweep, write_sweep
from sweeps.test_sweep import SEEDS, statuses

from tinv.errors import TinvError
from tinv.sweeps.trials import select_trials

FATE = "data.init_args.seed: {values: [%s]}\nseed_everything: {values: [0]}"


def test_a_trial_that_someone_else_stopped_is_no_success(capsys):
    write_sweep(FATE % "0, 2")
    assert sweep("sweep.yaml", "--out", "out") == 1
    assert "1 trials were stopped; the same command resumes where it was" in capsys.readouterr().err
    assert statuses() == ["finished", "stopped"]
    assert sweep("sweep.yaml", "--out", "out") == 0


def test_results_outlive_a_rule_that_excludes_their_trial(capsys):
    write_sweep(SEEDS)
    assert sweep("sweep.yaml", "--out", "out", "--only", "seed_everything=0") == 0
    write_sweep(SEEDS, more="exclude: [{reason: odd, seed_everything: [0, 1]}]")
    assert sweep("sweep.yaml", "--out", "out") == 0
    said = capsys.readouterr().err
    assert "seed_everything=0 is excluded now, but has finished; its results are kept" in said
    assert "2 trials, 1 kept as finished, 1 excluded: odd" in said
    found = [json.loads(path.read_text()) for path in Path("out/cells").glob("*/results.json")]
    assert sorted((r["seed"], r["status"]) for r in found) == [(0, "finished"), (1, "excluded"), (2, "finished")]


def test_a_search_goes_on_where_its_metric_is_not_defined(capsys):
    fates = "data.init_args.seed: {values: [4, 0]}\nseed_everything: {min: 0, max: 99}"
    more = "run_cap: 8\nmetric: {name: test/acc, goal: maximize}"
    write_sweep(fates, method="bayes", more=more)
    assert sweep("sweep.yaml", "--out", "out") == 0
    assert "note: test/acc is not defined for " in capsys.readouterr().err
    assert sweep("sweep.yaml", "--out", "out", "--count", "9") == 0
    assert statuses() == ["finished"] * 9


def test_a_condition_without_a_value_or_with_the_end_of_two_keys_is_named():
    keys = ["data.init_args.seed", "data.init_args.splits.seed", "seed_everything"]
    for only, message in (("seed_everything", "write seed_everything=VALUE"), ("seed=1", "end of data.init_args.seed")):
        with pytest.raises(TinvError, match=message):
            select_trials([], [only], keys)
