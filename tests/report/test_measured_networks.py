"""`tinv report` of folders that `tinv measure` wrote."""

import csv
import io
import json
from pathlib import Path

import pytest
from report.test_report import write_results

from tinv.cli import main
from tinv.report.measured_networks import collect_measured, measured_figure


def write_measure(name: str, acc: float, more: dict | None = None, **options: object) -> Path:
    folder = Path("measured") / name
    folder.mkdir(parents=True)
    found = {
        "command": "measure",
        "options": {"backbone": "rook_net", "source": "tinv", "images": "photos", "mode": "crop", "offset_range": 32,
                    "seed": 0, "input_size": [64, 64], "padding": "keep", **options},
        "images": 50,
        "metrics": {"acc": acc, "acc_low": acc - 5, "acc_high": acc + 5, "consistency": 80.0, "other": 1.5,
                    **(more or {})},
        "units": {"acc": "percent", "consistency": "percent"},
    }  # fmt: skip
    (folder / "measure.json").write_text(json.dumps(found))
    return folder


def report(*words: str) -> int:
    return main(["report", *words])


def test_a_row_a_network(capsys):
    write_measure("plain", 60.25)
    write_measure("padded", 70.0, {"consistency_cosine": 0.9876}, padding="same_circular")
    assert report("measured", "--format=csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["network"] for row in rows] == ["padded", "plain"]
    assert [row["policies"] for row in rows] == ["padding same_circular", "as it is"]
    assert (rows[1]["acc"], rows[1]["acc_low"], rows[1]["acc_high"], rows[1]["other"]) == (
        "60.25",
        "55.25",
        "65.25",
        "1.5",
    )
    assert [row["consistency_cosine"] for row in rows] == ["0.9876", ""]
    assert Path("measured/measured_networks.png").read_bytes()[:4] == b"\x89PNG"
    assert report("measured", "--format=md") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "| plain | rook_net (tinv) | as it is | 50 | 60.2 (55.2 .. 65.2) | 80.0 |  |" in lines
    assert not [line for line in lines if "alike" in line]
    assert report("measured/plain", "measured/padded") == 0
    printed = capsys.readouterr().out
    assert printed.index("plain") < printed.index("padded")  # in the order of the folders that are named
    assert "55.2 .. 65.2" in printed
    assert report("measured", "--format=latex") == 0
    assert "60.2 (55.2 .. 65.2) & 80.0" in capsys.readouterr().out


def test_the_page_has_a_row_a_network_that_sorts_by_number(capsys):
    write_measure("<b>bold</b>", 60.0)
    write_measure("other", 9.5)
    assert report("measured", "--format=html") == 0
    page = Path("measured/report.html").read_text()
    assert "<b>bold</b>" not in page
    assert 'data-value="9.5">9.5 (4.5 .. 14.5)</td>' in page
    assert "2 networks and their options" in page
    assert page.count("<img") == 1
    assert "http" not in page.partition("<h1>")[2]


def test_networks_that_were_not_measured_alike_are_named(capsys):
    write_measure("a", 60.0)
    write_measure("b", 60.0, mode="zero", seed=0)
    write_measure("c", 60.0, input_size=[32, 64])
    for form in ("table", "md"):
        assert report("measured", f"--format={form}") == 0
        said = capsys.readouterr().out
        assert "mode is crop (a, c); zero (b)" in said
        assert "input_size is 64x64 (a, b); 32x64 (c)" in said
        assert "seed is" not in said


def test_damaged_files_are_named_and_left_out(capsys):
    write_measure("whole", 60.0)
    for name, text in (
        ("cut", '{"metrics": '),
        ("list", "[1]"),
        ("empty", '{"metrics": 3}'),
        ("odd", '{"metrics": {}, "options": [1]}'),
    ):
        Path("measured", name).mkdir()
        Path("measured", name, "measure.json").write_text(text)
    assert report("measured", "--format=csv") == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2
    for name in ("cut", "list", "empty", "odd"):
        assert f"measured/{name}/measure.json is damaged" in said.err
    assert said.err.count("it is left out") == 4


def test_runs_and_networks_are_both_shown(capsys):
    write_measure("plain", 60.0)
    write_results(Path("runs/a"), {"experiment": "tiny", "seed_everything": 0}, {"test/acc": 90.0})
    for form in ("table", "md", "csv", "latex"):
        assert report("runs", "measured", f"--format={form}") == 0
        printed = capsys.readouterr().out
        assert "tiny" in printed
        assert "plain" in printed
    assert report("runs", "measured", "--format=html") == 0
    page = Path("runs/report.html").read_text()
    assert "Measured networks" in page
    assert "1 runs and their configurations" in page


def test_one_name_in_two_places_is_a_path_and_one_place_named_twice_is_one_network():
    write_measure("x/net", 60.0)
    write_measure("y/net", 61.0)
    write_measure("z", 62.0)
    found = collect_measured([Path("measured"), Path("measured/x")])
    assert [network.name for network in found] == ["measured/x/net", "measured/y/net", "z"]


def test_a_folder_with_nothing_and_no_folder_are_errors(capsys):
    Path("empty").mkdir()
    assert report("empty") == 2
    assert "no finished run in empty; run tinv fit or tinv measure first" in capsys.readouterr().err
    write_measure("plain", 60.0)
    assert report("measured", "absent") == 2
    assert "no folder absent" in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 2])
def test_the_picture_has_a_panel_a_measure(count):
    for number in range(count):
        write_measure(f"n{number}", 60.0, {"consistency_cosine": 0.9} if number else None)
    figure = measured_figure(collect_measured([Path("measured")]))
    titles = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert titles == ["acc", "consistency", "consistency_cosine"][: count + 1]
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in dots] == [60.0] * count
