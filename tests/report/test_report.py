import json
import statistics
from pathlib import Path

import numpy as np
import pytest

from tinv.cli import main
from tinv.report.collect import collect
from tinv.report.pictures import grid_maps
from tinv.report.published import Value, published_for, tables

PAPER = {"valid": (100.0, 0.2), "same_zero": (99.8, 8.4), "same_circular": (73.7, 73.7), "full_zero": (89.7, 89.7)}


def write_run(padding: str, seed: int, similar: float, command: str = "fit") -> Path:
    path = Path("runs") / f"{padding}-{seed}-{command}"
    config = {
        "experiment": "red_green",
        "published": "red_green",
        "seed_everything": seed,
        "run_dir": str(path),
        "model": {"init_args": {"padding": padding}},
    }
    return write_results(path, config, {"test/acc/similar": similar, "test/acc/dissimilar": similar / 2}, command)


def write_results(path: Path, config: dict, metrics: dict, command: str = "fit") -> Path:
    path.mkdir(parents=True)
    results = {
        "status": "finished",
        "command": command,
        "experiment": config["experiment"],
        "seed": config["seed_everything"],
        "config": config,
        "metrics": metrics,
    }
    (path / "results.json").write_text(json.dumps(results))
    return path


@pytest.mark.parametrize("padding", PAPER)
def test_published_red_green_numbers(padding):
    config = {"published": "red_green", "model": {"init_args": {"padding": padding}}}
    found = published_for(config)
    assert tuple(value.mean for value in found.values()) == PAPER[padding]
    assert list(found) == ["test/acc/similar", "test/acc/dissimilar"]


def test_published_tables_are_complete_and_rectangular():
    assert len(tables()["cifar_grid"]["rows"]) == 16
    for table in tables().values():
        for row in table["rows"]:
            assert len(row) == len(table["keys"]) + len(table["metrics"])
    assert Value.read("89.7±0.5") == Value(89.7, 0.5)
    cell = {"kernel_size": 5, "subsampling_factor": 8}
    config = {"published": "cifar_grid", "model": {"init_args": {"backbone_args": cell}}}
    assert published_for(config) == {"test/mcs": Value(0.791), "test/acc": Value(75.95)}
    cell["kernel_size"] = 6
    assert published_for(config) == {}


def test_runs_that_differ_in_the_seed_make_one_cell():
    for seed, value in enumerate([90.0, 88.0, 89.0]):
        write_run("full_zero", seed, value)
    write_run("valid", 0, 100.0)
    write_run("valid", 1, 50.0, command="test")  # not a training run
    [cells] = collect([Path("runs")]).values()
    assert [cell.setting for cell in cells] == [
        {"model.init_args.padding": "valid"},
        {"model.init_args.padding": "full_zero"},
    ]
    assert cells[1].mean("test/acc/similar") == 89
    assert cells[1].std("test/acc/similar") == statistics.stdev([90, 88, 89])
    assert cells[0].values["test/acc/similar"] == [100.0]
    assert cells[0].std("test/acc/similar") is None


def test_report_prints_means_beside_published_numbers_and_draws_them(capsys):
    for padding in PAPER:
        for seed in (0, 1):
            write_run(padding, seed, PAPER[padding][0] - seed)
    assert main(["report", "runs"]) == 0
    text = capsys.readouterr().out
    assert "89.2±0.7" in text
    assert "89.7±0.5" in text
    assert "Kayhan & van Gemert 2020" in text
    assert Path("runs/red_green.png").read_bytes().startswith(b"\x89PNG")
    assert main(["report", "runs", "--out", "pictures"]) == 0
    assert Path("pictures/red_green.png").exists()


def test_a_grid_of_two_numbers_is_drawn_with_its_gaps_and_published_values():
    for kernel_size in (2, 5):
        for factor in (1, 8):
            if (kernel_size, factor) == (5, 1):
                continue  # not run yet
            args = {"kernel_size": kernel_size, "subsampling_factor": factor}
            config = {"experiment": "cifar_grid", "published": "cifar_grid", "seed_everything": 0}
            config["model"] = {"init_args": {"backbone_args": args}}
            write_results(Path(f"runs/{kernel_size}-{factor}"), config, {"test/mcs": 0.5, "test/acc": 60.0})
    [cells] = collect([Path("runs")]).values()
    figure = grid_maps(cells, "cifar_grid")
    similarity, accuracy = figure.axes
    assert similarity.get_title() == "mean cosine similarity"
    assert (similarity.get_ylabel(), similarity.get_xlabel()) == ("kernel_size", "subsampling_factor")
    assert sorted(text.get_text() for text in similarity.texts) == [
        "0.500\n(0.610)",
        "0.500\n(0.630)",
        "0.500\n(0.791)",
    ]
    assert sorted(text.get_text() for text in accuracy.texts)[0] == "60.0\n(72.3)"
    assert int(np.isnan(similarity.images[0].get_array().filled(np.nan)).sum()) == 1
    assert main(["report", "runs"]) == 0
    assert Path("runs/cifar_grid.png").exists()


def test_a_damaged_result_is_named_and_left_out(capsys):
    write_run("valid", 0, 100.0)
    (write_run("valid", 1, 100.0) / "results.json").write_text('{"status": "fini')
    assert main(["report", "runs"]) == 0
    captured = capsys.readouterr()
    assert "valid-1-fit/results.json is damaged and left out" in captured.err
    assert "100.0" in captured.out


def test_nothing_to_report_is_said(capsys):
    assert main(["report", "absent"]) == 2
    assert "no folder absent" in capsys.readouterr().err
    Path("empty").mkdir()
    assert main(["report", "empty"]) == 2
    assert "no finished run in empty" in capsys.readouterr().err
