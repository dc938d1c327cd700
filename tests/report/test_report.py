import csv
import io
import json
import re
import shutil
import statistics
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from tinv.cli import main
from tinv.config.merge import lookup
from tinv.report.collect import collect
from tinv.report.figures import curves, figures
from tinv.report.published import Value, published_for, tables, unmet_conditions
from tinv.report.tables import print_results, rows
from tinv.report.trend_checks import trend_checks
from tinv.runs.configuration import TinvCLI

PAPER = {"valid": (100.0, 0.2), "same_zero": (99.8, 8.4), "same_circular": (73.7, 73.7), "full_zero": (89.7, 89.7)}


def write_run(padding: str, seed: int, similar: float, command: str = "fit", status: str = "finished") -> Path:
    path = Path("runs") / f"{padding}-{seed}-{command}"
    config = {
        "experiment": "red_green",
        "published": "red_green",
        "seed_everything": seed,
        "run_dir": str(path),
        "model": {"init_args": {"padding": padding}},
    }
    metrics = {"test/acc/similar": similar, "test/acc/dissimilar": similar / 2} if status == "finished" else {}
    return write_results(path, config, metrics, command, status)


def write_results(
    path: Path, config: dict, metrics: dict, command: str = "fit", status: str = "finished", **more: dict
) -> Path:
    path.mkdir(parents=True)
    results = {
        "status": status,
        "error": "the loss is nan at step 3" if status == "failed" else "cannot be" if status == "excluded" else "",
        "command": command,
        "experiment": config["experiment"],
        "seed": config["seed_everything"],
        "config": config,
        "metrics": metrics,
        **more,
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
    group = {"kernel_size": 5, "subsampling_factor": 8}
    config = {"published": "cifar_grid", "model": {"init_args": {"backbone_args": group}}}
    assert published_for(config) == {"test/mcs": Value(0.791), "test/acc": Value(75.95)}
    group["kernel_size"] = 6
    assert published_for(config) == {}
    assert unmet_conditions(config) is None  # no row of the paper in the first place


def cifar_cell(**options):
    group = {"kernel_size": 2, "subsampling_factor": 8, "head": options.pop("head", "flatten")}
    similarity = {"name": "mcs", "max_shift": options.pop("max_shift", 8), "mode": "zero"}
    data = {"class_path": "tinv.data.CIFAR10", "init_args": {"canvas_size": options.pop("canvas_size", 50)}}
    metrics = [{"class_path": "tinv.metrics.MeanCosineSimilarity", "init_args": similarity}]
    args = {"padding": "same_zero", "backbone_args": group, "metrics": metrics, **options}
    return {"published": "cifar_grid", "model": {"init_args": args}, "data": data}


def test_a_run_under_another_setting_than_the_paper_has_no_published_numbers():
    """The paper's 0.610 belongs to zero padding, a dense head and shifts of up to 8 pixels on a canvas of 50."""
    known = {"test/mcs": Value(0.610), "test/acc": Value(72.53)}
    assert published_for(cifar_cell()) == known
    assert unmet_conditions(cifar_cell()) is None
    key = "model.init_args"
    custom = {"class_path": "my.Policy", "init_args": {}}
    for changed, reason in (
        ({"padding": "same_circular"}, f"{key}.padding=same_zero, not same_circular"),
        ({"padding": custom}, f"{key}.padding=same_zero, not my.Policy"),
        ({"subsampling": "aps"}, f"{key}.subsampling=keep, not aps"),
        ({"head": "gap"}, f"{key}.backbone_args.head=flatten, not gap"),
        ({"canvas_size": None}, "data.init_args.canvas_size=50, not null"),
    ):
        assert published_for(cifar_cell(**changed)) == {}
        assert unmet_conditions(cifar_cell(**changed)) == f"the published numbers are for {reason}"
    assert published_for(cifar_cell(max_shift=4)) == {"test/acc": known["test/acc"]}
    assert unmet_conditions(cifar_cell(max_shift=4)).endswith("max_shift of test/mcs=8, not 4")


def test_the_report_says_why_there_are_no_published_numbers(capsys):
    write_run("valid", 0, 99.0)
    path = write_run("full_zero", 0, 90.0) / "results.json"
    results = json.loads(path.read_text())
    results["config"]["model"]["init_args"]["subsampling"] = "aps"
    path.write_text(json.dumps(results))
    assert main(["report", "runs"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "100.0±0.0" in said
    assert "89.7" not in said
    notes = {group.note for group in collect([Path("runs")])["red_green"]}
    assert "the published numbers are for model.init_args.subsampling=keep, not aps" in notes


@pytest.mark.parametrize("name", sorted(tables()))
def test_the_shipped_configuration_of_each_entry_meets_its_conditions(name):
    """Every condition names a key of the configuration, so that a misspelt one cannot pass."""
    overlays = {"cifar_antialias": ["configs/cifar_grid.yaml", "configs/overlays/antialias.yaml"]}
    words = [word for path in overlays.get(name, [f"configs/{name}.yaml"]) for word in ("--config", path)]
    if name == "imagenet_shift":
        words.append("--data.init_args.root=.")
    config = TinvCLI([*words, "--run_dir=null"]).values
    assert config["published"] == name
    assert published_for(config)
    assert unmet_conditions(config) is None
    for key in tables()[name].get("only", {}):
        parent, _, last = key.rpartition(".")
        assert last in lookup(config, parent), key


def test_runs_that_differ_in_the_seed_make_one_cell():
    for seed, value in enumerate([90.0, 88.0, 89.0]):
        write_run("full_zero", seed, value)
    write_run("valid", 0, 100.0)
    write_run("valid", 1, 50.0, command="test")  # not a training run
    [groups] = collect([Path("runs")]).values()
    assert [group.setting for group in groups] == [
        {"model.init_args.padding": "valid"},
        {"model.init_args.padding": "full_zero"},
    ]
    assert groups[1].mean("test/acc/similar") == 89
    assert groups[1].std("test/acc/similar") == statistics.stdev([90, 88, 89])
    assert groups[0].values["test/acc/similar"] == [100.0]
    assert groups[0].std("test/acc/similar") is None


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
    assert main(["report", "runs", "--out", "figures"]) == 0
    assert Path("figures/red_green.png").exists()


def test_a_grid_of_two_numbers_is_drawn_with_its_gaps_and_published_values():
    for kernel_size in (2, 5):
        for factor in (1, 8):
            if (kernel_size, factor) == (5, 1):
                continue  # not run yet
            args = {"kernel_size": kernel_size, "subsampling_factor": factor}
            config = {"experiment": "cifar_grid", "published": "cifar_grid", "seed_everything": 0}
            config["model"] = {"init_args": {"backbone_args": args}}
            write_results(Path(f"runs/{kernel_size}-{factor}"), config, {"test/mcs": 0.5, "test/acc": 60.0})
    [groups] = collect([Path("runs")]).values()
    figure = figures(groups, "cifar_grid")[""]
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
    assert "valid-1-fit/results.json is damaged (JSONDecodeError" in captured.err
    assert "100.0" in captured.out


def test_nothing_to_report_is_said(capsys):
    assert main(["report", "absent"]) == 2
    assert "no folder absent" in capsys.readouterr().err
    Path("empty").mkdir()
    assert main(["report", "empty"]) == 2
    assert "no finished run in empty" in capsys.readouterr().err


def grid(factors=(1, 2, 4, 8), kernels=(2, 3, 4, 5), seeds=(0,), mcs=lambda kernel, factor: kernel * factor / 100):
    for factor in factors:
        for kernel in kernels:
            for seed in seeds:
                args = {"kernel_size": kernel, "subsampling_factor": factor}
                config = {"experiment": "cifar_grid", "published": "cifar_grid", "seed_everything": seed}
                config["model"] = {"init_args": {"backbone_args": args}}
                metrics = {"test/mcs": mcs(kernel, factor), "test/acc": 60.0 + kernel}
                write_results(Path(f"runs/{kernel}-{factor}-{seed}"), config, metrics)


def test_failed_missing_and_excluded_cells_are_shown_as_such(capsys):
    for seed in (0, 1, 2):
        write_run("valid", seed, 100.0)
    write_run("same_zero", 0, 99.0)
    write_run("same_zero", 1, 0, status="failed")
    write_run("same_circular", 0, 0, status="failed")
    write_run("full_zero", 0, 0, status="excluded")
    [groups] = collect([Path("runs")]).values()
    by_name = {group.setting["model.init_args.padding"]: group for group in groups}
    assert by_name["valid"].note == ""
    assert by_name["same_zero"].note == "1 failed: the loss is nan at step 3; 1 of 3 seeds missing"
    assert by_name["same_zero"].mean("test/acc/similar") == 99
    assert (by_name["same_circular"].status, by_name["full_zero"].status) == ("failed", "excluded")
    assert by_name["full_zero"].note == "excluded: cannot be"
    assert main(["report", "runs"]) == 0
    text = capsys.readouterr().out
    assert "the loss is nan" in text
    assert "excluded" in text


def test_a_hole_in_a_grid_is_a_missing_cell_and_a_random_search_has_none():
    grid()
    shutil.rmtree("runs/3-4-0")
    [groups] = collect([Path("runs")]).values()
    assert [list(group.setting.values()) for group in groups if group.status == "missing"] == [[3, 4]]
    for kernel, factor in ((6, 16), (7, 32), (8, 64), (9, 128)):
        grid([factor], [kernel])
    [groups] = collect([Path("runs")]).values()
    assert not [group for group in groups if group.status == "missing"]


def test_a_run_that_failed_before_its_defaults_were_filled_in_joins_its_cell():
    write_run("valid", 0, 100.0)
    path = write_run("full_zero", 0, 90.0)
    for folder in ("valid-0-fit", "full_zero-0-fit"):
        file = Path("runs") / folder / "results.json"
        content = json.loads(file.read_text())
        content["config"]["trainer"] = {"max_epochs": 50}
        file.write_text(json.dumps(content))
    write_run("full_zero", 1, 0, status="failed")
    [groups] = collect([path.parent]).values()
    assert [len(group.runs) for group in groups] == [1, 2]
    assert list(groups[0].setting) == ["model.init_args.padding"]


def test_shapes_of_the_grid_are_checked():
    grid(seeds=(0, 1))
    [groups] = collect([Path("runs")]).values()
    found = {shape.claim: shape.holds for shape in trend_checks(groups)}
    assert len(found) == 6  # kernel size at factors 2, 4, 8; factor at kernel sizes 3, 4, 5
    assert set(found.values()) == {"yes, at every step"}
    assert "test/mcs rises with kernel_size at subsampling_factor 1" not in found


@pytest.mark.parametrize(
    ("values", "holds"),
    [((0.1, 0.3, 0.2, 0.4), "yes, from first to last, not at every step"), ((0.4, 0.5, 0.6, 0.4), "no")],
)
def test_a_shape_that_does_not_hold_is_said(values, holds):
    grid(factors=(2, 4), mcs=lambda kernel, factor: values[kernel - 2])
    [groups] = collect([Path("runs")]).values()
    assert trend_checks(groups)[0].holds == holds


def test_csv_holds_full_numbers(capsys):
    for seed, value in enumerate((90.0, 88.0)):
        write_run("full_zero", seed, value)
    write_run("valid", 0, 100.0)
    assert main(["report", "runs", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    [row] = [r for r in rows if (r["model.init_args.padding"], r["metric"]) == ("full_zero", "test/acc/similar")]
    assert (row["n"], float(row["mean"]), float(row["std"])) == ("2", 89.0, statistics.stdev([90, 88]))
    assert (float(row["published"]), float(row["published_std"])) == (89.7, 0.5)
    assert float(row["difference"]) == pytest.approx(-0.7)


def test_markdown_and_latex_are_well_formed(capsys):
    grid()
    assert main(["report", "runs", "--format", "md", "--out", "report.md"]) == 0
    lines = Path("report.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert len(table) == 2 + 32
    assert any("rises with kernel_size" in line for line in lines)
    capsys.readouterr()
    assert main(["report", "runs", "--format", "latex"]) == 0
    text = capsys.readouterr().out
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(body) == 33
    assert len({line.count(" & ") for line in body}) == 1
    assert "kernel\\_size" in text
    assert not re.search(r"(?<!\\)_", text.replace("cifar\\_grid", ""))


def test_a_grid_gives_heat_maps_a_trade_off_and_curves():
    grid(seeds=(0, 1))
    [groups] = collect([Path("runs")]).values()
    drawn = figures(groups, "cifar_grid")
    assert list(drawn) == ["", "tradeoff", "curves"]
    axes = drawn["tradeoff"].axes[0]
    assert sum(len(c.get_offsets()) for c in axes.collections) == 16
    similarity = next(a for a in drawn["curves"].axes if a.get_ylabel() == "mean cosine similarity")
    assert next(list(line.get_xdata()) for line in similarity.lines if len(line.get_xdata()) == 4) == [0, 1, 2, 3]
    assert [label.get_text() for label in similarity.get_xticklabels()] == ["1", "2", "4", "8"]
    assert main(["report", "runs"]) == 0
    assert {path.name for path in Path("runs").glob("*.png")} == {
        "cifar_grid.png",
        "cifar_grid_tradeoff.png",
        "cifar_grid_curves.png",
    }


def test_one_swept_number_gives_a_curve():
    grid(kernels=[2])
    [groups] = collect([Path("runs")]).values()
    assert list(figures(groups, "x")) == ["curves"]
    assert [str(shape) for shape in trend_checks(groups)] == [
        "test/mcs rises with subsampling_factor: yes, at every step (0.020 0.040 0.080 0.160)"
    ]


def test_curves_of_several_keys_and_of_all_images():
    for number, (images, padding, depth) in enumerate(product([50, 500, None], ["same_zero", "full_zero"], [18, 50])):
        config = {
            "experiment": "x",
            "seed_everything": 0,
            "model": {"init_args": {"padding": padding, "backbone_args": {"depth": depth}}},
            "data": {"init_args": {"images_per_class": images}},
        }
        metrics = {"test/acc": 50.0 + number, "test/acc_low": 1.0, "test/acc_high": 99.0}
        write_results(Path(f"runs/{number}"), config, metrics)
    [groups] = collect([Path("runs")]).values()
    figure = figures(groups, "x")["curves"]
    [axes] = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["50", "500", "all"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(labels) == [f"depth {d}, padding {p}" for d in (18, 50) for p in ("full_zero", "same_zero")]
    assert any(list(line.get_ydata()) == [50, 54, 58] for line in axes.lines)


def test_ends_of_intervals_stand_beside_their_number(capsys):
    metrics = {"test/acc": 60.0, "test/acc_low": 51.5, "test/acc_high": 68.5, "test/hue_low": 7.0}
    metrics |= {"test/mcs/similar": 0.5, "test/mcs_low/similar": 0.25, "test/mcs_high/similar": 0.75}
    for seed in (0, 1):
        config = {"experiment": "one" if seed == 0 else "two", "published": None}
        for copy in range(seed + 1):
            write_results(Path(f"runs/{seed}{copy}"), {**config, "seed_everything": copy}, metrics)
    assert main(["report", "runs", "--format", "md"]) == 0
    one, two = capsys.readouterr().out.split("## ")[1:]
    assert one.splitlines()[2] == "| metric | n | mean ± std | 95% interval |"
    assert "| test/acc | 1 | 60.0 | 51.5 .. 68.5 |" in one
    assert "| test/mcs/similar | 1 | 0.500 | 0.250 .. 0.750 |" in one
    # a number of that name without the other end is a number
    assert "| test/hue_low | 1 | 7.000 |  |" in one
    assert len(one.strip().splitlines()) == 4 + 3
    # of several runs the spread over seeds tells more
    assert two.splitlines()[2] == "| metric | n | mean ± std |"
    assert len(two.strip().splitlines()) == 4 + 3
    assert main(["report", "runs", "--format", "csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(line["low"], line["high"]) for line in lines if line["metric"] == "test/acc"] == [
        ("51.5", "68.5"),
        ("", ""),
    ]
    print_results(metrics, None, "here")
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["test/acc", "60.0", "51.5", "..", "68.5"] in printed
    assert ["test/hue_low", "7.000"] in printed


def test_the_page_refers_to_nothing_outside_and_escapes_what_it_shows(capsys):
    grid()
    config = {"experiment": "<script>alert(1)</script>", "seed_everything": 0, "model": {"x": "<b>"}}
    write_results(Path("runs/evil"), config, {"test/acc": 1.0})
    assert main(["report", "runs", "--format", "html"]) == 0
    text = Path("runs/report.html").read_text()
    assert "<script>alert" not in text
    assert "<b>" not in text
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)
    assert "@import" not in text
    assert text.count("<details>") == 2 + 17
    assert "page: runs/report.html" in capsys.readouterr().out


def test_a_place_that_cannot_be_written_is_said(capsys):
    write_run("valid", 0, 100.0)
    Path("file").write_text("")
    assert main(["report", "runs", "--format", "html", "--out", "file/report.html"]) == 2
    assert "choose another place with --out" in capsys.readouterr().err


def test_defaults_that_only_finished_runs_have_filled_in_tell_no_cells_apart():
    def config(padding: str, **options: int) -> dict:
        metric = {"class_path": "tinv.metrics.DescriptorShift", "init_args": options}
        init_args = {"padding": padding, "metrics": [metric]}
        return {"experiment": "patches", "seed_everything": 0, "model": {"init_args": init_args}}

    write_results(Path("runs/a"), config("valid", max_shift=8, seed=0), {"test/fpr95": 0.1})
    write_results(Path("runs/b"), config("same_zero", max_shift=8, seed=0), {"test/fpr95": 0.2})
    write_results(Path("runs/c"), config("full_zero", max_shift=8), {}, status="excluded")
    [groups] = collect([Path("runs")]).values()
    assert [list(group.setting) for group in groups] == [["model.init_args.padding"]] * 3
    # a value of its own does
    write_results(Path("runs/d"), config("full_circular", max_shift=4), {}, status="excluded")
    [groups] = collect([Path("runs")]).values()
    assert [len(group.setting) for group in groups] == [2] * len(groups)


def test_curves_show_means_over_test_sets_before_the_sets():
    for number in (500, 2000):
        config = {"experiment": "patches", "seed_everything": 0, "data": {"init_args": {"num_pairs": number}}}
        names = ("test/fpr95", "test/fpr95/a", "test/fpr95/b", "test/auroc", "test/auroc/a")
        write_results(Path(f"runs/{number}"), config, dict.fromkeys(names, 0.5))
    [groups] = collect([Path("runs")]).values()
    drawn = [axes.get_ylabel() for axes in curves(groups, "patches").axes]
    assert drawn == ["false positives at 95% recall", "area under the ROC curve"]


@pytest.mark.parametrize(("similar", "height"), [(50.0, 51.5), (96.0, 101.3)])
def test_a_number_stands_on_its_bar_and_not_on_a_published_line_far_above(similar, height):
    """Red-Green under same_zero is published as 99.8 and 8.4."""
    write_run("same_zero", 0, similar)
    [figure] = [f for f in figures(collect([Path("runs")])["red_green"], "").values() if f.axes[0].get_ylabel()][:1]
    [text, _] = figure.axes[0].texts
    assert text.get_text() == f"{similar:.1f}"
    assert text.get_position()[1] == pytest.approx(height)


def test_numbers_are_written_as_their_declared_unit_asks_and_by_their_names_in_old_results(capsys):
    config = {"experiment": "units", "seed_everything": 0}
    metrics = {"test/accent": 0.12345, "test/turned": 12.345, "test/acc": 12.345}
    write_results(Path("old/a"), config, metrics)
    write_results(Path("new/a"), config, metrics, units={"test/accent": "cosine", "test/turned": "percent"})
    for folder, expected in (("old", ["0.1", "12.345", "12.3"]), ("new", ["0.123", "12.3", "12.3"])):
        assert main(["report", folder, "--format", "csv", "--out", f"{folder}.csv"]) == 0
        [groups] = collect([Path(folder)]).values()
        assert [row.texts()[2] for row in rows(groups)] == expected
        capsys.readouterr()
    print_results(metrics, None, "here", {"test/accent": "cosine"})
    assert "0.123 " in capsys.readouterr().out
