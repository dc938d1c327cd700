"""Pictures of what a measurement holds beyond numbers: shares of an attribution, and curves over shifts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES = {
    "robust_acc": "right at every shift",
    "never_changed": "one answer at every shift",
    "consistency": "same answer",
}
"""What the curves over the radius of a ring are called."""
WIDTH = 6.2
"""Inches, at which a picture can be read on a phone."""


def shares_figure(shares: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Figure:
    """Draws a bar for each order of an attribution, stacked of the shares; one below 0 lies left of the axis.

    Args:
        shares: By order, such as `padding first`, the `value` of each part in percentage points of the pairs, with the
            ends `low` and `high` of its interval.
    """
    from matplotlib.figure import Figure

    parts = list(dict.fromkeys(part for one in shares.values() for part in one))
    figure = Figure(figsize=(WIDTH, 1.1 + 0.75 * len(shares)), layout="constrained")
    axes = figure.subplots()
    for line, one in enumerate(shares.values()):
        right = left = 0.0
        for part, share in one.items():
            value = _number(share.get("value"))
            if value is None:
                continue
            begin = right if value >= 0 else left
            color = f"C{parts.index(part)}"
            axes.barh(line, value, left=begin, height=0.6, color=color, alpha=0.6)
            axes.text(begin + value / 2, line, f"{value:.1f}", ha="center", va="center", fontsize=9)
            right, left = (right + value, left) if value >= 0 else (right, left + value)
    for number, part in enumerate(parts):
        axes.bar(0, 0, color=f"C{number}", alpha=0.6, label=_plain(part))
    axes.set_yticks(range(len(shares)), [_plain(order) for order in shares])
    axes.set_ylim(len(shares) - 0.5, -0.5)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("inconsistent pairs (percentage points)")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    figure.legend(loc="outside upper center", ncols=len(parts), frameon=False)
    return figure


def ring_figure(ring: Mapping[str, Any]) -> Figure:
    """Draws curves over the radius within which images are moved, with their intervals.

    Args:
        ring: `radius` in pixels, and numbers in percent over it by name, with NAME_low and NAME_high.
    """
    figure, axes = _axes()
    radius = list(ring["radius"])
    for number, (name, label) in enumerate((n, text) for n, text in CURVES.items() if ring.get(n)):
        ends = (ring.get(f"{name}_low"), ring.get(f"{name}_high"))
        _curve(axes, radius, ring[name], ends, f"C{number}", label)
    axes.set(xlabel="radius: every shift of at most so many pixels", ylabel="images (%)")
    axes.legend(frameon=False, fontsize=9)
    return figure


def comb_figure(comb: Mapping[str, Any]) -> Figure:
    """Draws the consistency over what is left of a shift after whole strides; aliasing makes it a comb.

    Args:
        comb: `stride` in pixels, `residue` 0 to stride - 1, `consistency` in percent with its ends `low` and `high`.
    """
    figure, axes = _axes()
    _curve(axes, comb["residue"], comb["consistency"], (comb.get("low"), comb.get("high")), "C0", "")
    axes.set(xlabel=f"shift modulo the total stride of {comb.get('stride')} pixels", ylabel="consistency (%)")
    return figure


def _axes() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", linewidth=0.7)
    return figure, axes


def _curve(
    axes: Axes, x: Sequence[float], values: Sequence[Any], ends: tuple[Any, Any], color: str, label: str
) -> None:
    low, high = ends
    axes.plot(x, _defined(values), "o-", color=color, markersize=4, linewidth=1.4, label=label or None)
    if low and high:
        axes.fill_between(x, _defined(low), _defined(high), color=color, alpha=0.18, linewidth=0)


def _defined(values: Sequence[Any]) -> list[float]:
    return [math.nan if (number := _number(value)) is None else number for value in values]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _plain(text: str) -> str:
    """Returns a text in which a dollar sign begins no formula."""
    return text.replace("$", r"\$")
