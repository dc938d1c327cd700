"""How often a network is right: where an image is, along the diagonal of its shifts, and at the worst of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinv.errors import TinvError
from tinv.metrics.answers import undefined_unless_finite
from tinv.metrics.views import Motion, ViewMetric, take_views


class UnmovedAccuracy(ViewMetric):
    """Percentage of images that are classified rightly where they are: what the accuracies under shifts compare with.

    Reported with its bootstrap interval over images: NAME. Images without label (class -1) are left out.

    Args:
        seed: of the bootstrap.
        name: under which the result is reported.
    """

    def __init__(self, seed: int = 0, name: str = "acc") -> None:
        super().__init__(0, "circular", seed, name, ("right",))

    def update(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Adds a batch, see InvarianceMetric.update; the network is not run again."""
        known = targets >= 0
        self.keep(index[known], undefined_unless_finite(logits.argmax(dim=1) == targets, logits)[known])

    def results(self) -> dict[str, Tensor]:
        """Returns the percentage; nothing if no image had a label."""
        return self.with_intervals({self.name: lambda row: float(100 * row[0])}) if len(self.table()) else {}


class DiagonalAccuracy(ViewMetric):
    """Mean top-1 accuracy over the views at offsets (i, i), i = 0 .. max_shift (Kayhan & van Gemert, CVPR 2020).

    Reported in percent, with bootstrap intervals over images: NAME, and NAME_probability, the mean probability of the
    true class. Images without label (class -1) are left out.

    Args:
        max_shift: the last offset in pixels; the paper cuts 224 out of 288: 64.
        motion: `crop`, `zero` or `circular`.
        step: pixels from one offset to the next.
        seed: of the bootstrap.
        name: under which results are reported.
    """

    def __init__(
        self, max_shift: int = 64, motion: Motion = "crop", step: int = 1, seed: int = 0, name: str = "diagonal_acc"
    ) -> None:
        super().__init__(max_shift, motion, seed, name, ("right", "probability"))
        _check_step(max_shift, step)
        self.step = step

    def update(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Adds a batch, see InvarianceMetric.update; for `crop` the images are larger than what the network sees."""
        known = targets >= 0
        images, targets, index = images[known], targets[known], index[known]
        if not len(images):
            # no rows, but as wide as those of other processes
            self.keep(index, *index.new_zeros(2, 0))
            return
        places = range(0, self.max_shift + 1, self.step)
        sums = torch.zeros(2, len(images), dtype=torch.float64, device=images.device)
        for place in places:
            offsets = torch.full((len(images), 2), place, device=images.device)
            said = network(take_views(images, offsets, self.max_shift, self.motion)).float()
            probability = said.softmax(dim=1).gather(1, targets[:, None])[:, 0]
            sums += undefined_unless_finite(torch.stack([said.argmax(dim=1) == targets, probability]), said)
        self.keep(index, *(sums / len(places)))

    def results(self) -> dict[str, Tensor]:
        """Returns the percentages; nothing if no image had a label."""
        if not len(self.table()):
            return {}
        return self.with_intervals(
            {self.name: lambda row: float(100 * row[0]), f"{self.name}_probability": lambda row: float(100 * row[1])}
        )


class WorstCaseAccuracy(ViewMetric):
    """Percentage of images that are classified rightly at every shift of a window, and that get one answer everywhere.

    Reported in percent, with bootstrap intervals over images: NAME_acc (labelled images only) and NAME_consistency.

    Args:
        max_shift: the window holds all offsets (x, y) from 0 to max_shift pixels.
        motion: `crop`, `zero` or `circular`.
        step: pixels from one offset to the next.
        seed: of the bootstrap.
        name: under which results are reported.
    """

    def __init__(
        self, max_shift: int = 8, motion: Motion = "crop", step: int = 1, seed: int = 0, name: str = "worst_case"
    ) -> None:
        super().__init__(max_shift, motion, seed, name, ("right", "same", "labelled"))
        _check_step(max_shift, step)
        self.step = step

    def update(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Adds a batch, see InvarianceMetric.update; for `crop` the images are larger than what the network sees."""
        places = range(0, self.max_shift + 1, self.step)
        right = torch.ones(len(images), dtype=torch.bool, device=images.device)
        same, finite, first = right.clone(), right.clone(), None
        for y in places:
            for x in places:
                offsets = torch.tensor([x, y], device=images.device).expand(len(images), 2)
                said = network(take_views(images, offsets, self.max_shift, self.motion))
                answers = said.argmax(dim=1)
                finite &= said.isfinite().all(dim=1)
                first = answers if first is None else first
                right &= answers == targets
                same &= answers == first
        defined = torch.where(finite, 0.0, torch.nan)
        self.keep(index, right + defined, same + defined, targets >= 0)

    def results(self) -> dict[str, Tensor]:
        """Returns the percentages."""
        statistics = {f"{self.name}_consistency": lambda row: float(100 * row[1])}
        if self.table()[:, 2].any():
            statistics[f"{self.name}_acc"] = lambda row: float(100 * row[0] / row[2]) if row[2] else float("nan")
        return self.with_intervals(statistics)


def _check_step(max_shift: int, step: int) -> None:
    if step < 1 or max_shift % step:
        raise TinvError(f"step={step} pixels must be 1 or more and divide max_shift={max_shift}")
