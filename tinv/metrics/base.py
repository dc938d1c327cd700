"""What all measures have in common: rows of every sample, a name, a unit, numbers, arrays and a plot."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from tinv.errors import TinvError
from tinv.utils.arguments import Checked

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Unit = Literal["percent", "cosine", "ratio", "pixels", "per square pixel"]
"""percent: 0 to 100; cosine: -1 to 1; ratio: a part of one, a relative error or a distance; pixels: of the image;
per square pixel: a squared rate of change."""


class RowMetric(Metric):
    """Base of metrics that keep rows of every sample, which are gathered from all processes."""

    full_state_update = False

    def add_rows(self, *states: str) -> None:
        """Adds states that hold rows; called when the metric is made."""
        for state in states:
            self.add_state(state, [], dist_reduce_fx="cat")

    def append(self, **rows: Tensor) -> None:
        """Adds the rows of some samples, tensors (N, ...), to the states of these names."""
        for state, values in rows.items():
            getattr(self, state).append(values)

    def gathered(self, state: str) -> Tensor:
        """Returns all rows of a state; a tensor without any if there are none."""
        rows = getattr(self, state)
        return dim_zero_cat(rows) if len(rows) else torch.empty(0)

    def ordered(self, state: str) -> np.ndarray:
        """Returns all rows of a state in order of the sample indices, which the state `index` holds."""
        rows: np.ndarray = self.gathered(state)[self.gathered("index").argsort()].cpu().numpy()
        return rows


class ReportedMetric(Checked, RowMetric):
    """Base of the metrics that a configuration names: they report numbers, and may hold arrays, which they can draw.

    Attributes:
        unit: Unit of the results; None if the metric declares none.
        units: Units of those results that are counted in another one, by how their keys continue after NAME.
    """

    unit: Unit | None = None
    units: ClassVar[Mapping[str, Unit]] = {}

    @property
    def name(self) -> str:
        """Name of the results, after `test/`, and of the files; one that cannot be that of a file is refused."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        if not name.isprintable() or not name.strip(". ") or "/" in name or "\\" in name or len(name) > 100:
            raise TinvError(
                f"name={name[:120]!r} of {type(self).__name__} cannot be the name of a file; choose letters, digits "
                "and underscores"
            )
        self._name = name

    def unit_of(self, key: str) -> Unit | None:
        """Returns the unit of one of the results, or of an end of its interval.

        Args:
            key: Name of the result, as `compute` returns it.
        """
        return next((unit for end, unit in self.units.items() if key.startswith(f"{self.name}{end}")), self.unit)

    def compute(self) -> dict[str, Tensor]:
        """Returns the numbers to report, each a tensor of one number, by their names (below `test/`)."""
        if type(self).results is ReportedMetric.results:
            # not abstract: a metric written for the last minor version has `results` in its place
            raise NotImplementedError(f"{type(self).__name__} has no method compute")
        warnings.warn(f"{type(self).__name__}.results is now compute", DeprecationWarning, stacklevel=2)
        return self.results()

    def results(self) -> dict[str, Tensor]:
        """Returns what `compute` returns; deprecated."""
        warnings.warn(f"{type(self).__name__}.results is now compute", DeprecationWarning, stacklevel=2)
        return self.compute()

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns what the metric holds beyond the numbers, to be written to a file; nothing by default."""
        return {}

    def plot(self, ax: Any = None) -> tuple[Figure, Any]:
        """Draws the results: the arrays if the metric holds any, else the numbers.

        Args:
            ax: Axes of matplotlib to draw into, one a panel; None makes a figure.

        Returns:
            The figure and its axes, an array of them if there are several.
        """
        figure, axes = panels(ax)
        self._plot(ax=axes)
        return figure, axes


class InvarianceMetric(ReportedMetric):
    """Base of the metrics that compare a network's answers to an image and to the image moved.

    Results depend neither on batch size nor on the number of processes: states are sums over images, or rows of them.

    Attributes:
        canvas_margin: Blank pixels a side that images need so that no content is lost.
        crop_margin: Pixels an axis that images must have beyond what the network sees, for crops of them.
        shift_argument: The argument that decides both margins, for messages.
        max_images: Number of images that are used, the first of the set; None for all.
    """

    canvas_margin: int = 0
    crop_margin: int = 0
    shift_argument: str = "max_shift"
    max_images: int | None = None

    @property
    def views(self) -> int:
        """About how many passes through the network an image costs, for the time that is left of long work."""
        return 1

    def check(self, network: nn.Module, shape: Sequence[int]) -> None:
        """Says before any training whether this can be measured.

        Args:
            network: Network that will be measured.
            shape: (C, H, W) of the images that it sees, (C, T, H, W) of clips.

        Raises:
            TinvError: If it cannot.
        """
        if len(shape) != 3:
            raise TinvError(f"metric {self.name} is for images; use ClipShiftMap for clips")

    @abstractmethod
    def update(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Adds a batch.

        Args:
            network: Network that maps (N, C, H, W) to (N, classes).
            images: (N, C, H, W), not moved.
            logits: (N, classes), the network's output for `images`.
            targets: (N,) classes.
            index: (N,) sample indices of the images in their set, which decide the random shifts.
        """


def first_of(most: int | None, index: Tensor, *batch: Tensor) -> tuple[Tensor, ...]:
    """Returns tensors (N, ...) of the first `most` samples of a set, by their sample indices (N,); all for None."""
    return batch if most is None else tuple(each[index < most] for each in batch)


def panels(ax: Any, count: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Returns a figure and its axes, one or an array of several: the given ones, else those of a new figure in a row.

    Raises:
        TinvError: If `ax` holds another number of axes.
    """
    from matplotlib.figure import Figure

    if ax is None:
        figure = Figure(layout="constrained", **options)
        return figure, figure.subplots(1, count)
    axes = np.ravel(ax)
    if len(axes) != count:
        raise TinvError(f"ax must hold {count} axes, not {len(axes)}")
    return axes[0].get_figure(root=True), axes if count > 1 else axes[0]
