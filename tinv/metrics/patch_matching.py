"""How well distances between descriptors tell patches of one point from patches of two."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from tinv.metrics.base import RowMetric

RECALL = (19, 20)
"""Recall at which false positives are counted, as a fraction, so that it is exact."""


def false_positive_rate(distance: Tensor, same: Tensor) -> Tensor:
    """Returns FPR95: the part of pairs of two points within the distance that 95% of pairs of one point are within.

    Exact: the threshold is the smallest distance within which at least 95% lie; pairs at just that distance count as
    accepted, of both kinds, so that the order of equal distances changes nothing.

    Args:
        distance: (N,) between descriptors.
        same: (N,) bool, whether both patches show one point.

    Returns:
        0 to 1; NaN if there are not pairs of both kinds.
    """
    positive, negative = distance[same], distance[~same]
    if not len(positive) or not len(negative):
        return distance.new_tensor(float("nan"))
    accepted = -(-len(positive) * RECALL[0] // RECALL[1])
    threshold = positive.sort().values[accepted - 1]
    return (negative <= threshold).double().mean()


class PatchMatching(RowMetric):
    """FPR95, area under the ROC curve and average precision of pairs of patches, each 0 to 1 (Brown et al., PAMI 2011).

    All distances are kept, so that nothing is binned, and gathered from all processes.

    Reported:
        - `fpr95` (ratio, 0 to 1): part of pairs of two points within the distance that 95% of pairs of one point are
          within; see `false_positive_rate`.
        - `auroc` (ratio, 0 to 1): area under the ROC curve of pairs ordered by their distance.
        - `ap` (ratio, 0 to 1): average precision of pairs ordered by their distance.

    Formula:
        `fpr95 = part of d(two points) <= t`, with t the smallest distance for which `part of d(one point) <= t` is at
        least 0.95, over the distances d of the pairs of each kind.

    Source:
        Brown, Hua & Winder, PAMI 2011 (FPR95); Kayhan & van Gemert, CVPR 2020, section 5.1.

    Example:
        >>> matching = PatchMatching()
        >>> matching.update(torch.tensor([0.1, 0.2, 0.9]), torch.tensor([True, True, False]))
        >>> matching.compute()["fpr95"]
        tensor(0., dtype=torch.float64)
    """

    higher_is_better = False

    def __init__(self) -> None:
        super().__init__()
        self.add_rows("distance", "same")

    def update(self, distance: Tensor, same: Tensor) -> None:
        """Adds a batch: distances (N,), 0 or more, and whether both patches show one point (N,) bool."""
        self.append(distance=distance.detach().double(), same=same)

    def compute(self) -> dict[str, Tensor]:
        """Returns `fpr95`, `auroc` and `ap`; NaN if a distance is not finite, or not both kinds of pairs are there."""
        distance, same = self.gathered("distance"), self.gathered("same").bool()
        if not distance.isfinite().all() or same.all() or not same.any():
            return {key: distance.new_tensor(float("nan")) for key in ("fpr95", "auroc", "ap")}
        # within 0..1, which torchmetrics takes unchanged
        similarity = 1 - distance / distance.max().clamp(min=torch.finfo(torch.float64).tiny)
        return {
            "fpr95": false_positive_rate(distance, same),
            "auroc": binary_auroc(similarity, same.long()),
            "ap": binary_average_precision(similarity, same.long()),
        }
