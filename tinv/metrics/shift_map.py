"""What maps over a window of shifts have in common: what is counted, reported, written and drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tinv.errors import TinvError
from tinv.metrics.answers import cosine_similarity, undefined_unless_finite
from tinv.metrics.base import InvarianceMetric, Unit, panels
from tinv.metrics.views import bootstrap_means, with_ends
from tinv.nn.padding import pad
from tinv.translation import CAMERA_SCALE, WINDOWS, WRAPS, ShiftMode, reduce_camera

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {"acc": "accuracy (%)", "consistency": "same answer as unmoved (%)", "mcs": "mean cosine similarity"}


MAPS = ("acc", "consistency", "mcs")


@dataclass(frozen=True)
class ShiftAxis:
    """One axis of a map.

    Attributes:
        symbol: Symbol of the shift, such as dx.
        unit: Unit of the shift: pixels or frames.
        shifts: Shifts that are tried, rising, 0 among them.
        key: Name of the array that holds them.
        dim: Axis of the images or clips that is shifted.
    """

    symbol: str
    unit: str
    shifts: list[int]
    key: str
    dim: int

    @property
    def margin(self) -> int:
        """The largest shift."""
        return self.shifts[-1]

    @property
    def edges(self) -> tuple[float, float]:
        """The lower end of the first shift and the upper end of the last one, in a picture."""
        half = (self.shifts[1] - self.shifts[0]) / 2 if len(self.shifts) > 1 else 0.5
        return self.shifts[0] - half, self.shifts[-1] + half

    @property
    def ticks(self) -> list[int]:
        """The shifts, or every so many of them, 0 among them."""
        middle = self.shifts.index(0)
        step = -(-len(self.shifts) // 9)
        return self.shifts[middle % step :: step]


def window_of(largest: int, step: int, keys: tuple[str, str] = ("max_shift", "step")) -> list[int]:
    """Returns the shifts from -largest to largest, `step` apart; TinvError, naming the keys, if 0 is not among them."""
    if largest % step:
        raise TinvError(f"{keys[0]}={largest} must be a multiple of {keys[1]}={step}")
    return list(range(-largest, largest + 1, step))


class ShiftMap(InvarianceMetric):
    """Base of the maps over a window of shifts.

    Maps have the shape (rows, columns), from the most negative shift on: `acc` and `consistency` (with the answer to
    what is not moved) in percent, `mcs`, the mean cosine similarity of the output vectors, in -1..1. A shift is NaN
    where an answer is not finite.

    The means over a window have bootstrap intervals over what is moved (`_low`, `_high`); the worst shift of a map has
    none, since the percentiles of a minimum do not cover it.

    Args:
        rows: Shifts along the first axis.
        columns: Shifts along the second axis.
        mode: How what is moved is moved; what is cropped is larger by the largest shift a side.
        what: Plural of what is moved, for titles.
        seed: Seed of the bootstrap.
    """

    unit: Unit | None = "percent"
    units: ClassVar[Mapping[str, Unit]] = {"/mcs": "cosine"}

    def __init__(self, rows: ShiftAxis, columns: ShiftAxis, mode: ShiftMode, what: str, seed: int) -> None:
        super().__init__()
        self.rows, self.columns, self.mode, self.what, self.seed = rows, columns, mode, what, seed
        self.add_rows("index", "means", "known")
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

    @property
    def views(self) -> int:
        """Passes through the network that an image costs."""
        return len(self._phases(None))

    def move(
        self,
        network: nn.Module,
        images: Tensor,
        logits: Tensor,
        targets: Tensor,
        index: Tensor,
        together: int = 1,
        units: tuple[int, int] | None = None,
    ) -> None:
        """Adds the answers to a batch at every shift, see InvarianceMetric.update.

        Args:
            network: Maps what is moved to (N, classes).
            images: What is moved, (N, C, ...).
            logits: (N, classes).
            targets: (N,).
            index: (N,) sample indices.
            together: Shifts a pass.
            units: Along each axis of the map the shift by whose multiples answers are known not to change: shifts that
                differ by them are run once. None runs all.
        """
        groups, windows_of = self._phases(units), self.windows()
        sums = torch.zeros(len(windows_of), len(MAPS), len(images), dtype=torch.float64, device=images.device)
        # a process without images has no rows, but as wide as those of the others
        for added, positions in self._answers(network, images, logits, targets, groups, together, units is not None):
            for number, window in enumerate(windows_of.values()):
                inside = [place for place, position in enumerate(positions) if window[position]]
                sums[number] += added[:, inside].sum(dim=1)
        sizes = torch.tensor([int(window.sum()) for window in windows_of.values()], device=images.device)
        means = (sums / sizes[:, None, None]).flatten(0, 1).T
        self.append(index=index, means=means, known=targets >= 0)
        self.count += len(targets)
        self.labelled += (targets >= 0).sum()

    def _answers(
        self,
        network: nn.Module,
        images: Tensor,
        logits: Tensor,
        targets: Tensor,
        groups: list[list[tuple[int, int]]],
        together: int,
        proven: bool,
    ) -> Iterator[tuple[Tensor, list[tuple[int, int]]]]:
        """Adds the answers at every shift; yields `MAPS` of some of them, (3, positions, N), and the positions."""
        margins = {axis.dim: axis.margin for axis in (self.rows, self.columns)}
        widths = [(margins.get(dim, 0),) * 2 for dim in range(2, images.dim())]
        # padded once; every shift is then a window of it, cut without arithmetic
        padded = self._padded(images, widths)
        for start in range(0, len(groups) if len(images) else 0, together):
            part = groups[start : start + together]
            windows = [self._window(padded, same[0]) for same in part]
            moved = network(torch.cat(windows) if len(windows) > 1 else windows[0]).view(len(part), len(images), -1)
            if proven:
                repeats = torch.tensor([len(same) for same in part], device=moved.device)
                moved = moved.repeat_interleave(repeats, dim=0)
            positions = [position for same in part for position in same]
            yield self.add(positions, moved, logits, targets), positions

    def _phases(self, units: tuple[int, int] | None) -> list[list[tuple[int, int]]]:
        """Returns the positions of the map, those together whose shifts differ by multiples of `units`."""
        positions = product(range(len(self.rows.shifts)), range(len(self.columns.shifts)))
        if units is None:
            return [[position] for position in positions]
        found: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for row, column in positions:
            phase = self.rows.shifts[row] % units[0], self.columns.shifts[column] % units[1]
            found.setdefault(phase, []).append((row, column))
        return list(found.values())

    def _padded(self, images: Tensor, widths: list[tuple[int, int]]) -> Tensor:
        if self.mode in WINDOWS:
            return images
        if self.mode == "mean":
            colour = images.mean(dim=tuple(range(2, images.dim())), keepdim=True)
            return pad(images - colour, widths) + colour
        return pad(images, widths, "circular" if self.mode in WRAPS else "zero")

    def _window(self, padded: Tensor, position: tuple[int, int]) -> Tensor:
        scale = CAMERA_SCALE if self.mode == "camera" else 1
        for axis, number in zip((self.rows, self.columns), position, strict=True):
            length = padded.shape[axis.dim] - 2 * scale * axis.margin
            padded = padded.narrow(axis.dim, scale * (axis.margin - axis.shifts[number]), length)
        return reduce_camera(padded) if self.mode == "camera" else padded

    def add(self, positions: list[tuple[int, int]], moved: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        """Adds the answers at some positions of the map, and returns `MAPS` of them, (3, positions, N).

        Args:
            positions: (row, column) of each.
            moved: (positions, N, classes), the answers to what was moved.
            logits: (N, classes), those to the same not moved.
            targets: (N,) classes, -1 for those that are not known.
        """
        rows, columns = (torch.tensor(axis, device=moved.device) for axis in zip(*positions, strict=True))
        answers = moved.argmax(dim=2)
        found = torch.stack(
            [
                undefined_unless_finite(answers == targets, moved),
                undefined_unless_finite(answers == logits.argmax(dim=1), moved, logits),
                cosine_similarity(moved, logits.expand_as(moved)),
            ]
        ).double()
        for state, values in zip((self.correct, self.agree, self.cosine), found.sum(dim=2), strict=True):
            state[rows, columns] += values
        return found

    def windows(self) -> dict[str, np.ndarray]:
        """Returns the parts of the map whose means are reported, bool (rows, columns), by how their keys end."""
        return {"": np.ones((len(self.rows.shifts), len(self.columns.shifts)), dtype=bool)}

    def compute(self) -> dict[str, Tensor]:
        """Returns the mean of each map over each part of the map, with the ends of its bootstrap interval."""
        maps, rows = self.maps(), self._rows()
        found: dict[str, Tensor] = {}
        for number, (end, window) in enumerate(self.windows().items()):
            for key, values in maps.items():
                inside = values[torch.from_numpy(window).to(values.device)]
                column = rows[key][:, number : number + 1]
                draws = bootstrap_means(column, self.seed)[:, 0] if len(column) else np.empty(0)
                found |= with_ends(f"{self.name}/{key}{end}", float(inside.mean()), draws)
        return found

    def _rows(self) -> dict[str, np.ndarray]:
        """Returns of each map the means (moved, parts of the map), in order of the sample indices."""
        count = len(self.windows())
        if not len(self.gathered("index")):
            return dict.fromkeys(MAPS, np.empty((0, count)))
        means, known = self.ordered("means"), self.ordered("known").astype(bool)
        by_map = means.reshape(len(means), count, len(MAPS)).transpose(2, 0, 1)
        correct, agree, cosine = by_map
        return {"acc": 100 * correct[known], "consistency": 100 * agree, "mcs": cosine}

    def maps(self) -> dict[str, Tensor]:
        """Returns `acc` (of the images that have a class, if any), `consistency` and `mcs`, each (rows, columns)."""
        found = {"consistency": 100 * self.agree / self.count, "mcs": self.cosine / self.count}
        return {"acc": 100 * self.correct / self.labelled, **found} if self.labelled else found

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the maps, the shifts along both axes and the `count` of what was moved."""
        maps = {key: values.cpu().numpy() for key, values in self.maps().items()}
        shifts = {axis.key: np.array(axis.shifts) for axis in (self.rows, self.columns)}
        return {**maps, **shifts, "count": np.array(int(self.count))}

    def plot(self, ax: Any = None) -> tuple[Figure, Any]:
        """Draws the maps side by side, one colour scale each; see ReportedMetric.plot."""
        maps, rows, columns = self.maps(), self.rows, self.columns
        figure, panel = panels(ax, len(maps), figsize=(4.4 * len(maps), 4), dpi=120)
        # downwards is positive: a map over two axes of space lies as the images do
        extent = (*columns.edges, *reversed(rows.edges))
        aspect = "equal" if rows.unit == columns.unit else "auto"
        for axes, (key, values) in zip(panel, maps.items(), strict=True):
            image = axes.imshow(values.cpu().numpy(), extent=extent, cmap="viridis", aspect=aspect)
            axes.set(title=TITLES[key], xticks=columns.ticks, yticks=rows.ticks)
            axes.set(xlabel=f"{columns.symbol} ({columns.unit})", ylabel=f"{rows.symbol} ({rows.unit})")
            figure.colorbar(image, ax=axes, shrink=0.85)
        if ax is None:
            figure.suptitle(f"{int(self.count)} {self.what} moved by ({columns.symbol}, {rows.symbol})")
        return figure, panel
