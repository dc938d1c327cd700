"""The picture of a network's layers: how the error of shifting grows with depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tinv.metrics.layer_equivariance import LayerError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def layer_profile(errors: Sequence[LayerError], shift: int, title: str) -> Figure:
    """Draws each layer's relative equivariance error over its depth, coloured by stride."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, 0.09 * len(errors) + 3), 4), layout="constrained")
    axes = figure.subplots()
    strides = sorted({error.stride for error in errors})
    for number, stride in enumerate(strides):
        places = [place for place, error in enumerate(errors) if error.stride == stride]
        values = [errors[place].error for place in places]
        axes.plot(places, values, "o", markersize=4, color=f"C{number}", label=f"stride {stride}")
    axes.plot([error.error for error in errors], color="grey", linewidth=0.6, zorder=0)
    step = max(1, len(errors) // 16)
    axes.set_xticks(range(0, len(errors), step), [errors[n].layer for n in range(0, len(errors), step)], rotation=90)
    axes.tick_params(axis="x", labelsize=7)
    axes.set(ylabel="relative error", title=f"{title}: shifting by {shift} pixels before and after each layer")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
