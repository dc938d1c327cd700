import json
from pathlib import Path

import numpy as np
import pytest

from tinv.report.collect import collect
from tinv.report.training_curves import read_metrics, training_curves


def write_run(folder: Path, config: dict, seed: int, rows: str) -> None:
    folder.mkdir(parents=True)
    results = {
        "status": "finished", "command": "fit", "experiment": "clips", "seed": seed, "config": config,
        "metrics": {"test/acc": 1.0},
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "metrics.csv").write_text(rows)


def cells_of(runs):
    for number, (config, seed, rows) in enumerate(runs):
        write_run(Path("runs") / str(number), config, seed, rows)
    return collect([Path("runs")])["clips"]


def config(padding: str, depth: int) -> dict:
    return {"model": {"init_args": {"padding": padding, "backbone_args": {"depth": depth}}}}


HEAD = "epoch,step,train/acc,train/loss,val/acc,val/loss\n"


def test_a_line_for_each_policy_and_a_panel_for_each_depth_show_means_as_far_as_all_seeds_went():
    groups = cells_of(
        [
            (config("same_zero", 18), 0, HEAD + "0,1,10,2.0,20,2.0\n1,2,30,1.5,40,1.9\n2,3,90,0.1,41,3\n"),
            (config("same_zero", 18), 1, HEAD + "0,1,20,2.0,40,2.0\n1,2,50,1.5,80,1.9\n"),
            (config("full_zero", 18), 0, HEAD + "0,1,11,2.0,21,2.0\n1,2,31,1.5,41,1.9\n"),
            (config("same_zero", 34), 0, HEAD + "0,1,12,2.0,22,2.0\n1,2,32,1.5,42,1.9\n"),
            (config("full_zero", 34), 0, HEAD + "0,1,13,2.0,23,2.0\n1,2,33,1.5,,1.9\n"),
        ]
    )
    figure = training_curves(groups, "clips")
    assert [axes.get_title() for axes in figure.axes] == ["depth 18", "depth 34"]
    drawn = {
        (axes.get_title(), line.get_color(), line.get_linestyle()): (list(line.get_xdata()), list(line.get_ydata()))
        for axes in figure.axes
        for line in axes.get_lines()
        if len(line.get_xdata())
    }
    assert len(drawn) == 8
    assert drawn["depth 18", "C0", "-"] == ([1, 2], [30.0, 60.0])
    assert drawn["depth 18", "C0", "--"] == ([1, 2], [15.0, 40.0])
    # a validation that was not done is no point
    assert drawn["depth 34", "C1", "-"] == ([1], [23.0])
    [band, *_] = figure.axes[0].collections[1:2]
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(30 - np.std([20, 40], ddof=1))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "same_zero", "full_zero", "training", "validation",
    ]  # fmt: skip


def test_losses_are_drawn_where_there_is_no_accuracy_and_one_cell_needs_no_colours():
    [group] = cells_of([(config("valid", 18), 0, "epoch,train/loss,val/loss\n0,2,3\n1,1,2\n")])
    figure = training_curves([group], "clips")
    assert figure.axes[0].get_ylabel() == "loss"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["training", "validation"]


@pytest.mark.parametrize("rows", [HEAD + "0,1,10,2.0,20,2.0\n", "epoch,train/loss\n0,1\n1,1\n", "", "damaged\n1,2\n"])
def test_without_two_epochs_of_validation_there_is_no_picture(rows):
    groups = cells_of([(config("valid", 18), 0, rows)])
    assert training_curves(groups, "clips") is None


def test_too_many_lines_are_not_drawn():
    rows = HEAD + "0,1,10,2.0,20,2.0\n1,2,30,1.5,40,1.9\n"
    groups = cells_of([(config("valid", depth), 0, rows) for depth in range(13)])
    assert training_curves(groups, "clips") is None
    assert training_curves(groups[:12], "clips") is not None


def test_a_damaged_table_is_named_and_left_out(capsys):
    rows = HEAD + "0,1,10,2.0,20,2.0\n1,2,30,1.5,40,1.9\n"
    groups = cells_of([(config("valid", 18), 0, rows), (config("valid", 18), 1, HEAD + "0,1,ten\n")])
    assert training_curves(groups, "clips") is not None
    assert "note: runs/1/metrics.csv is damaged" in capsys.readouterr().err


def test_a_run_without_a_table_is_left_out():
    rows = HEAD + "0,1,10,2.0,20,2.0\n1,2,30,1.5,40,1.9\n"
    groups = cells_of([(config("valid", 18), 0, rows), (config("full_zero", 18), 0, rows)])
    (Path("runs") / "0" / "metrics.csv").unlink()
    assert read_metrics(Path("runs") / "0") == {}
    figure = training_curves(groups, "clips")
    assert next(text.get_text() for text in figure.legends[0].get_texts()) == "full_zero"
