"""A figure of training: how far apart do a network's numbers on training and validation data come?"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinv.errors import TinvError
from tinv.report.collect import RunGroup, order
from tinv.utils.io import read_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUANTITIES = {"acc": "accuracy (%)", "loss": "loss"}
"""What is drawn, the first that was logged in validation, and what the axis says."""

MOST_PANELS, MOST_LINES = 12, 8


def training_curves(groups: Sequence[RunGroup], title: str) -> Figure | None:
    """Draws accuracy over epochs, dashed in training and whole in validation, a colour a policy, a panel for all else.

    As Kayhan & van Gemert (2020, section 5.2) show how far networks overfit. Lines are means over seeds, as far as all
    seeds of the group went, with a band of one standard deviation. What tells groups apart by a word (padding,
    subsampling, axes) makes lines; data sets, numbers and names of networks make panels.

    None if no group has two epochs, or there would be more than 12 panels or 8 lines in one.
    """
    from matplotlib.figure import Figure

    tables = {id(group): [table for run in group.finished if (table := read_metrics(run.path))] for group in groups}
    groups = [group for group in groups if any(len(next(iter(table.values()))) > 1 for table in tables[id(group)])]
    logged = {column for group in groups for table in tables[id(group)] for column in table}
    quantity = next((name for name in QUANTITIES if f"val/{name}" in logged), None)
    if quantity is None:
        return None
    across = [key for key in groups[0].setting if _makes_panels(key, groups)]
    panels: dict[str, list[RunGroup]] = {}
    for group in sorted(groups, key=lambda group: [order(group.setting[key]) for key in across]):
        panels.setdefault(_name(group, across), []).append(group)
    if len(panels) > MOST_PANELS or max(map(len, panels.values())) > MOST_LINES:
        return None
    lines = [key for key in groups[0].setting if key not in across]
    labels = list(dict.fromkeys(_name(group, lines) for group in groups))
    wide = min(4, len(panels))
    high = math.ceil(len(panels) / wide)
    figure = Figure(figsize=(3.8 * wide + 1.8, 3.1 * high + 0.5), layout="constrained")
    grid = list(figure.subplots(high, wide, squeeze=False, sharey=True).flat)
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes, (name, row) in zip(grid, panels.items(), strict=False):
        for group in row:
            colour = f"C{labels.index(_name(group, lines))}"
            for part, style in (("train", "--"), ("val", "-")):
                _draw(axes, tables[id(group)], f"{part}/{quantity}", color=colour, linestyle=style)
        axes.set(xlabel="epoch", title=name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in figure.axes[::wide]:
        axes.set_ylabel(QUANTITIES[quantity])
    first = figure.axes[0]
    handles = [first.plot([], [], color=f"C{number}", label=label)[0] for number, label in enumerate(labels) if label]
    handles += [
        first.plot([], [], color="grey", linestyle=style, label=name)[0]
        for name, style in (("training", "--"), ("validation", "-"))
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False)
    figure.suptitle(title)
    return figure


def read_metrics(folder: Path) -> dict[str, list[float]]:
    """Returns the columns of a run's `metrics.csv`; what is not there is nan, and without a table nothing.

    A damaged table is named on stderr and counts as none.
    """
    path = folder / "metrics.csv"
    if not path.exists():
        return {}
    try:
        rows = read_csv(path)
        return {name: [float(row[name] or "nan") for row in rows] for name in rows[0]} if rows else {}
    except (TinvError, ValueError, TypeError) as error:
        reason = str(error) if isinstance(error, TinvError) else f"{path} is damaged ({error})"
        print(f"note: {reason}; its curves are left out", file=sys.stderr)
        return {}


def _makes_panels(key: str, groups: Sequence[RunGroup]) -> bool:
    """Returns whether a key's values are no policy's words: those of data, and numbers."""
    return key.startswith("data.") or any(
        isinstance(group.setting[key], int | float) and not isinstance(group.setting[key], bool) for group in groups
    ) or key.endswith(".backbone")  # fmt: skip


def _name(group: RunGroup, keys: Sequence[str]) -> str:
    """Returns a group's values of some keys: a number with its key, of a class the last word."""
    return ", ".join(_word(key, group.setting[key]) for key in keys)


def _word(key: str, value: Any) -> str:
    last = key.rpartition(".")[2]
    return str(value).rpartition(".")[2] if isinstance(value, str) else f"{last} {'all' if value is None else value}"


def _draw(axes: Any, tables: Sequence[dict[str, list[float]]], column: str, **style: str) -> None:
    seeds = [table[column] for table in tables if column in table]
    if not seeds:
        return
    points = [
        (epoch, statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)
        for epoch, values in enumerate(zip(*seeds, strict=False), 1)
        if not any(map(math.isnan, values))
    ]
    if not points:
        return
    epochs, means, spread = zip(*points, strict=True)
    axes.plot(epochs, means, linewidth=1.3, **style)
    low, high = ([m + sign * s for m, s in zip(means, spread, strict=True)] for sign in (-1, 1))
    axes.fill_between(epochs, low, high, color=style["color"], alpha=0.15, linewidth=0)
