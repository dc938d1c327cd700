"""What every small shift does to an answer: how often it stays right, and how often it ever changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tinv.errors import TinvError
from tinv.metrics.answers import undefined_unless_finite
from tinv.metrics.base import Unit, first_of, panels
from tinv.metrics.views import ViewMetric, bootstrap_means, shifted_views, with_ends
from tinv.translation import WINDOWS, ShiftMode, draw_offsets
from tinv.utils.arguments import PositiveInt, Seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = (1.0, 0.5, 0.25)
"""Pixels between neighbouring shifts that may be asked for."""

BALL_STEPS = 1000
"""Steps of the search for the smallest ball; its radius is found to within one part in their number's root."""

LABELS = {
    "consistency": "same answer as unmoved, shifts of this size",
    "never_changed": "same answer at every shift",
    "robust_acc": "right at every shift",
}


class ShiftRing(ViewMetric):
    """Answers at every shift (dx, dy) with max(|dx|, |dy|) up to a radius, against the answer to the unmoved image.

    Numbers have bootstrap intervals over images (`_low`, `_high`). Without labels (class -1) NAME_acc,
    NAME_degradation, NAME_fidelity and NAME_robust_acc are left out. Curves over the radius are written to a file and
    drawn.

    Reported:
        - `NAME_consistency` (percent, 0 to 100): moved images with the answer to the unmoved one, mean over shifts.
        - `NAME_never_changed` (percent, 0 to 100): images that keep their answer at every shift.
        - `NAME_acc` (percent, 0 to 100): accuracy on moved images, mean over shifts.
        - `NAME_degradation` (percent, up to 100): part of the accuracy on unmoved images that moved ones lose.
        - `NAME_fidelity` (percent, 0 to 100): accuracy on unmoved images times NAME_consistency.
        - `NAME_robust_acc` (percent, 0 to 100): images that are right at every shift, the unmoved one among them.
        - `NAME_divergence_radius` (ratio, 0 or more): radius of the smallest ball around the outputs for all shifts of
          an image, in the units of the output; mean over images.
        - `NAME_neighbour_flips` (percent, 0 to 100): images whose nearest other image, by the cosine of outputs, is
          another one when they are moved by one shift of the ring, drawn for each; needs no labels, at least three
          images.

    Formula:
        `NAME_robust_acc = 100 / N * sum over images x of min over shifts T of [argmax f(T x) = class of x]`, for the
        outputs f and N labelled images; NAME_never_changed with argmax f(x) in the place of the class.

    Source:
        Engstrom et al., ICML 2019 (worst of a set of shifts); Michaeli, Michaeli & Soudry, CVPR 2023 (degradation,
        parts of a pixel); Badoiu & Clarkson, SODA 2003 (smallest ball); tinv (NAME_fidelity, NAME_neighbour_flips).

    Args:
        radius: Largest shift in pixels.
        step: Pixels from one shift to the next: 1, 0.5 (modes `camera` and `fractional`) or 0.25 (`fractional`).
        mode: How views differ, see `tinv.translation.ShiftMode`.
        max_images: Number of images that are used, the first of the set; None for all.
        seed: Seed of the drawn shifts and of the bootstrap.
        name: Name under which results are reported.

    Raises:
        TinvError: For another step, or one that the mode does not know.
    """

    units: ClassVar[Mapping[str, Unit]] = {"_divergence_radius": "ratio"}
    shift_argument = "radius"

    def __init__(
        self,
        radius: PositiveInt = 1,
        step: float = 1.0,
        mode: ShiftMode = "crop",
        max_images: PositiveInt | None = None,
        seed: Seed = 0,
        name: str = "ring",
    ) -> None:
        super().__init__(2 * radius, mode, seed, name, ())
        finest = {"camera": 0.5, "fractional": 0.25}.get(mode, 1.0)
        if step not in STEPS or step < finest:
            raise TinvError(f"step={step} of {type(self).__name__} must be {_choices(finest)} in mode {mode}")
        self.radius, self.step, self.max_images = radius, step, max_images
        reach = np.arange(-radius, radius + step / 2, step)
        self.shifts = np.array([(dx, dy) for dy in reach for dx in reach if dx or dy])
        self.fields = (
            *(f"{what} {dx:g},{dy:g}" for what in ("agree", "correct") for dx, dy in self.shifts),
            "right",
            "ball",
        )
        self.add_rows("known", "still", "moved")

    @property
    def views(self) -> int:
        """Passes through the network that an image costs."""
        return len(self.shifts)

    def update(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Adds a batch, see InvarianceMetric.update; for `crop` the images are larger than what the network sees."""
        images, logits, targets, index = first_of(self.max_images, index, images, logits, targets, index)
        shifts = torch.from_numpy(self.shifts).to(images.device)
        still = logits.double()
        chosen = draw_offsets(index, len(shifts), self.seed)[:, 0]
        drawn, answers, outputs = still.clone(), [], []
        for number, shift in enumerate(shifts if len(images) else ()):
            # a window that begins further left shows its content further right
            offset = self.radius - shift if self.mode in WINDOWS else self.radius + shift
            views = shifted_views(images, offset.expand(len(images), 2), self.offset_range, self.mode)
            output = network(views).double()
            outputs.append(output)
            answers.append(output.argmax(dim=1))
            drawn = torch.where((chosen == number)[:, None], output, drawn)
        before = still.argmax(dim=1)
        shape = (len(images), len(shifts))
        found = torch.stack(answers, dim=1) if answers else before.new_zeros(shape)
        everything = torch.stack([still, *outputs], dim=1) if answers else still[:, None]
        defined = undefined_unless_finite(torch.zeros(shape, device=images.device), everything.flatten(1)[:, None])
        agree = (found == before[:, None]) + defined
        correct = (found == targets[:, None]) + defined
        right = undefined_unless_finite(before == targets, still)
        ball = smallest_ball(everything)
        self.store(index, *agree.T, *correct.T, right, ball)
        self.append(known=targets >= 0, still=still, moved=drawn)

    def numbers(self) -> dict[str, np.ndarray]:
        """Returns, in order of the sample indices, `agree`, `correct` (images, shifts), `right` and `ball` (images,).

        Also `known` (images,): whether an image has a label.
        """
        rows, count = self.per_image(), len(self.shifts)
        order = self.gathered("index").argsort()
        known = self.gathered("known")[order].cpu().numpy().astype(bool)
        agree, correct, rest = rows[:, :count], rows[:, count : 2 * count], rows[:, 2 * count :]
        return {"agree": agree, "correct": correct, "right": rest[:, 0], "ball": rest[:, 1], "known": known}

    def compute(self) -> dict[str, Tensor]:
        """Returns the numbers at the whole radius; nothing before any image was seen."""
        if not len(self.per_image()):
            return {}
        found = self.numbers()
        fields = {"consistency": 100 * found["agree"].mean(axis=1), "never_changed": 100 * found["agree"].min(axis=1)}
        fields["divergence_radius"] = found["ball"]
        if (flips := self._neighbour_flips()) is not None:
            fields["neighbour_flips"] = 100 * flips
        rows = np.stack(list(fields.values()), axis=1)
        draws = bootstrap_means(rows, self.seed)
        results: dict[str, Tensor] = {}
        for key, value, column in zip(fields, rows.mean(axis=0), draws.T, strict=True):
            results |= with_ends(f"{self.name}_{key}", value, column)
        if found["known"].any():
            results |= self._of_labelled({key: values[found["known"]] for key, values in found.items()})
        return results

    def _of_labelled(self, found: dict[str, np.ndarray]) -> dict[str, Tensor]:
        right, moved = found["right"], found["correct"].mean(axis=1)
        robust = np.minimum(right, found["correct"].min(axis=1))
        columns = np.stack([moved, robust, right, found["agree"].mean(axis=1)], axis=1)
        draws = np.concatenate([columns.mean(axis=0)[None], bootstrap_means(columns, self.seed)])
        accuracy = draws[:, 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            values = {
                "acc": 100 * draws[:, 0],
                "robust_acc": 100 * draws[:, 1],
                "degradation": 100 * np.where(accuracy > 0, (accuracy - draws[:, 0]) / accuracy, np.nan),
                "fidelity": 100 * accuracy * draws[:, 3],
            }
        results: dict[str, Tensor] = {}
        for key, numbers in values.items():
            results |= with_ends(f"{self.name}_{key}", numbers[0], numbers[1:])
        return results

    def _neighbour_flips(self) -> np.ndarray | None:
        """Returns for each image whether its nearest other image changes when it moves; None for fewer than three."""
        order = self.gathered("index").argsort()
        still, moved = (nn.functional.normalize(self.gathered(s)[order], dim=1) for s in ("still", "moved"))
        if len(still) < 3:
            return None
        nearest = []
        for vectors in (still, moved):
            similarity = vectors @ still.T
            similarity.fill_diagonal_(-torch.inf)
            nearest.append(similarity.argmax(dim=1))
        flipped: np.ndarray = undefined_unless_finite(nearest[0] != nearest[1], still, moved).cpu().numpy()
        return flipped

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the curves over `radius`, from 0 on, each with `_low` and `_high`; nothing before any image was seen.

        `consistency` is that of the shifts at this radius alone, `never_changed` and `robust_acc` those of all shifts
        up to it, all in percent.
        """
        if not len(self.per_image()):
            return {}
        found, distance = self.numbers(), np.abs(self.shifts).max(axis=1)
        radii = np.unique([0, *distance])
        curves: dict[str, np.ndarray] = {"radius": radii}
        known = found["known"]
        # an image that is not moved has one answer
        still = 0 * found["agree"][:, 0] + 1
        by_name = {
            "consistency": [still, *(found["agree"][:, distance == r].mean(axis=1) for r in radii[1:])],
            "never_changed": [still, *(found["agree"][:, distance <= r].min(axis=1) for r in radii[1:])],
        }
        if known.any():
            correct, right = found["correct"][known], found["right"][known]
            moved = [np.minimum(right, correct[:, distance <= r].min(axis=1)) for r in radii[1:]]
            by_name["robust_acc"] = [right, *moved]
        for key, columns in by_name.items():
            rows = np.stack(columns, axis=1)
            low, high = np.percentile(bootstrap_means(rows, self.seed), [2.5, 97.5], axis=0)
            curves |= {key: 100 * rows.mean(axis=0), f"{key}_low": 100 * low, f"{key}_high": 100 * high}
        return curves

    def plot(self, ax: Any = None) -> tuple[Figure, Any]:
        """Draws the curves over the radius with their intervals; see ReportedMetric.plot."""
        figure, axes = panels(ax, figsize=(5.4, 3.6), dpi=130)
        curves = self.arrays()
        for key, label in LABELS.items():
            if key in curves:
                # the mean may lie outside of the percentiles by a rounding error
                ends = [curves[key] - curves[f"{key}_low"], curves[f"{key}_high"] - curves[key]]
                axes.errorbar(curves["radius"], curves[key], np.maximum(ends, 0), marker="o", capsize=2, label=label)
        axes.set(xlabel="size of the shifts, max(|dx|, |dy|) (pixels)", ylabel="images (%)", ylim=(0, 103))
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        return figure, axes


def smallest_ball(points: Tensor, steps: int = BALL_STEPS) -> Tensor:
    """Returns the radius of the smallest ball around each set of points (Badoiu & Clarkson, SODA 2003).

    The centre moves towards the farthest point by ever smaller parts of the way. The radius lies between half of the
    largest distance of two points and that distance over the root of 3 in the plane (of 2 in many dimensions).

    Args:
        points: (N, P, F), P points of each set.
        steps: Steps of the search.

    Returns:
        (N,) radii, never below the true one; NaN where a point is not finite.

    Examples:
        >>> smallest_ball(torch.tensor([[[0.0, 0.0], [2.0, 0.0]]])).round(decimals=2)
        tensor([1.])
    """
    finite = points.isfinite().all(dim=2).all(dim=1)
    # all that is needed of the points is how they lie to each other: P numbers each instead of F
    products = points @ points.transpose(1, 2)
    squares = products.diagonal(dim1=1, dim2=2)
    weights = torch.full(points.shape[:2], 1 / points.shape[1], dtype=points.dtype, device=points.device)
    best = torch.full(points.shape[:1], torch.inf, dtype=points.dtype, device=points.device)
    for step in range(steps):
        along = (products @ weights[:, :, None])[:, :, 0]
        centre = (weights * along).sum(dim=1, keepdim=True)
        distance = (squares - 2 * along + centre).clamp(min=0)
        farthest = distance.argmax(dim=1, keepdim=True)
        best = torch.minimum(best, distance.gather(1, farthest)[:, 0])
        weights = weights * (1 - 1 / (step + 2))
        weights = weights.scatter_add(1, farthest, torch.full_like(farthest, 1, dtype=points.dtype) / (step + 2))
    return best.sqrt().masked_fill(~finite, torch.nan)


def _choices(finest: float) -> str:
    return " or ".join(f"{step:g}" for step in STEPS if step >= finest)
