"""The table of the vision transformers holds the numbers of its runs, and what is exact in theory reads 100."""

import csv
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
NUMBERS = ("acc", "circular_consistency", "crop_consistency")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with (DOCS / "experiments" / "data" / "transformers.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_is_that_of_the_runs(rows):
    page = (DOCS / "experiments" / "transformers.md").read_text()
    assert len({(row["network"], row["tokens"]) for row in rows}) == len(rows)
    for row in rows:
        numbers = " | ".join(f"{float(row[key]):.1f}" for key in NUMBERS)
        assert f"| {row['network']} | `{row['tokens']}` | {numbers} |" in page


def test_what_is_exact_reads_100_and_the_rest_does_not(rows):
    for row in rows:
        exact = row["tokens"] == "anchor" or (row["tokens"] == "a_token" and row["network"] != "ViT, absolute")
        assert (float(row["circular_consistency"]) == 100) == exact, row
