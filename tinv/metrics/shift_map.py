"""What maps over a window of shifts have in common: what is counted, reported, written and drawn."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tinv.metrics.answers import cosine_similarity, undefined_unless_finite
from tinv.metrics.base import InvarianceMetric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {"acc": "accuracy (%)", "consistency": "same answer as unmoved (%)", "mcs": "mean cosine similarity"}


@dataclass(frozen=True)
class ShiftAxis:
    """One axis of a map.

    Attributes:
        symbol: of the shift, such as dx.
        unit: it is counted in.
        shifts: that are tried, rising, 0 among them.
        key: under which they are written.
    """

    symbol: str
    unit: str
    shifts: list[int]
    key: str

    @property
    def edges(self) -> tuple[float, float]:
        """Where the cells of the first and of the last shift end."""
        half = (self.shifts[1] - self.shifts[0]) / 2 if len(self.shifts) > 1 else 0.5
        return self.shifts[0] - half, self.shifts[-1] + half

    @property
    def ticks(self) -> list[int]:
        """The shifts, or every so many of them, 0 among them."""
        middle = self.shifts.index(0)
        step = -(-len(self.shifts) // 9)
        return self.shifts[middle % step :: step]


class ShiftMap(InvarianceMetric):
    """Base of the maps over a window of shifts.

    Maps have the shape (rows, columns), from the most negative shift on: `acc` and `consistency` (with the answer to
    what is not moved) in percent, `mcs`, the mean cosine similarity of the output vectors, in -1..1. A cell is NaN
    where an answer is not finite.

    Args:
        rows: shifts along the first axis.
        columns: along the second.
        what: is moved, for titles.
    """

    def __init__(self, rows: ShiftAxis, columns: ShiftAxis, what: str) -> None:
        super().__init__()
        self.rows, self.columns, self.what = rows, columns, what
        shape = (len(rows.shifts), len(columns.shifts))
        for state in ("correct", "agree", "cosine"):
            self.add_state(state, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        for state in ("count", "labelled"):
            self.add_state(state, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.correct: Tensor
        self.agree: Tensor
        self.cosine: Tensor
        self.count: Tensor
        self.labelled: Tensor

    def finish(self, targets: Tensor) -> None:
        """Counts images whose cells have all been added, by their classes (N,)."""
        self.count += len(targets)
        self.labelled += (targets >= 0).sum()

    def add(self, cells: list[tuple[int, int]], moved: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Adds some cells of the map.

        Args:
            cells: (row, column) of each.
            moved: (cells, N, classes), the answers to what was moved.
            logits: (N, classes), those to the same not moved.
            targets: (N,) classes, -1 for those that are not known.
        """
        rows, columns = (torch.tensor(axis, device=moved.device) for axis in zip(*cells, strict=True))
        answers = moved.argmax(dim=2)
        agree = answers == logits.argmax(dim=1)
        self.correct[rows, columns] += undefined_unless_finite(answers == targets, moved).sum(dim=1)
        self.agree[rows, columns] += undefined_unless_finite(agree, moved, logits).sum(dim=1)
        self.cosine[rows, columns] += cosine_similarity(moved, logits.expand_as(moved)).sum(dim=1)

    def maps(self) -> dict[str, Tensor]:
        """Returns `acc` (of the images that have a class, if any), `consistency` and `mcs`, each (rows, columns)."""
        found = {"consistency": 100 * self.agree / self.count, "mcs": self.cosine / self.count}
        return {"acc": 100 * self.correct / self.labelled, **found} if self.labelled else found

    def save(self, folder: Path, stem: str) -> list[Path]:
        """Writes `STEM.npz` (the maps, the shifts and the count) and `STEM.png` (heat maps) to `folder`."""
        maps = {key: values.cpu().numpy() for key, values in self.maps().items()}
        arrays, picture = folder / f"{stem}.npz", folder / f"{stem}.png"
        temporary = folder / f".{stem}.tmp.npz"
        shifts: dict[str, Any] = {axis.key: np.array(axis.shifts) for axis in (self.rows, self.columns)}
        np.savez(temporary, **maps, **shifts, count=np.array(int(self.count)))  # type: ignore[arg-type]
        os.replace(temporary, arrays)
        temporary = folder / f".{stem}.tmp.png"
        self._draw(maps).savefig(temporary, dpi=120)
        os.replace(temporary, picture)
        return [arrays, picture]

    def _draw(self, maps: dict[str, np.ndarray]) -> Figure:
        """Draws the maps side by side, one colour scale each."""
        from matplotlib.figure import Figure

        rows, columns = self.rows, self.columns
        figure = Figure(figsize=(4.4 * len(maps), 4), layout="constrained")
        # downwards is positive: a map over two axes of space lies as the images do
        extent = (*columns.edges, *reversed(rows.edges))
        aspect = "equal" if rows.unit == columns.unit else "auto"
        for axes, (key, values) in zip(figure.subplots(1, len(maps)), maps.items(), strict=True):
            image = axes.imshow(values, extent=extent, cmap="viridis", aspect=aspect)
            axes.set(title=TITLES[key], xticks=columns.ticks, yticks=rows.ticks)
            axes.set(xlabel=f"{columns.symbol} ({columns.unit})", ylabel=f"{rows.symbol} ({rows.unit})")
            figure.colorbar(image, ax=axes, shrink=0.85)
        figure.suptitle(f"{int(self.count)} {self.what} moved by ({columns.symbol}, {rows.symbol})")
        return figure
