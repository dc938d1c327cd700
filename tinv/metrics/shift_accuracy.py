"""How often a network is right: where an image is, along the diagonal of its shifts, and at the worst of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinv.deprecation import renamed
from tinv.metrics.answers import undefined_unless_finite
from tinv.metrics.views import ViewMetric, shifted_views
from tinv.translation import ShiftMode
from tinv.utils.arguments import NonNegativeInt, PositiveInt, Seed


class CenterAccuracy(ViewMetric):
    """Accuracy on unshifted images in percent: what the accuracies under shifts compare with.

    Images without label (class -1) are left out. The number has its bootstrap interval over images (`_low`, `_high`).

    Reported:
        - `NAME` (percent, 0 to 100): accuracy on unshifted images.

    Formula:
        `100 / N * sum over images x of [argmax f(x) = class of x]`, for the logits f(x) and N labelled images.

    Args:
        seed: Seed of the bootstrap.
        name: Name under which the result is reported.
    """

    def __init__(self, seed: Seed = 0, name: str = "acc") -> None:
        super().__init__(0, "circular", seed, name, ("correct",))

    @property
    def views(self) -> int:
        """Passes through the network that an image costs."""
        return 0

    def update(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Adds a batch, see InvarianceMetric.update; the network is not run again."""
        known = targets >= 0
        self.store(index[known], undefined_unless_finite(logits.argmax(dim=1) == targets, logits)[known])

    def compute(self) -> dict[str, Tensor]:
        """Returns the percentage; nothing if no image had a label."""
        return self.with_intervals({self.name: lambda row: float(100 * row[0])}) if len(self.per_image()) else {}


class DiagonalAccuracy(ViewMetric):
    """Mean top-1 accuracy over the views at offsets (i, i), i = 0 .. offset_range (Kayhan & van Gemert, CVPR 2020).

    Images without label (class -1) are left out. Numbers have bootstrap intervals over images (`_low`, `_high`).

    Reported:
        - `NAME` (percent, 0 to 100): accuracy, mean over offsets and images.
        - `NAME_probability` (percent, 0 to 100): probability of the true class, mean over offsets and images.

    Formula:
        `100 / (N n) * sum over images x, offsets i of [argmax f(x at (i, i)) = class of x]`, for the logits f, N
        labelled images and n offsets.

    Source:
        Kayhan & van Gemert, CVPR 2020, section 4.3.

    Args:
        offset_range: Last offset in pixels; the paper cuts 224 out of 288: 64.
        mode: How views differ, see `tinv.translation.ShiftMode`.
        step: Pixels from one offset to the next.
        seed: Seed of the bootstrap.
        name: Name under which results are reported.
    """

    @renamed(max_shift="offset_range", motion="mode")
    def __init__(
        self,
        offset_range: NonNegativeInt = 64,
        mode: ShiftMode = "crop",
        step: PositiveInt = 1,
        seed: Seed = 0,
        name: str = "diagonal_acc",
    ) -> None:
        super().__init__(offset_range, mode, seed, name, ("correct", "probability"), step)

    @property
    def views(self) -> int:
        """Passes through the network that an image costs."""
        return len(self.offsets)

    def update(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Adds a batch, see InvarianceMetric.update; for `crop` the images are larger than what the network sees."""
        known = targets >= 0
        images, targets, index = images[known], targets[known], index[known]
        sums = torch.zeros(2, len(images), dtype=torch.float64, device=images.device)
        # without images no rows, but as wide as those of other processes
        for offset in self.offsets if len(images) else ():
            both = torch.full((len(images), 2), offset, device=images.device)
            outputs = network(shifted_views(images, both, self.offset_range, self.mode)).float()
            probability = outputs.softmax(dim=1).gather(1, targets[:, None])[:, 0]
            sums += undefined_unless_finite(torch.stack([outputs.argmax(dim=1) == targets, probability]), outputs)
        self.store(index, *(sums / len(self.offsets)))

    def compute(self) -> dict[str, Tensor]:
        """Returns the percentages; nothing if no image had a label."""
        if not len(self.per_image()):
            return {}
        return self.with_intervals(
            {self.name: lambda row: float(100 * row[0]), f"{self.name}_probability": lambda row: float(100 * row[1])}
        )


class WorstCaseAccuracy(ViewMetric):
    """Percentage of images that are classified correctly at every shift of a window, and that get one class everywhere.

    Numbers have bootstrap intervals over images (`_low`, `_high`). Without any label (class -1) NAME_acc is left out.

    Reported:
        - `NAME_acc` (percent, 0 to 100): labelled images that are right at every shift.
        - `NAME_consistency` (percent, 0 to 100): images that get one class at every shift.

    Formula:
        `NAME_acc = 100 / N * sum over images x of min over shifts T of [argmax f(T x) = class of x]`, for the logits f
        and N labelled images.

    Source:
        Engstrom et al., ICML 2019 (the worst of a grid of transformations); tinv (NAME_consistency).

    Args:
        offset_range: Largest offset in pixels; the window holds all (x, y) from 0 on.
        mode: How views differ, see `tinv.translation.ShiftMode`.
        step: Pixels from one offset to the next.
        seed: Seed of the bootstrap.
        name: Name under which results are reported.
    """

    @renamed(max_shift="offset_range", motion="mode")
    def __init__(
        self,
        offset_range: NonNegativeInt = 8,
        mode: ShiftMode = "crop",
        step: PositiveInt = 1,
        seed: Seed = 0,
        name: str = "worst_case",
    ) -> None:
        super().__init__(offset_range, mode, seed, name, ("correct", "unanimous", "labelled"), step)

    @property
    def views(self) -> int:
        """Passes through the network that an image costs."""
        return len(self.offsets) ** 2

    def update(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Adds a batch, see InvarianceMetric.update; for `crop` the images are larger than what the network sees."""
        correct = torch.ones(len(images), dtype=torch.bool, device=images.device)
        unanimous, finite, first = correct.clone(), correct.clone(), None
        for y in self.offsets:
            for x in self.offsets:
                offsets = torch.tensor([x, y], device=images.device).expand(len(images), 2)
                outputs = network(shifted_views(images, offsets, self.offset_range, self.mode))
                classes = outputs.argmax(dim=1)
                finite &= outputs.isfinite().all(dim=1)
                first = classes if first is None else first
                correct &= classes == targets
                unanimous &= classes == first
        defined = torch.where(finite, 0.0, torch.nan)
        self.store(index, correct + defined, unanimous + defined, targets >= 0)

    def compute(self) -> dict[str, Tensor]:
        """Returns the percentages."""
        statistics = {f"{self.name}_consistency": lambda row: float(100 * row[1])}
        if self.per_image()[:, 2].any():
            statistics[f"{self.name}_acc"] = lambda row: float(100 * row[0] / row[2]) if row[2] else float("nan")
        return self.with_intervals(statistics)
