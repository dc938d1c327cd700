"""How often a network gives two shifted views of an image the same answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from tinv.deprecation import renamed
from tinv.errors import TinvError
from tinv.metrics.answers import cosine_similarity, undefined_unless_finite
from tinv.metrics.base import Unit
from tinv.metrics.views import ViewMetric, shifted_views
from tinv.nn.padding import pad
from tinv.translation import WINDOWS, ShiftMode, draw_offsets
from tinv.utils.arguments import NonNegativeInt, PositiveInt, Seed

Draw = Literal["image", "batch"]
Against = Literal["view", "image"]

FIELDS = ("agree", "first", "second", "both", "change", "labelled", "cosine")


class ShiftConsistency(ViewMetric):
    """Percentage of pairs of views with the same top-1 answer (Zhang, ICML 2019; Kayhan & van Gemert, CVPR 2020).

    Each pass takes two views of every image, whose offsets are uniform over 0 .. offset_range - 1 in x and in y, or one
    view and the unmoved image (`against: image`).

    Each number has its bootstrap interval over images (`_low`, `_high`). Without labels (class -1) NAME_of_correct,
    NAME_corrected, NAME_acc and NAME_degradation are left out.

    Reported:
        - `NAME` (percent, 0 to 100): pairs with equal answers.
        - `NAME_of_correct` (percent, 0 to 100): how often the second view is right where the first one is, averaged
          over both orders.
        - `NAME_corrected` (percent, up to 100; 0 is chance): agreement beyond chance, since a better network is
          trivially more consistent.
        - `NAME_probability_change` (percent, 0 to 100): mean absolute difference, between the views, of the probability
          of the class that the first one predicts.
        - `NAME_cosine` (cosine, -1 to 1): mean cosine similarity of the two output vectors.
        - `NAME_acc` (percent, 0 to 100): accuracy on moved images; with `against: image` alone.
        - `NAME_degradation` (percent, up to 100): part of the accuracy on unmoved images that moved ones lose; with
          `against: image` alone.

    Formula:
        `NAME_corrected = 100 (o - e) / (1 - e)`, for the agreement o of the views, in 0..1, and that of two networks of
        their accuracies a and b that err independently, `e = a b + (1 - a) (1 - b) / (classes - 1)`.

    Source:
        Zhang, ICML 2019, and Kayhan & van Gemert, CVPR 2020, section 4.3 (NAME); Azulay & Weiss, JMLR 2019
        (NAME_probability_change); Mouton, Myburgh & Davel, SACAIR 2020 (NAME_cosine); tinv (NAME_corrected).

    Args:
        offset_range: Number of offsets in pixels an axis: all are below it. The paper cuts 224 out of 288: 64.
        mode: How views differ, see `tinv.translation.ShiftMode`.
        passes: Number of pairs of views of each image.
        draw: `image` gives each image its own offsets; `batch` one pair of offsets a batch, as the paper's code did,
            which makes the result depend on the batch size.
        seed: Seed of the offsets and of the bootstrap.
        name: Name under which results are reported.
        border: Zeros in pixels that are added on each side of the image before views of it are taken, so that nothing
            leaves a zero canvas. Crops of an image with a border of offset_range / 2 have the size of the image.
        against: What a view is compared with: another `view`, or the unmoved `image`.
        shifts: Smallest and largest shift, drawn in steps of a pixel, in the place of the offsets: such as [-32, 31],
            or [1.5, 31.5] in mode `fractional`. For modes in which the image moves, within offset_range / 2.

    Raises:
        TinvError: For shifts in another mode or beyond offset_range / 2, or no whole number of pixels apart.
    """

    units: ClassVar[Mapping[str, Unit]] = {"_cosine": "cosine"}

    @renamed(max_shift="offset_range", motion="mode")
    def __init__(
        self,
        offset_range: NonNegativeInt = 64,
        mode: ShiftMode = "crop",
        passes: PositiveInt = 5,
        draw: Draw = "image",
        seed: Seed = 0,
        name: str = "consistency",
        border: NonNegativeInt = 0,
        against: Against = "view",
        shifts: tuple[float, float] | list[float] | None = None,
    ) -> None:
        super().__init__(offset_range, mode, seed, name, FIELDS)
        self.against, self.shifts = against, self._checked(shifts)
        self.passes, self.draw, self.border = passes, draw, border
        self.canvas_margin = max(0, self.canvas_margin - border)
        self.crop_margin = max(0, self.crop_margin - 2 * border)
        self.add_state("classes", torch.zeros((), dtype=torch.long), dist_reduce_fx="max")
        self.classes: Tensor

    @property
    def views(self) -> int:
        """Passes through the network that an image costs."""
        return self.passes * (1 if self.against == "image" else 2)

    def _checked(self, shifts: tuple[float, float] | list[float] | None) -> tuple[float, float] | None:
        if shifts is None:
            return None
        low, high = shifts if len(shifts) == 2 else (0, -1)
        if self.mode in WINDOWS or not low <= high or (high - low) % 1:
            raise TinvError(
                f"shifts={list(shifts)} of {self.name} must be the smallest and the largest, whole pixels apart, in a "
                "mode in which the image moves"
            )
        if max(-low, high) > self.offset_range // 2:
            raise TinvError(f"shifts={list(shifts)} of {self.name} go beyond half of offset_range={self.offset_range}")
        return low, high

    def _draw(self, numbers: Tensor, turn: int) -> Tensor:
        """Returns offsets (N, 2) of the views of one turn, as `shifted_views` takes them."""
        if self.shifts is None:
            return draw_offsets(numbers, max(1, self.offset_range), self.seed, turn)
        low, high = self.shifts
        return draw_offsets(numbers, int(high - low) + 1, self.seed, turn) + (low + self.offset_range // 2)

    def update(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Adds a batch, see InvarianceMetric.update; for `crop` the images are larger than what the network sees."""
        sums = torch.zeros(len(FIELDS), len(images), dtype=torch.float64, device=images.device)
        numbers = index if self.draw == "image" else index[:1].expand_as(index)
        everyone = torch.arange(len(images), device=images.device)
        images = pad(images, [(self.border, self.border)] * 2)
        for turn in range(self.passes):
            predicted, probabilities, outputs = [], [], []
            for view in (0, 1):
                if self.against == "image" and view == 0:
                    output = logits.float()
                else:
                    offsets = self._draw(numbers, 2 * turn + view)
                    output = network(shifted_views(images, offsets, self.offset_range, self.mode)).float()
                outputs.append(output.double())
                predicted.append(output.argmax(dim=1))
                probabilities.append(output.softmax(dim=1)[everyone, predicted[0]])
            first, second = (classes == targets for classes in predicted)
            change = (probabilities[0] - probabilities[1]).abs()
            cosine = cosine_similarity(*outputs)
            parts = (predicted[0] == predicted[1], first, second, first & second, change, cosine)
            defined = undefined_unless_finite(torch.stack([part.double() for part in parts]), *outputs)
            sums += torch.cat([defined[:5], (targets >= 0).double()[None], defined[5:]])
        self.classes = self.classes.clamp(min=logits.shape[1])
        self.store(index, *(sums / self.passes))

    def compute(self) -> dict[str, Tensor]:
        """Returns the percentages."""
        others = max(1, int(self.classes) - 1)

        def corrected(row: np.ndarray) -> float:
            agree, first, second = row[:3]
            chance = first * second + (1 - first) * (1 - second) / others
            return float(100 * (agree - chance) / (1 - chance)) if chance < 1 else float("nan")

        def of_correct(row: np.ndarray) -> float:
            _, first, second, both = row[:4]
            correct = (first + second) / 2
            return float(100 * both / correct) if correct > 0 else float("nan")

        def degradation(row: np.ndarray) -> float:
            return float(100 * (row[1] - row[2]) / row[1]) if row[1] > 0 else float("nan")

        statistics = {self.name: lambda row: float(100 * row[0])}
        if self.per_image()[:, 5].all():
            statistics |= {f"{self.name}_of_correct": of_correct, f"{self.name}_corrected": corrected}
            if self.against == "image":
                statistics |= {f"{self.name}_acc": lambda row: float(100 * row[2])}
                statistics |= {f"{self.name}_degradation": degradation}
        statistics[f"{self.name}_probability_change"] = lambda row: float(100 * row[4])
        statistics[f"{self.name}_cosine"] = lambda row: float(row[6])
        return self.with_intervals(statistics)
