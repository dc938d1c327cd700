"""The table of the policies on a trained ResNet-20 holds the numbers of its runs."""

import csv
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_is_that_of_the_runs():
    page = (DOCS / "experiments" / "own.md").read_text()
    with (DOCS / "experiments" / "data" / "cifar_policies.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["subsampling"] for row in rows}) == len(rows)
    for row in rows:
        numbers = (f"{float(row[key]):.1f}" for key in ("acc", *(f"{view}_consistency" for view in VIEWS)))
        assert f"| `{row['subsampling']}` | {' | '.join(numbers)} |" in page


def test_policies_that_are_exact_in_theory_read_100_and_the_others_do_not():
    with (DOCS / "experiments" / "data" / "cifar_policies.csv").open(newline="") as file:
        rows = {row["subsampling"]: row for row in csv.DictReader(file)}
    for name, row in rows.items():
        exact = name.startswith(("aps", "lps", "dilated")) and name != "aps_linf"
        for view in ("circular", "canvas"):
            assert (float(row[f"{view}_consistency"]) == 100) == exact, name


VIEWS = ("circular", "crop", "canvas")
