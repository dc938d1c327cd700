"""The table of what breaks the invariance of trained networks holds the numbers of its runs."""

import csv
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
SECTION = "## What breaks the invariance of trained networks"
CONDITIONS, ORDERS = ("as it is", "valid"), ("padding first", "aliasing first")


def rows() -> list[dict[str, str]]:
    with (DOCS / "experiments" / "data" / "attribution.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def interval(row: dict[str, str]) -> str:
    value, low, high = (f"{float(row[key]):.1f}".replace("-0.0", "0.0") for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


@pytest.mark.parametrize("network", sorted({row["network"] for row in rows()}))
def test_the_tables_are_those_of_the_runs(network):
    section = (DOCS / "experiments" / "own.md").read_text().split(SECTION)[1].split("\n## ")[0]
    own = {(row["condition"], row["number"]): row for row in rows() if row["network"] == network}
    for condition in CONDITIONS:
        numbers = [interval(own[condition, name]) for name in ("on_stride", "off_stride", "accuracy")]
        assert f"| {network} | {condition} | {' | '.join(numbers)} |" in section
    for order in ORDERS:
        numbers = [interval(own[order, name]) for name in ("padding", "aliasing", "rest")]
        assert f"| {network} | {order} | {' | '.join(numbers)} |" in section


@pytest.mark.parametrize("order", ORDERS)
def test_shares_add_up_to_the_inconsistency_off_the_stride(order):
    for network in {row["network"] for row in rows()}:
        own = {(r["condition"], r["number"]): float(r["value"]) for r in rows() if r["network"] == network}
        total = sum(own[order, name] for name in ("padding", "aliasing", "rest"))
        assert total == pytest.approx(own["as it is", "off_stride"], abs=0.01)
