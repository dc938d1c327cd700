"""The tables of trained networks under a protocol, and of the Lie derivative, hold the numbers of their runs."""

import csv
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "docs" / "experiments"


def rows(name: str) -> list[dict[str, str]]:
    with (EXPERIMENTS / "data" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_of_networks_is_that_of_the_runs():
    page = (EXPERIMENTS / "own.md").read_text()
    found = {(row["network"], row["number"]): row for row in rows("zhang2019.csv")}
    for network in {row["network"] for row in rows("zhang2019.csv")}:
        cells = [
            "{:.1f} ({:.1f} to {:.1f})".format(
                *(float(found[network, number][key]) for key in ("value", "low", "high"))
            )
            for number in ("acc", "consistency", "consistency_of_correct", "consistency_corrected")
        ]
        assert f"| {network} | {' | '.join(cells)} |" in page


@pytest.mark.parametrize("generator", ["fourier", "central", "forward"])
def test_the_table_of_the_lie_derivative_is_that_of_the_runs(generator):
    page = (EXPERIMENTS / "own.md").read_text()
    [line] = [line for line in page.splitlines() if line.startswith(f"| `{generator}`")]
    found = {row["number"]: row for row in rows("lie_derivative.csv") if row["what"] == generator}
    for number, digits in (("lie", 3), ("lie_median", 3), ("lie_logits", None), ("lie_logits_median", None)):
        value = float(found[number]["value"])
        digits = digits if digits is not None else 1 if value < 100 else 0
        assert f"{value:.{digits}f}" in line


def test_shares_of_layers_are_those_of_the_runs():
    page = (EXPERIMENTS / "own.md").read_text()
    layers = {row["what"]: float(row["value"]) for row in rows("lie_derivative.csv") if row["number"] == "lie_layers"}
    whole = sum(layers.values())
    for title, parts in (("first convolution and its ReLU", ("conv1", "bn1", "relu")), ("first stage", ("layer1",)),
                         ("second stage", ("layer2",)), ("third stage", ("layer3",))):  # fmt: skip
        share = sum(value for name, value in layers.items() if name.startswith(parts))
        [line] = [line for line in page.splitlines() if line.startswith(f"| {title}")]
        assert f"| {share:.0f}" in line
        assert f"{100 * share / whole:.0f}%" in line
