"""The numbers of a measurement with their intervals: as texts, as a table, as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDS = ("_low", "_high")
AXES = {"percent": "percent", "cosine": "cosine similarity", "ratio": "relative error", "pixels": "pixels"}
"""What stands below the axis of each unit, where it is more than the unit's name."""


@dataclass(frozen=True)
class Number:
    """A number that was measured.

    Attributes:
        name: Its key in `metrics`.
        value: The number.
        interval: Ends (low, high) of its 95% bootstrap interval; None if it has none.
        unit: As the metric declares it, such as percent; empty if it declares none.
    """

    name: str
    value: float
    interval: tuple[float, float] | None
    unit: str

    def write(self, value: float) -> str:
        """Returns a value with as many digits as the unit has: 1 for percent, 3 for others."""
        return f"{value:.{1 if self.unit == 'percent' else 3}f}"

    @property
    def text(self) -> str:
        """The number as people write it."""
        return self.write(self.value)

    @property
    def ends(self) -> str:
        """The ends of the interval as people write them; empty if there is none."""
        return f"{self.write(self.interval[0])} .. {self.write(self.interval[1])}" if self.interval else ""


def numbers_of(metrics: Mapping[str, Any], units: Mapping[str, str]) -> list[Number]:
    """Returns the numbers of a measurement that are finite, in their order.

    Args:
        metrics: Numbers by name, with `NAME_low` and `NAME_high` the ends of intervals.
        units: Unit of each, by name.

    Examples:
        >>> [number] = numbers_of({"acc": 61.25, "acc_low": 50.0, "acc_high": 72.5}, {"acc": "percent"})
        >>> number.text, number.ends
        ('61.2', '50.0 .. 72.5')
    """
    finite = {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
    found = []
    for name, value in finite.items():
        if any(name.endswith(end) and name.removesuffix(end) in finite for end in ENDS):
            continue
        low, high = (finite.get(f"{name}{end}") for end in ENDS)
        interval = None if low is None or high is None else (low, high)
        found.append(Number(name, value, interval, str(units.get(name) or "")))
    return found


def numbers_table(numbers: Sequence[Number]) -> pandas.DataFrame:
    """Returns a row a number, with the columns name, value, low, high and unit; NaN where there is no interval."""
    import pandas

    ends = [number.interval or (math.nan, math.nan) for number in numbers]
    columns = {"name": [n.name for n in numbers], "value": [n.value for n in numbers]}
    columns |= {"low": [low for low, _ in ends], "high": [high for _, high in ends]}
    return pandas.DataFrame({**columns, "unit": [n.unit for n in numbers]})


def numbers_figure(numbers: Sequence[Number]) -> Figure:
    """Draws every number as a dot with its interval: those of one unit on one axis, percentages from 0 to 100.

    Args:
        numbers: At least one.
    """
    from matplotlib.figure import Figure

    by_unit: dict[str, list[Number]] = {}
    for number in sorted(numbers, key=lambda number: number.unit != "percent"):
        by_unit.setdefault(number.unit, []).append(number)
    heights = [len(some) + 2.2 for some in by_unit.values()]  # with room for the axis below
    figure = Figure(figsize=(5.4, 0.27 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(by_unit), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, (unit, some) in zip(panels, by_unit.items(), strict=True):
        dots(axes, [number.name for number in some], some)
        axes.set_xlabel(AXES.get(unit, unit or "no unit"))
        if unit == "percent":
            within = all(0 <= value <= 100 for n in some for value in (n.value, *(n.interval or ())))
            axes.set_xlim((-2, 102) if within else None)
        else:
            axes.locator_params(axis="x", nbins=4)
    return figure


def dots(axes: Axes, names: Sequence[str], numbers: Sequence[Number | None]) -> None:
    """Draws a dot with its interval in each line, from the top down; nothing where there is no number.

    Args:
        axes: To draw into.
        names: What stands at each line.
        numbers: The number of each line.
    """
    for line, number in enumerate(numbers):
        if number is None:
            continue
        low, high = number.interval or (number.value, number.value)
        axes.plot([low, high], [line, line], color="C0", linewidth=2, alpha=0.45, solid_capstyle="butt")
        axes.plot([number.value], [line], "o", color="C0", markersize=5)
    axes.set_yticks(range(len(names)), [name.replace("$", r"\$") for name in names], fontsize=9)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="both", color="0.9", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False, labelsize=9)
