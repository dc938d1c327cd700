"""Pictures of finished runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tinv.report.collect import Cell
from tinv.report.published import written

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def accuracy_bars(cells: Sequence[Cell], title: str) -> Figure | None:
    """Draws the accuracy on each test set of each cell, with its spread over seeds and the published value.

    The two-bar chart of Kayhan & van Gemert (2020) for Red-Green. None if there is only one test set.
    """
    from matplotlib.figure import Figure

    prefix = "test/acc/"
    sets = [metric.removeprefix(prefix) for metric in cells[0].values if metric.startswith(prefix)]
    if len(sets) < 2:
        return None
    figure = Figure(figsize=(1.6 + 1.5 * len(cells), 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(sets)
    for number, name in enumerate(sets):
        metric = prefix + name
        places = [cell - 0.4 + width * (number + 0.5) for cell in range(len(cells))]
        means = [cell.mean(metric) for cell in cells]
        spread = [cell.std(metric) or 0 for cell in cells]
        axes.bar(places, means, width * 0.94, yerr=spread, capsize=3, label=name, color=f"C{number}")
        known = [cell.published.get(metric) for cell in cells]
        for place, mean, above, value in zip(places, means, spread, known, strict=True):
            top = max(mean + above, value.mean if value else 0)
            axes.text(place, top + 1.5, f"{mean:.1f}", ha="center", fontsize=9)
            if value:
                axes.plot([place - 0.45 * width, place + 0.45 * width], [value.mean] * 2, color="black", linewidth=2)
    axes.set_xticks(range(len(cells)), [describe(cell) for cell in cells])
    axes.set(ylabel="accuracy (%)", ylim=(0, 112), title=title)
    axes.axhline(50, color="grey", linewidth=0.8, linestyle=":")
    axes.spines[["top", "right"]].set_visible(False)
    if any(cell.published for cell in cells):
        axes.plot([], [], color="black", linewidth=2, label="published")
    axes.legend(title="test set", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def grid_maps(cells: Sequence[Cell], title: str) -> Figure | None:
    """Draws the mean cosine similarity and the accuracy of a grid of two numbers, such as kernel size and factor.

    The tables of Mouton et al. (2020) as heat maps; published values stand in brackets. None unless the cells differ in
    two numeric keys. Cells that were not run are left white.
    """
    from matplotlib.figure import Figure

    keys = list(cells[0].setting)
    numbers = [value for cell in cells for value in cell.setting.values()]
    if len(keys) != 2 or not all(isinstance(value, int | float) for value in numbers):
        return None
    down, across = (sorted({cell.setting[key] for cell in cells}) for key in keys)
    titles = {"test/mcs": "mean cosine similarity", "test/acc": "test accuracy (%)"}
    shown = {metric: name for metric, name in titles.items() if metric in cells[0].values}
    if not shown:
        return None
    figure = Figure(figsize=(4.6 * len(shown), 4.2), layout="constrained")
    for axes, (metric, name) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        values = [[float("nan")] * len(across) for _ in down]
        for cell in cells:
            row, column = down.index(cell.setting[keys[0]]), across.index(cell.setting[keys[1]])
            values[row][column] = cell.mean(metric)
        image = axes.imshow(values, cmap="viridis")
        low, high = image.get_clim()
        for cell in cells:
            row, column = down.index(cell.setting[keys[0]]), across.index(cell.setting[keys[1]])
            text = written(metric, cell.mean(metric))
            if metric in cell.published:
                text += f"\n({written(metric, cell.published[metric].mean)})"
            dark = cell.mean(metric) < (low + high) / 2
            axes.text(column, row, text, ha="center", va="center", color="white" if dark else "black", fontsize=9)
        axes.set_xticks(range(len(across)), across)
        axes.set_yticks(range(len(down)), down)
        axes.set(title=name, xlabel=keys[1].rpartition(".")[2], ylabel=keys[0].rpartition(".")[2])
    known = any(cell.published for cell in cells)
    figure.suptitle(title + ("  (published in brackets)" if known else ""))
    return figure


def describe(cell: Cell) -> str:
    """Returns the values that tell a cell from the others: `full_zero`, or `kernel_size=2, head=gap`."""
    if len(cell.setting) == 1:
        return str(next(iter(cell.setting.values())))
    return ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in cell.setting.items()) or "all runs"


def save(figure: Figure, path: Path) -> Path:
    """Writes a picture under a temporary name and renames it."""
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    figure.savefig(temporary, dpi=130)
    os.replace(temporary, path)
    return path
