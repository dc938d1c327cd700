"""The tables of selection around trained networks hold the numbers of their runs, and no certificate was violated."""

import csv
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "docs" / "experiments"
SHOWN = ("top1", "one_pixel_axis", "one_pixel_diagonal", "never_changed", "right_at_all_nine")


def rows() -> dict[tuple[str, str], dict[str, dict[str, str]]]:
    found: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    with (EXPERIMENTS / "data" / "select.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault((row["network"], row["condition"]), {})[row["number"]] = row
    return found


def short(value: str) -> str:
    return f"{float(value):.1f}"


@pytest.mark.parametrize("key", rows(), ids=" ".join)
def test_the_table_is_that_of_the_runs(key):
    page, own = (EXPERIMENTS / "select.md").read_text(), rows()[key]
    cells = ["{} ({} to {})".format(*(short(own[name][end]) for end in ("value", "low", "high"))) for name in SHOWN]
    assert f"| {key[0]} | {key[1]} | {' | '.join(cells)} | {short(own['milliseconds']['value'])} |" in page
    if "mean_certificate" in own:
        shares = [
            short(own[name]["value"]) for name in ("kept_crop_one_pixel", "certified_one_pixel", "mean_certificate")
        ]
        tried = f"{float(own['certified_moves_tried']['value']):,.0f}"
        assert f"| {key[0]} | {key[1]} | {' | '.join(shares)} | {tried} | 0 |" in page


def test_no_certificate_was_violated():
    counts = [
        own[name]["value"] for own in rows().values() for name in own if name.startswith("certif") and "s_v" in name
    ]
    changed = [
        own["certified_outputs_changed"]["value"] for own in rows().values() if "certified_outputs_changed" in own
    ]
    assert len(counts) == len(changed) >= 3
    assert {float(value) for value in (*counts, *changed)} == {0.0}
