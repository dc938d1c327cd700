"""The look that all figures share: colors, sizes, and rows of cells with numbers in them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

WIDTH = 4.0
"""Inches: shown 390 pixels wide, a letter of 9 points is 12 pixels high."""
BLUE, ORANGE, GREEN, GRAY = "#3b6ea5", "#c8702a", "#3f8f5f", "#777777"
PALE_BLUE, PALE_ORANGE, WHITE = "#cfe0f2", "#f7d9c0", "#ffffff"

LOOK: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": WHITE,
    "svg.hashsalt": "tinv",  # the same drawing is the same file
}
"""What differs from matplotlib's own defaults, while a figure is drawn and saved."""


def new(height: float, columns: int = 1, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """Returns a figure of the common width and its axes, row by row."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def cells(axes: Axes, values: Sequence[float], row: float, colors: Sequence[str], first: float = 0) -> None:
    """Draws numbers in a row of unit cells.

    Args:
        axes: Axes to draw into; see `frame`.
        values: Numbers, one a cell.
        row: Upper end of the cells.
        colors: Color of each cell.
        first: Left end of the first cell.
    """
    for number, (value, color) in enumerate(zip(values, colors, strict=True)):
        axes.add_patch(Rectangle((first + number, row), 1, 1, facecolor=color, edgecolor=GRAY, linewidth=0.8))
        axes.text(first + number + 0.5, row + 0.53, f"{value:g}", ha="center", va="center")


def frame(axes: Axes, left: float, right: float, bottom: float) -> None:
    """Shows unit cells as squares, rows counted downwards from 0, without any axis."""
    axes.set(xlim=(left, right), ylim=(bottom, 0), aspect="equal")
    axes.axis("off")


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as SVG."""
    figure.savefig(path, metadata={"Date": None})
