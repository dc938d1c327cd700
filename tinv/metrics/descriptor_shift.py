"""How descriptors change, and how well they still match, when one of two patches is moved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tinv.deprecation import renamed
from tinv.errors import TinvError
from tinv.metrics.base import ReportedMetric, Unit, panels
from tinv.translation import TranslateMode, draw_offsets, translate
from tinv.utils.arguments import AtLeastTwo, PositiveInt, Seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIRECTIONS = [(x, y) for y in (-1, 0, 1) for x in (-1, 0, 1) if x or y]


class DescriptorShift(ReportedMetric):
    """Distance between descriptors of a patch and of itself moved, and matching accuracy, at offsets 0..offset_range.

    Of pairs of patches of one point the second patch is moved, by so many pixels along one of eight directions, the
    same for all offsets of a pair. On the zero canvas the patch's mean comes in, since the patches are normalised.

    Reported:
        - `NAME_acc_S` (percent, 0 to 100): first patches whose nearest descriptor, among the second patches of all
          pairs, each moved by S pixels, is that of their own pair; for S = 0, half of offset_range and offset_range.
        - `NAME_distance_S` (ratio, 0 to 2): mean distance between the descriptors of a patch and of itself moved by S
          pixels; for S = 1, half of offset_range and offset_range.

    Formula:
        `NAME_distance_S = 1 / N * sum over patches x of |f(T x) - f(x)|`, for the unit vectors f, N pairs, and T the
        shift of each patch by S pixels.

    Source:
        tinv.

    Args:
        offset_range: Largest offset in pixels of what the network sees.
        mode: `zero` or `circular`.
        pairs: Number of pairs that are used, from the beginning of the list: those of one point among its first
            2 x pairs, one a point.
        seed: Seed of the directions.
        name: Name under which results are reported.
    """

    unit: Unit | None = "percent"
    units: ClassVar[Mapping[str, Unit]] = {"_distance": "ratio"}

    @renamed(max_shift="offset_range", motion="mode")
    def __init__(
        self,
        offset_range: PositiveInt = 8,
        mode: TranslateMode = "zero",
        pairs: AtLeastTwo = 500,
        seed: Seed = 0,
        name: str = "shift",
    ) -> None:
        super().__init__()
        self.offset_range, self.mode, self.pairs, self.seed, self.name = offset_range, mode, pairs, seed, name
        self.add_rows("first", "moved", "points", "index")

    def update(
        self, describe: Callable[[Tensor], Tensor], first: Tensor, second: Tensor, target: Tensor, index: Tensor
    ) -> None:
        """Adds a batch.

        Args:
            describe: Function that maps patches (N, C, H, W) to unit vectors (N, F).
            first: (N, F) descriptors of the first patches.
            second: (N, C, H, W) second patches, normalised.
            target: (N,) the point that both show, -1 if they show different ones.
            index: (N,) sample indices of the pairs in their list.
        """
        selected = (target >= 0) & (index < 2 * self.pairs)
        patches, numbers = second[selected], index[selected]
        # a batch without such pairs counts as none, in the right shape, for a process that sees no others
        moved = first.new_zeros(0, self.offset_range + 1, first.shape[1])
        if len(patches):
            ways = torch.tensor(DIRECTIONS, device=index.device)
            ways = ways[draw_offsets(numbers, len(DIRECTIONS), self.seed)[:, 0]]
            shifted = [describe(translate(patches, by * ways, self.mode)) for by in range(self.offset_range + 1)]
            moved = torch.stack(shifted, dim=1)
        self.append(first=first[selected].float(), moved=moved.float(), points=target[selected], index=numbers)

    def curves(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns matching accuracy in percent and mean distance for each offset: two arrays (offset_range + 1,)."""
        first, moved, points, index = map(self.gathered, ("first", "moved", "points", "index"))
        if not len(first):
            raise TinvError(
                f"metric {self.name}: no pair of one point among the first {2 * self.pairs} test pairs; raise its pairs"
            )
        order = index.argsort()
        # one pair a point: two patches of one point in the pool would make a right answer count as wrong
        _, once = np.unique(points[order].cpu().numpy(), return_index=True)
        chosen = order[torch.from_numpy(np.sort(once)).to(order.device)]
        first, moved = first[chosen], moved[chosen]
        right = torch.arange(len(first), device=first.device)
        # one descriptor that is not finite makes every nearest one undefined
        finite = first.isfinite().all() & moved.isfinite().flatten(2).all(dim=2).all(dim=0)
        defined = torch.where(finite, 0.0, torch.nan).double()
        offsets = range(self.offset_range + 1)
        accuracy = [(first @ moved[:, by].T).argmax(dim=1).eq(right) + defined[by] for by in offsets]
        distance = [torch.linalg.vector_norm(moved[:, by] - moved[:, 0], dim=1) for by in offsets]
        means = [torch.stack(values).double().mean(dim=1).cpu().numpy() for values in (accuracy, distance)]
        return 100 * means[0], means[1]

    def compute(self) -> dict[str, Tensor]:
        """Returns the accuracies and distances that are reported."""
        accuracy, distance = self.curves()
        half, last = self.offset_range // 2, self.offset_range
        found = {f"{self.name}_acc_{by}": accuracy[by] for by in sorted({0, half, last})}
        found |= {f"{self.name}_distance_{by}": distance[by] for by in sorted({1, half, last} - {0})}
        return {key: torch.tensor(float(value), dtype=torch.float64) for key, value in found.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns both curves, as `acc` and `distance`, over the offsets `shifts`."""
        accuracy, distance = self.curves()
        return {"shifts": np.arange(self.offset_range + 1), "acc": accuracy, "distance": distance}

    def plot(self, ax: Any = None) -> tuple[Figure, Any]:
        """Draws both curves side by side; see ReportedMetric.plot."""
        figure, panel = panels(ax, 2, figsize=(8, 3.4), dpi=130)
        labels = (("matching accuracy (%)", 105), ("descriptor distance", None))
        for axes, values, (label, top) in zip(panel, self.curves(), labels, strict=True):
            axes.plot(range(self.offset_range + 1), values, marker="o")
            axes.set(xlabel="shift of one patch (pixels)", ylabel=label, ylim=(0, top))
            axes.spines[["top", "right"]].set_visible(False)
        return figure, panel
