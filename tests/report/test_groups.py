"""Which runs make a group, and what is said of groups that are not what they seem."""

import shutil
from pathlib import Path

import pytest
from test_report import grid, write_results, write_run

from tinv.cli import main
from tinv.report.collect import collect, settings_of
from tinv.report.trend_checks import trend_checks


def test_a_run_below_several_of_the_folders_counts_once():
    for seed in (0, 1, 2):
        write_run("valid", seed, 90.0 + seed)
    Path("link").symlink_to("runs")
    [[group]] = collect([Path("runs"), Path("runs/valid-0-fit"), Path("link")]).values()
    assert group.values["test/acc/similar"] == [90.0, 91.0, 92.0]


def test_runs_of_one_seed_are_said_not_to_be_independent(capsys):
    for seed in (0, 1):
        shutil.copytree(write_run("valid", seed, 90.0 + seed), f"runs/copy-{seed}")
    shutil.rmtree("runs/copy-1")
    [[group]] = collect([Path("runs")]).values()
    assert group.note == "runs are not independent: 2 of seed 0"
    assert main(["report", "runs"]) == 0
    assert "2 of seed 0" in capsys.readouterr().out


@pytest.mark.parametrize("least", [{}, {"kernel_size": None}])
def test_a_grid_with_a_default_left_out_is_reported_without_its_shape(least, capsys):
    grid(factors=(2, 4), kernels=(3, 5))
    config = {"experiment": "cifar_grid", "seed_everything": 0}
    config["model"] = {"init_args": {"backbone_args": {"subsampling_factor": 2, **least}}}
    config["published"] = "cifar_grid"
    write_results(Path("runs/default"), config, {"test/mcs": 0.5, "test/acc": 60.0})
    [groups] = collect([Path("runs")]).values()
    assert trend_checks(groups) == []
    assert main(["report", "runs"]) == 0
    assert "60.0" in capsys.readouterr().out


def test_runs_from_before_an_argument_of_a_metric_are_of_the_same_cell():
    """A metric that has a new argument is written with its default; the runs of before lack it."""
    earlier = {"class_path": "tinv.metrics.MeanCosineSimilarity", "init_args": {"max_shift": 8, "name": "mcs"}}
    later = {**earlier, "init_args": {"name": "mcs", "max_shift": 8, "top_k": None}}
    other = {**earlier, "init_args": {"name": "mcs", "max_shift": 8, "top_k": 3}}
    found = [
        settings_of({"model": {"init_args": {"padding": "valid", "metrics": [metric]}}})
        for metric in (earlier, later, other)
    ]
    assert found[0] == found[1] != found[2]
