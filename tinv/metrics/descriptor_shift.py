"""How descriptors change, and how well they still match, when one of two patches is moved."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from tinv.errors import TinvError, unknown
from tinv.metrics.answers import MetricName
from tinv.translation import Canvas, draw_offsets, translate

DIRECTIONS = [(x, y) for y in (-1, 0, 1) for x in (-1, 0, 1) if x or y]


class DescriptorShift(Metric):
    """Distance between descriptors of a patch and of itself moved, and matching accuracy, for shifts of 0..max_shift.

    Of pairs of patches of one point the second patch is moved, by so many pixels along one of eight directions, the
    same for all shifts of a pair. On the zero canvas the patch's mean comes in, since the patches are normalised.

    Reported:
        NAME_acc_S: percentage of first patches whose nearest descriptor, among the second patches of all pairs, each
            moved by S pixels, is that of their own pair; for S = 0, half of max_shift and max_shift.
        NAME_distance_S: mean distance between the descriptors of a patch and of itself moved, 0 to 2.

    Args:
        max_shift: largest shift in pixels of what the network sees.
        motion: `zero` or `circular`.
        pairs: taken from the beginning of the list: the pairs of one point among its first 2 x pairs, one a point.
        seed: of the directions.
        name: under which results are reported.
    """

    full_state_update = False
    name = MetricName()

    def __init__(
        self, max_shift: int = 8, motion: Canvas = "zero", pairs: int = 500, seed: int = 0, name: str = "shift"
    ) -> None:
        super().__init__()
        if max_shift < 1:
            raise TinvError(f"max_shift must be 1 pixel or more, not {max_shift}")
        if motion not in get_args(Canvas):
            raise unknown("motion", motion, get_args(Canvas))
        if pairs < 2:
            raise TinvError(f"pairs must be 2 or more, not {pairs}")
        self.max_shift, self.motion, self.pairs, self.seed, self.name = max_shift, motion, pairs, seed, name
        for state in ("first", "moved", "points", "index"):
            self.add_state(state, [], dist_reduce_fx="cat")
        self.first: list[Tensor] | Tensor
        self.moved: list[Tensor] | Tensor
        self.points: list[Tensor] | Tensor
        self.index: list[Tensor] | Tensor

    def update(
        self, describe: Callable[[Tensor], Tensor], first: Tensor, second: Tensor, target: Tensor, index: Tensor
    ) -> None:
        """Adds a batch.

        Args:
            describe: maps patches (N, C, H, W) to unit vectors (N, F).
            first: (N, F) descriptors of the first patches.
            second: (N, C, H, W) second patches, normalised.
            target: (N,) the point that both show, -1 if they show different ones.
            index: (N,) the pairs' numbers in their list.
        """
        wanted = (target >= 0) & (index < 2 * self.pairs)
        patches, numbers = second[wanted], index[wanted]
        # a batch without such pairs counts as none, in the right shape, for a process that sees no others
        moved = first.new_zeros(0, self.max_shift + 1, first.shape[1])
        if len(patches):
            ways = torch.tensor(DIRECTIONS, device=index.device)
            ways = ways[draw_offsets(numbers, len(DIRECTIONS), self.seed)[:, 0]]
            shifted = [describe(translate(patches, by * ways, self.motion)) for by in range(self.max_shift + 1)]
            moved = torch.stack(shifted, dim=1)
        for kept, values in (
            (self.first, first[wanted].float()),
            (self.moved, moved.float()),
            (self.points, target[wanted]),
            (self.index, numbers),
        ):
            assert isinstance(kept, list)
            kept.append(values)

    def curves(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns matching accuracy in percent and mean distance for each shift: two arrays (max_shift + 1,)."""
        kept = (self.first, self.moved, self.points, self.index)
        first, moved, points, index = (torch.cat(part) if isinstance(part, list) and part else part for part in kept)
        if not len(first):
            raise TinvError(
                f"metric {self.name}: no pair of one point among the first {2 * self.pairs} test pairs; raise its pairs"
            )
        assert isinstance(first, Tensor)
        assert isinstance(moved, Tensor)
        assert isinstance(points, Tensor)
        assert isinstance(index, Tensor)
        order = index.argsort()
        # one pair a point: two patches of one point in the pool would make a right answer count as wrong
        _, once = np.unique(points[order].cpu().numpy(), return_index=True)
        chosen = order[torch.from_numpy(np.sort(once)).to(order.device)]
        first, moved = first[chosen], moved[chosen]
        right = torch.arange(len(first), device=first.device)
        # one descriptor that is not finite makes every nearest one undefined
        finite = first.isfinite().all() & moved.isfinite().flatten(2).all(dim=2).all(dim=0)
        defined = torch.where(finite, 0.0, torch.nan).double()
        accuracy = [(first @ moved[:, by].T).argmax(dim=1).eq(right) + defined[by] for by in range(self.max_shift + 1)]
        distance = [torch.linalg.vector_norm(moved[:, by] - moved[:, 0], dim=1) for by in range(self.max_shift + 1)]
        return tuple(  # type: ignore[return-value]
            torch.stack(values).double().mean(dim=1).cpu().numpy() * scale
            for values, scale in ((accuracy, 100), (distance, 1))
        )

    def results(self) -> dict[str, Tensor]:
        """Returns the numbers to report, by name (below `test/`)."""
        accuracy, distance = self.curves()
        half = self.max_shift // 2
        found = {f"{self.name}_acc_{by}": accuracy[by] for by in sorted({0, half, self.max_shift})}
        found |= {f"{self.name}_distance_{by}": distance[by] for by in sorted({1, half, self.max_shift} - {0})}
        return {key: torch.tensor(float(value), dtype=torch.float64) for key, value in found.items()}

    def compute(self) -> dict[str, Tensor]:
        """Returns what `results` returns."""
        return self.results()

    def save(self, folder: Path, stem: str) -> list[Path]:
        """Writes both curves, as `STEM.npz` and as a picture `STEM.png`, to a folder."""
        from matplotlib.figure import Figure

        accuracy, distance = self.curves()
        shifts = np.arange(self.max_shift + 1)
        array, picture = folder / f"{stem}.npz", folder / f"{stem}.png"
        temporary = folder / f".{stem}.tmp.npz"
        np.savez(temporary, shifts=shifts, acc=accuracy, distance=distance)
        os.replace(temporary, array)
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        for axes, values, label, top in zip(
            figure.subplots(1, 2), (accuracy, distance), ("matching accuracy (%)", "descriptor distance"), (105, None),
            strict=True,
        ):  # fmt: skip
            axes.plot(shifts, values, marker="o")
            axes.set(xlabel="shift of one patch (pixels)", ylabel=label, ylim=(0, top))
            axes.spines[["top", "right"]].set_visible(False)
        temporary = folder / f".{stem}.tmp.png"
        figure.savefig(temporary, dpi=130)
        os.replace(temporary, picture)
        return [array, picture]
