"""The table of the page about fine-tuning holds the numbers of its runs."""

import csv
import statistics
from itertools import groupby
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def of_runs(values: list[float]) -> str:
    """Returns mean and standard deviation, of several runs, as the table has them."""
    spread = f"±{statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def test_the_table_is_that_of_the_runs():
    page = (DOCS / "how-to" / "finetune.md").read_text()
    with (DOCS / "experiments" / "data" / "finetune.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    groups = {name: list(runs) for name, runs in groupby(rows, key=lambda row: row["subsampling"])}
    assert set(groups) == {"keep", "blur3", "aps"}
    for name, runs in groups.items():
        numbers = [of_runs([float(run[key]) for run in runs]) for key in ("acc", "consistency")]
        assert f"| `{name}` | {len(runs)} | {numbers[0]} | {numbers[1]} |" in page
