"""A picture of the shares of an attribution."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _plain(text: str) -> str:
    """Returns a text in which a dollar sign begins no formula."""
    return text.replace("$", r"\$")
